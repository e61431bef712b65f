"""What data a run uses and how they are prepared: a frozen, JSON-able description."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snapjax.errors import unknown_name
from zoo.config.fields import normalise
from zoo.utils.paths import there

TASKS = ("classify", "mlm", "unlabelled")
EMBEDDED = {"digits": "classify", "topics": "mlm"}
"""Name -> task of the data that need no file."""
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")

TOKENIZERS = {"wordpiece": 64, "bytes": 300}
"""Tokenizers that are trained on the training text -> the smallest vocabulary that makes sense."""

LARGEST = {"vocabulary": 10**7, "sequence": 10**6, "classes": 10**7}
"""Of sizes that memory is taken for before the data are looked at."""

RESAMPLES = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""Ways of resizing -> Pillow's number for each, which transformers uses too."""


@dataclass(frozen=True)
class DataSpec:
    """Where the data are and what becomes of them; `zoo.data.load` reads it.

    Attributes:
      task: "classify" (images, texts or pairs of texts with a class each), "mlm" (text alone, to
        predict masked tokens) or "unlabelled" (images or texts, whatever their labels, for a
        teacher to label; see `zoo.train.distillation`).
      source: "digits" or "topics" (in every installation), a local file or folder, or the name of a
        data set on the Hugging Face Hub. Files: .csv, .tsv, .parquet, .jsonl, .txt, and .gz of the
        text ones. Folders: such files, idx files as of MNIST, pictures with a subfolder a class, or
        what `datasets` saved.
      subset: of a data set on the Hub that has several, such as "mrpc" of "nyu-mll/glue".
      train, validation: names of splits; in a folder of files also file names or patterns such as
        "train-*.parquet". validation=None: a split called validation, valid, val, dev, test or
        t10k, in this order; where there is none, a share of the training split is held out.
      held_out: that share. For "classify" a fixed draw; for "mlm" the last rows.
      image_column, label_column, text_column, text_pair_column: names of columns. A table with the
        image column holds images, otherwise texts.
      pairs: of "unlabelled" texts in two columns, keep the two of a row side by side, in one batch,
        as distill.similarity needs them; otherwise every different text comes once. Each text is a
        sample either way, so that a batch of 64 holds 32 pairs, and one in several pairs comes
        several times. Of those held out, pairs that share a text with the rest are dropped.
      classes: number of classes; None: as the data state, or the largest label plus 1.
      image_size: height and width that images are resized to; None: as they are, all alike.
      pictures_anywhere: whether a table may name pictures outside of its own folder, by absolute
        paths or with "..": only where you trust it.
      resample: how they are resized, one of `RESAMPLES`.
      resize: resize to this first and cut image_size out of the middle; None: no cutting.
      mean, std: of the pixels in units of the largest value, one number a channel; None: measured
        on the training split. Give those of a trained model to evaluate it.
      shift, flip, noise: augmentation of training images: largest move in pixels, mirroring with
        probability 1/2, standard deviation of Gaussian noise on the normalised values.
      tokenizer: "wordpiece" (lower-cased, as BERT's) or "bytes" (byte-level BPE), trained on the
        training text, or the path of a tokenizer.json.
      vocabulary: tokens of a tokenizer trained here, five special ones included.
      sequence: tokens of a sample, special ones included.
      mask_rate: share of the tokens to predict.
      truncate: true cuts longer texts, false makes them an error, none cuts them and notes how
        many. Of a pair the longer text is cut first, as transformers does.
      split_special_tokens: read what spells a special token in a text, such as "[SEP]", as words,
        not as the token; none: as the tokenizer's model does, and otherwise as transformers does,
        which reads the token. No text spells one of a tokenizer trained here.
      tsv_quotes: fields of .tsv files are in quotes where they need them, as pandas writes them;
        otherwise a quote is a character like any other, as in GLUE's files.

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
    pairs: bool = False
    classes: int | None = None
    image_size: int | None = None
    pictures_anywhere: bool = False
    resample: str = "bicubic"
    resize: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    shift: int = 0
    flip: bool = False
    noise: float = 0.0
    tokenizer: str = "wordpiece"
    vocabulary: int = 2048
    sequence: int = 64
    mask_rate: float = 0.15
    truncate: bool | None = None
    split_special_tokens: bool | None = None
    tsv_quotes: bool = False

    def like(self, record: Mapping[str, Any]) -> DataSpec:
        """The same with inputs prepared as a trained model expects them.

        Args:
          record: of the weights; its "mean", "std", "size", "resample", "resize" and
            "split_special_tokens" are taken where they are there.
        """
        # Records of before do not say that a tokenizer was trained here, but name its kind.
        split = record.get("split_special_tokens", record.get("tokenizer_kind") in TOKENIZERS)
        changed = {
            field: record[name]
            for field, name in (
                ("mean", "mean"),
                ("std", "std"),
                ("image_size", "size"),
                ("resample", "resample"),
                ("resize", "resize"),
            )
            if record.get(name) is not None
        }
        if self.split_special_tokens is None and split:
            changed["split_special_tokens"] = True
        return replace(self, **changed)

    @property
    def named(self) -> str:
        """The source without the folders that it lies in."""
        return Path(self.source).name if is_path(self.source) else self.source

    def without_augmentation(self) -> DataSpec:
        """The same with training images as they are."""
        return replace(self, shift=0, flip=False, noise=0.0)

    def __post_init__(self) -> None:
        normalise(self, "data")
        if self.task not in TASKS:
            raise unknown_name("data.task", self.task, TASKS)
        for name in ("source", "subset", "train", "validation", "image_column", "label_column",
                     "text_column", "text_pair_column", "tokenizer"):  # fmt: skip
            if getattr(self, name) == "":
                raise ValueError(f"data.{name}='' is empty; give a name")
        for name in ("held_out", "mask_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"data.{name}={getattr(self, name)} must be in (0, 1)")
        least = {
            "classes": 2,
            "image_size": 1,
            "vocabulary": TOKENIZERS.get(self.tokenizer, 1),
            "sequence": 4,
            "shift": 0,
            "noise": 0,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not bound <= value <= LARGEST.get(name, value):
                most = f" and at most {LARGEST[name]:,}" if name in LARGEST else ""
                raise ValueError(f"data.{name}={value} must be at least {bound}{most}")
        if self.resample not in RESAMPLES:
            raise unknown_name("data.resample", self.resample, RESAMPLES)
        if self.resize is not None and not (self.image_size or math.inf) <= self.resize:
            raise ValueError(
                f"data.resize={self.resize} must be at least data.image_size={self.image_size}, "
                "which is cut out of it; give both"
            )
        if self.pairs and (self.task != "unlabelled" or self.text_pair_column is None):
            raise ValueError(
                f"data.pairs=True keeps unlabelled texts of two columns together, but data.task="
                f"{self.task!r} and data.text_pair_column={self.text_pair_column!r}; set "
                "data.task='unlabelled' and name the second column, or leave it out"
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                f"data.mean={self.mean} and data.std={self.std} go together; give both or neither"
            )


def is_path(source: str) -> bool:
    """Whether a source is a path, and not the name of embedded data or of a data set on the Hub."""
    if source in EMBEDDED:
        return False
    return not HUB_NAME.fullmatch(source) or there(source)


def source_and_column(source: str) -> tuple[str, str | None]:
    """A source as a user gives it, parted from the column of its texts: "FILE:COLUMN". Either may
    have colons in its name: the longest name that is there is the file's."""
    if there(source):
        return source, None
    parts = source.split(":")
    pairs = [(":".join(parts[:i]), ":".join(parts[i:])) for i in range(len(parts) - 1, 0, -1)]
    pairs = [(name, column) for name, column in pairs if name and column]
    found = [pair for pair in pairs if there(pair[0])]
    return next(iter(found or pairs), (source, None))
