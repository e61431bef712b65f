"""Writes `tests/golden/minilm_l6.npz`: embeddings of a few sentences by PyTorch in float64.

    python tests/parity/make_minilm_golden.py FOLDER

FOLDER holds all-MiniLM-L6-v2 as sentence-transformers saves it.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from sentences import FIXED


def main(folder: str) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    model = hf.BertModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    inputs = tokenizer(FIXED, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        tokens = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None].double()
    mean = (tokens * mask).sum(1) / mask.sum(1)
    embedding = torch.nn.functional.normalize(mean).numpy().astype(np.float32)
    path = Path(__file__).parents[1] / "golden" / "minilm_l6.npz"
    np.savez_compressed(path, embedding=embedding)
    print(path, embedding.shape, path.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1])
