"""Two hundred texts that tokenizers differ on, and small BERT tokenizers to differ.

The texts are accents composed and not, scripts of several kinds and directions, emoji, control and
invisible characters, special tokens as words, and random mixtures of them.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ODD = json.loads((Path(__file__).parent / "golden" / "odd_texts.json").read_text())
TEXTS: list[str] = ODD["texts"]


def bert(**normaliser: object) -> Tokenizer:
    """A BERT's word pieces with the settings of a `BertNormalizer`."""
    made = Tokenizer(
        models.WordPiece({w: i for i, w in enumerate(ODD["words"])}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.BertNormalizer(**normaliser)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    made.add_special_tokens(list(SPECIAL))
    return made


NAMED = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
BERT, GENERIC = {"tokenizer_class": "BertTokenizer"}, {"tokenizer_class": "PreTrainedTokenizerFast"}
CASES = {
    "defaults": BERT,
    "cased": {**BERT, "do_lower_case": False},
    "accents_kept": {**BERT, "strip_accents": False},
    "accents_stripped": {**BERT, "do_lower_case": False, "strip_accents": True},
    "chinese_words": {**BERT, "tokenize_chinese_chars": False},
    "all": {**BERT, "do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False},
    "fast_class": {"tokenizer_class": "BertTokenizerFast", **NAMED, "do_basic_tokenize": False},
    "no_class": {"do_lower_case": False, **NAMED},
    "as_it_is": {**GENERIC, **NAMED, "do_lower_case": False},
    "split": {**BERT, **NAMED, "split_special_tokens": True},
    "split_as_it_is": {**GENERIC, **NAMED, "split_special_tokens": True},
    "never_split": {**BERT, "never_split": ["cat"], "clean_up_tokenization_spaces": True},
    "dicts": {**BERT, "sep_token": {"content": "[SEP]", "lstrip": False, "normalized": False,
              "rstrip": False, "single_word": False, "__type": "AddedToken"}},
}  # fmt: skip
"""Contents of a tokenizer_config.json, each beside `bert()`."""


def write(folder: Path, settings: dict, tokenizer: Tokenizer | None = None) -> None:
    """A folder that AutoTokenizer reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "tokenizer.json").write_text((tokenizer or bert()).to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
