"""Writes tests/golden/tokenizers.json: the ids that transformers gives the odd texts.

python tests/parity/make_tokenizer_golden.py
"""

import json
import sys
import tempfile
from pathlib import Path

import transformers as hf

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import odd_texts  # noqa: E402 (of the folder above)


def main() -> None:
    texts, made = odd_texts.TEXTS, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in odd_texts.CASES.items():
            odd_texts.write(Path(folder) / name, settings)
            tokenizer = hf.AutoTokenizer.from_pretrained(Path(folder) / name)
            made[name] = tokenizer(texts).input_ids
    record = {"transformers": hf.__version__, "ids": made}
    path = TESTS / "golden" / "tokenizers.json"
    path.write_text(json.dumps(record, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
