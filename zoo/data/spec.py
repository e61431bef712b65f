"""What data a run uses and how they are prepared: a frozen, JSON-able description."""

from __future__ import annotations

import math
from dataclasses import dataclass

from snapjax.errors import unknown_name

TASKS = ("classify", "mlm")
TRAINED = ("wordpiece", "bytes")
"""Tokenizers that are trained on the training text."""


@dataclass(frozen=True)
class DataSpec:
    """Where the data are and what becomes of them; `zoo.data.load` reads it.

    Attributes:
      task: "classify" (images, texts or pairs of texts with a class each) or "mlm" (text alone, to
        predict masked tokens).
      source: "digits" or "topics" (in every installation), a local file or folder, or the name of a
        data set on the Hugging Face Hub. Files: .csv, .tsv, .jsonl, .parquet, .txt, and .gz of
        these. Folders: such files, idx files as of MNIST, or images with a subfolder a class.
      subset: a Hub data set's configuration, such as "sst2" of "glue".
      train, validation: names of splits; in a folder also file names or patterns such as
        "train-*.parquet". validation=None: a split or file called validation, valid, val, dev or
        test, in this order; where there is none, a share of the training split is held out.
      held_out: that share. For "classify" a fixed Philox draw without replacement; for "mlm" the
        last rows.
      image_column, label_column, text_column, text_pair_column: names of columns. A table with the
        image column holds images, otherwise texts.
      classes: number of classes; None: as declared by the data, or the largest label plus 1.
      quoted: whether "..." quotes a field of a .csv or .tsv file; None: in .csv only.
      image_size: height and width that images are resized to; None: as they are, all alike.
      noise, shift, flip: augmentation of training images: standard deviation of Gaussian noise on
        the normalised values, largest move in pixels, mirroring with probability 1/2.
      mean, std: of the pixels (from 0 to 1; of "digits" from 0 to 16), one number a channel; None:
        measured on the training split. Give those of a trained model to evaluate it.
      tokenizer: "wordpiece" (lower-cased, as BERT's) or "bytes" (byte-level BPE), trained on the
        training text, or the path of a tokenizer.json.
      vocabulary: tokens of a tokenizer trained here, five special ones included.
      sequence: tokens of a sample, special ones included.
      truncate: cut longer texts; otherwise they are an error.
      mask_rate: share of the tokens to predict.

    Raises:
      ValueError: a value that makes no sense, whatever the data.
    """

    task: str = "classify"
    source: str = "digits"
    subset: str | None = None
    train: str = "train"
    validation: str | None = None
    held_out: float = 0.1
    image_column: str = "image"
    label_column: str = "label"
    text_column: str = "text"
    text_pair_column: str | None = None
    classes: int | None = None
    quoted: bool | None = None
    image_size: int | None = None
    noise: float = 0.0
    shift: int = 0
    flip: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    tokenizer: str = "wordpiece"
    vocabulary: int = 2048
    sequence: int = 64
    truncate: bool = False
    mask_rate: float = 0.15

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise unknown_name("task", self.task, TASKS)
        for name in ("source", "train", "image_column", "label_column", "text_column", "tokenizer"):
            self._need(name, bool(getattr(self, name)), "must not be empty")
        for name in ("validation", "text_pair_column", "subset"):
            self._need(name, getattr(self, name) != "", "must not be empty; use None for none")
        self._need("held_out", 0 < self.held_out < 1, "must be a share between 0 and 1")
        self._need("mask_rate", 0 < self.mask_rate < 1, "must be a share between 0 and 1")
        self._need("noise", 0 <= self.noise < math.inf, "must be finite and not negative")
        self._need("shift", self.shift >= 0, "must not be negative")
        self._need("classes", self.classes is None or self.classes >= 2, "must be at least 2")
        self._need("image_size", self.image_size is None or self.image_size >= 1,
                   "must be at least 1")  # fmt: skip
        least = {"wordpiece": 32, "bytes": 5 + 256}.get(self.tokenizer, 1)
        self._need("vocabulary", self.vocabulary >= least,
                   f"must be at least {least} for tokenizer={self.tokenizer!r}")  # fmt: skip
        least = 3 if self.text_pair_column is None else 5
        self._need("sequence", self.sequence >= least,
                   f"must be at least {least}: special tokens and one of each text")  # fmt: skip
        if self.task == "mlm":
            self._need("text_pair_column", self.text_pair_column is None,
                       "is for task='classify'; leave it out")  # fmt: skip
        self._statistics()

    def _statistics(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None:
                values = tuple(value) if isinstance(value, list | tuple) else (value,)
                self._need(name, len(values) > 0 and all(math.isfinite(v) for v in values),
                           "must be finite numbers, one a channel")  # fmt: skip
                object.__setattr__(self, name, tuple(map(float, values)))
        if (self.mean is None) != (self.std is None):
            given, absent = ("mean", "std") if self.std is None else ("std", "mean")
            self._need(given, False, f"needs {absent} too; give both or neither")
        if self.mean is not None and self.std is not None:
            self._need("std", min(self.std) > 0, "must be positive")
            self._need("std", len(self.mean) == len(self.std),
                       f"must have as many numbers as mean={self.mean}")  # fmt: skip

    def _need(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"DataSpec: {name}={getattr(self, name)!r} {what}")
