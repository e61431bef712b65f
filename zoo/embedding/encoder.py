"""Texts to embeddings: tokens in, one vector a text out, by a model of task "encode"."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from zoo.data import Batch
from zoo.data.tokenizer import Vocabulary, read_tokenizer
from zoo.models.model import Model, Params
from zoo.pretrained.pretrained_model import Pretrained

SHORTEST = 16  # tokens; longer batches have twice, four times, ... as many, so programs are few
WINDOW = 32  # batches whose texts are sorted by length together


@dataclass(frozen=True, eq=False)
class Encoder:
    """A model of task "encode" with its tokenizer.

    Attributes:
      model: its boundaries included.
      params: canonical parameters.
      vocabulary: the tokenizer.
      max_tokens: to which longer texts are cut, the two special tokens included.
      batch_size: texts a batch.
    """

    model: Model
    params: Params
    vocabulary: Vocabulary
    max_tokens: int
    batch_size: int = 64

    @classmethod
    def of(cls, loaded: Pretrained, batch_size: int = 64) -> "Encoder":
        """The encoder of a pretrained model.

        Raises:
          ValueError: a model of another task, or without a tokenizer, or one that does not fit.
        """
        config = loaded.model.config
        if config.task != "encode" or not hasattr(config, "vocabulary"):
            raise ValueError(
                f"{config.name}: task={config.task!r} gives no embeddings of texts; load a BERT "
                "with task='encode'"
            )
        if loaded.tokenizer is None:
            raise ValueError(
                f"{config.name}: has no tokenizer.json; put it into the model's folder"
            )
        if not 1 <= batch_size < 10**6:
            raise ValueError(f"batch_size={batch_size} must be at least 1 and below 1000000")
        vocabulary = read_tokenizer(loaded.tokenizer, "of the model")
        vocabulary.require("[PAD]", "[CLS]", "[SEP]")
        if vocabulary.size > config.vocabulary:
            raise ValueError(
                f"{config.name}: its tokenizer has {vocabulary.size} tokens, the model "
                f"vocabulary={config.vocabulary}; they do not belong together"
            )
        longest = loaded.source.preprocessing.get("max_tokens", config.positions)
        tokens = min(longest, config.positions)
        return cls(loaded.model, loaded.params, vocabulary, tokens, batch_size)

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, Batch]]:
        """(places in `texts`, batch) in order of length; the last batch is filled up with padding.

        A batch has "input_ids" int32 and "attention_mask" bool, (batch_size, tokens), and "weight"
        float32 (batch_size,), 0 for rows that are no text.
        """
        start, end, pad = self.vocabulary.start, self.vocabulary.separator, self.vocabulary.pad
        inner = self.max_tokens - 2
        ids = [[start, *each[:inner], end] for each in self.vocabulary.encode(texts)]
        order = np.argsort([len(each) for each in ids], kind="stable")
        for first in range(0, len(ids), self.batch_size):
            places = order[first : first + self.batch_size]
            tokens = self._bucket(max(len(ids[place]) for place in places))
            token = np.full((self.batch_size, tokens), pad, np.int32)
            mask = np.zeros((self.batch_size, tokens), bool)
            for row, place in enumerate(places):
                token[row, : len(ids[place])] = ids[place]
                mask[row, : len(ids[place])] = True
            mask[len(places) :, 0] = True  # a row of padding alone has no mean
            weight = (np.arange(self.batch_size) < len(places)).astype(np.float32)
            yield places, {"input_ids": token, "attention_mask": mask, "weight": weight}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (texts, width)."""
        made = np.empty((len(texts), self.model.config.width), np.float32)
        for places, batch in self.batches(texts):
            made[places] = np.asarray(self._apply(self.params, batch))[: len(places)]
        return made

    def _bucket(self, tokens: int) -> int:
        bucket = SHORTEST
        while bucket < tokens:
            bucket *= 2
        return min(bucket, self.max_tokens)

    @cached_property
    def _apply(self) -> Any:
        return jax.jit(lambda params, batch: self.model.apply(params, batch)[0].embedding)
