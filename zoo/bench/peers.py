"""Hugging Face's models of the same sizes, trained on PyTorch in eager mode; needs torch.

They get what a user would give them for speed on a CPU: as many threads as cores, scaled
dot-product attention, the fused AdamW. They do the same work a step as our trainer: a clip of the
global norm, AdamW with decay on the matrices. Three differences remain:

- ViT: a class token beside the patches, 50 tokens for our 49, whose output is classified; ours is
  the mean over the patches. The model has 2 x width parameters more.
- BERT: logits at every position and a loss at the masked ones ("all logits"); ours gathers the
  masked positions first, so there is a second run that calls Hugging Face's own modules that way
  ("masked logits").
- BERT: `tie_word_embeddings=False`, as ours, for the same parameters and the same optimiser's work.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np

from zoo.bench.rounds import Run
from zoo.data import Batch

MISSING = "PyTorch rows left out: pip install -r requirements-torch.txt (Python 3.11) adds them"
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def installed() -> bool:
    """Whether torch and transformers can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def versions() -> str:
    """What runs."""
    import torch
    import transformers

    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def cores() -> int:
    """Cores that this process may use."""
    # Not everywhere: macOS has no affinity.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def make(config: Any) -> Any:
    """Hugging Face's model of the sizes of one of ours, random, in training mode.

    Args:
      config: a `ViTConfig`, or a `BertConfig` with task "mlm".

    Raises:
      ValueError: for a model without a counterpart here.
    """
    import torch
    from transformers import BertConfig, BertForMaskedLM, ViTConfig, ViTForImageClassification

    encoder = {
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": "gelu",  # the exact one
        "layer_norm_eps": config.layer_norm_eps,
        "attn_implementation": "sdpa",
        **NO_DROPOUT,
    }
    torch.manual_seed(0)
    if hasattr(config, "image_size"):
        return ViTForImageClassification(
            ViTConfig(
                image_size=config.image_size,
                patch_size=config.patch_size,
                num_channels=config.channels,
                num_labels=config.classes,
                **encoder,
            )
        ).train()
    if config.task == "mlm":
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=config.vocabulary,
                max_position_embeddings=config.positions,
                type_vocab_size=config.types,
                tie_word_embeddings=False,
                **encoder,
            )
        )
        # Untying leaves a second bias that nothing uses.
        model.cls.predictions.bias = model.cls.predictions.decoder.bias
        return model.train()
    raise ValueError(f"{config.name}: task={config.task!r} has no PyTorch counterpart in the bench")


class Peer:
    """A PyTorch model that trains on a batch that stays.

    Args:
      config: of our model of the same sizes.
      batch: of ours; (B, ...) numpy arrays.
      masked: of a BERT, compute logits at the masked positions alone.
    """

    def __init__(self, config: Any, batch: Batch, masked: bool = False) -> None:
        import torch

        torch.set_num_threads(cores())
        self.model, self.masked = make(config), masked
        self.batch = {name: torch.from_numpy(np.array(array)) for name, array in batch.items()}
        if "image" in self.batch:
            image = self.batch["image"].permute(0, 3, 1, 2).contiguous()
            label = self.batch["label"].long()
            self.inputs = {"pixel_values": image, "labels": label}
        else:
            self.inputs = {"input_ids": self.batch["input_ids"].long()}
            self.position = self.batch["position"].long()
            # -100 is where Hugging Face's loss looks away.
            used = self.batch["weight"] > 0
            self.label = torch.where(used, self.batch["label"].long(), -100)
            if not masked:
                # Unused slots go to the first token, [CLS], which is never predicted.
                labels = torch.full_like(self.inputs["input_ids"], -100)
                self.inputs["labels"] = labels.scatter(1, self.position, self.label)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
            lr=1e-4,
            weight_decay=0.1,
            fused=True,
        )

    def loss(self) -> Any:
        """Mean cross-entropy of the batch, a scalar tensor."""
        if not self.masked:
            return self.model(**self.inputs).loss
        from torch.nn import functional

        x = self.model.bert(**self.inputs).last_hidden_state
        x = x.gather(1, self.position[..., None].expand(-1, -1, x.shape[-1]))
        return functional.cross_entropy(self.model.cls(x).flatten(0, 1), self.label.flatten())

    def train(self) -> None:
        """One training step."""
        from torch.nn.utils import clip_grad_norm_

        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        loss.item()

    def forward(self) -> None:
        """One evaluation, loss included. Without dropout training mode computes the same."""
        import torch

        with torch.inference_mode():
            self.loss().item()

    def runs(self) -> dict[str, Run]:
        """{"train", "forward"}."""
        return {"train": self.train, "forward": self.forward}


def labels(config: Any) -> dict[str, bool]:
    """Rows beside one of our models: their names, and whether logits are of masked tokens alone."""
    if hasattr(config, "image_size"):
        return {"PyTorch": False}
    return {"PyTorch, all logits": False, "PyTorch, masked logits": True}
