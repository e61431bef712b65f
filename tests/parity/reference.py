"""Random models of transformers, saved as users save them, and what they compute."""

from pathlib import Path

import numpy as np
import torch
import transformers as hf

SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}
BERT = {"vocab_size": 20, "max_position_embeddings": 9, **SIZES}
VIT = {"image_size": 8, "patch_size": 4, "num_channels": 3, **SIZES}


def randomised(model, seed: int = 0):
    """The model in evaluation mode, no parameter of it zero or one: fresh biases would hide where
    they are added."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = rng.standard_normal(tuple(parameter.shape))
            if "norm" in name.lower() and name.endswith("weight"):
                noise = 1 + 0.2 * noise
            elif parameter.ndim == 2 and "embeddings" not in name:
                noise = noise / np.sqrt(parameter.shape[1])
            else:
                noise = 0.5 * noise
            parameter.copy_(torch.from_numpy(noise))
    # Where two parameters are one in transformers, they are again.
    model.tie_weights()
    return model.eval()


def bert(kind, seed: int = 0, tie: bool = True, **fields):
    """A BERT of one of transformers' classes."""
    config = hf.BertConfig(
        **{**BERT, **fields}, tie_word_embeddings=tie, attn_implementation="eager"
    )
    return randomised(kind(config), seed)


def vit(kind, seed: int = 0, **fields):
    """A ViT of one of transformers' classes."""
    return randomised(kind(hf.ViTConfig(**{**VIT, **fields}, attn_implementation="eager")), seed)


def text(config, seed: int = 0, tokens: int = 7, samples: int = 4) -> dict[str, np.ndarray]:
    """Random ids and types; samples of all lengths from one token to all of them."""
    rng = np.random.default_rng(seed)
    integers = lambda top: rng.integers(0, top, (samples, tokens)).astype(np.int32)
    lengths = np.linspace(tokens, 1, samples).astype(int)
    return {
        "input_ids": integers(config.vocab_size),
        "token_type_ids": integers(config.type_vocab_size),
        "attention_mask": np.arange(tokens)[None] < lengths[:, None],
    }


def pictures(config, seed: int = 0, samples: int = 3) -> dict[str, np.ndarray]:
    """Random images, channels last as ours are."""
    shape = (samples, config.image_size, config.image_size, config.num_channels)
    return {"image": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


def outputs(model, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What transformers computes: "states" (layers + 1, batch, tokens, width), from the embedding
    on, and "logits", or "tokens" and "pooled"."""
    if "image" in batch:
        inputs = {"pixel_values": torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy())}
    else:
        inputs = {
            "input_ids": torch.from_numpy(batch["input_ids"]).long(),
            "token_type_ids": torch.from_numpy(batch["token_type_ids"]).long(),
            "attention_mask": torch.from_numpy(batch["attention_mask"]).long(),
        }
    with torch.inference_mode():
        found = model(**inputs, output_hidden_states=True)
    result = {"states": np.stack([state.numpy() for state in found.hidden_states])}
    if hasattr(found, "logits"):
        return result | {"logits": found.logits.numpy()}
    result["tokens"] = found.last_hidden_state.numpy()
    if found.pooler_output is not None:
        result["pooled"] = found.pooler_output.numpy()
    return result


def saved(model, folder: Path, **options) -> Path:
    """The folder of `save_pretrained`."""
    model.save_pretrained(folder, **options)
    return folder
