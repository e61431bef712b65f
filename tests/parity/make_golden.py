"""Writes `tests/golden/hugging_face/`: tiny models as transformers saves them, and their outputs.

    python tests/parity/make_golden.py

Run it once with transformers 4 and once with transformers 5: each writes its own folders. They let
the suite compare with transformers where PyTorch is not installed.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import reference
import transformers as hf
from safetensors.numpy import load_file, save_file

FOLDER = Path(__file__).parents[1] / "golden" / "hugging_face"
MAJOR = hf.__version__.split(".")[0]


def models() -> dict:
    """By the folder's name: model, and options of `save_pretrained`."""
    made = {
        "bert": (reference.bert(hf.BertModel, 1), {}),
        "bert_mlm": (reference.bert(hf.BertForMaskedLM, 2), {}),
        "bert_mlm_untied": (reference.bert(hf.BertForMaskedLM, 3, tie=False), {}),
        "bert_classify": (
            reference.bert(hf.BertForSequenceClassification, 4, num_labels=3),
            {"max_shard_size": 3000},
        ),
        "vit": (reference.vit(hf.ViTModel, 5), {}),
        "vit_classify": (reference.vit(hf.ViTForImageClassification, 6, num_labels=5), {}),
    }
    if MAJOR == "5":  # and its names in memory, which it saves on demand
        made["vit_own_names"] = (made["vit"][0], {"save_original_format": False})
    else:  # byte for byte the same but for the version
        del made["vit_classify"]
    return made


def age(folder: Path) -> None:
    """What files converted from TensorFlow look like: old names of LayerNorm, a saved counter."""
    path = folder / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array
        for name, array in load_file(path).items()
    }
    old["embeddings.position_ids"] = np.arange(9)[None]
    save_file(old, path, metadata={"format": "pt"})


def main() -> None:
    for name, (model, options) in models().items():
        folder = FOLDER / f"{name}_{MAJOR}"
        shutil.rmtree(folder, ignore_errors=True)
        reference.saved(model, folder, **options)
        if name == "bert" and MAJOR == "4":
            age(folder)
        config = model.config
        batch = reference.pictures(config) if name.startswith("vit") else reference.text(config)
        expected = reference.outputs(model, batch)
        np.savez_compressed(
            folder / "golden.npz",
            **{f"in_{key}": array for key, array in batch.items()},
            **{f"out_{key}": array for key, array in expected.items()},
        )
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(json.dumps({"folder": folder.name, "bytes": size, "version": hf.__version__}))


if __name__ == "__main__":
    main()
