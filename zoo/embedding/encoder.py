"""Texts to embeddings: tokens in, one vector a text out, by a model of task "encode"."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from snapjax.errors import check_types, unknown_name
from zoo.config.data import DataSpec
from zoo.data import Batch
from zoo.data.tokenizer import Vocabulary, checked_texts, read_tokenizer
from zoo.models.finite import check_finite
from zoo.models.model import Model, Params
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.source import ASSUMED
from zoo.utils.notes import note
from zoo.utils.progress import Begin, silent

SHORTEST = 16  # tokens; longer batches have twice, four times, ... as many, so programs are few
WINDOW = 32  # batches whose texts are sorted by length together


@dataclass(frozen=True, eq=False, repr=False)
class Encoder:
    """A model of task "encode" with its tokenizer.

    Attributes:
      model: its boundaries included.
      params: canonical parameters.
      vocabulary: the tokenizer.
      max_tokens: to which longer texts are cut, the two special tokens included.
      batch_size: texts a batch.
      prompt: put before every text.
    """

    model: Model
    params: Params
    vocabulary: Vocabulary
    max_tokens: int
    batch_size: int = 64
    prompt: str = ""

    def __repr__(self) -> str:
        return f"Encoder({self.model}, max_tokens={self.max_tokens}, batch_size={self.batch_size})"

    @classmethod
    def of(
        cls,
        loaded: Pretrained,
        batch_size: int = 64,
        *,
        prompt: str | None = None,
        split_special_tokens: bool | None = None,
    ) -> "Encoder":
        """The encoder of a pretrained model.

        Args:
          loaded: the model.
          batch_size: texts a batch.
          prompt: name of one of the model's prompts, `loaded.source.preprocessing["prompts"]`, such
            as "query"; None for no prompt, which is what sentence-transformers' `encode` does.
          split_special_tokens: see `DataSpec`; None as the model does.

        Raises:
          ValueError: a model of another task, or without a tokenizer, or one that does not fit;
            or an unknown prompt.
        """
        check_types("Encoder.of", {"loaded": (loaded, Pretrained)})
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
        if type(batch_size) is not int or not 1 <= batch_size < 10**6:
            raise ValueError(f"batch_size={batch_size!r} must be a whole number from 1 to 999999")
        given = loaded.source.preprocessing
        spec = DataSpec(split_special_tokens=split_special_tokens).like(given)
        vocabulary = read_tokenizer(
            loaded.tokenizer, "of the model", bool(spec.split_special_tokens)
        )
        vocabulary.require("[PAD]", "[CLS]", "[SEP]")
        if vocabulary.size > config.vocabulary:
            raise ValueError(
                f"{config.name}: its tokenizer has {vocabulary.size} tokens, the model "
                f"vocabulary={config.vocabulary}; they do not belong together"
            )
        if given.get("pooling") == ASSUMED:
            note(
                f"{loaded.source.source}: has no modules.json, which would say how the states of "
                "the tokens become one embedding, so their mean is taken. Of a model made for "
                "the first token (CLS), load it with pooling='first'; on the command line `snapjax "
                "convert FOLDER NEW.safetensors --pooling first` writes a file that says so"
            )
        tokens = min(given.get("max_tokens", config.positions), config.positions)
        before = _prompt(config.name, given, prompt)
        return cls(loaded.model, loaded.params, vocabulary, tokens, batch_size, before)

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, Batch]]:
        """(places in `texts`, batch) in order of length; the last batch is filled up with padding.

        A batch has "input_ids" int32 and "attention_mask" bool, (batch_size, tokens), and "weight"
        float32 (batch_size,), 0 for rows that are no text.
        """
        start, end, pad = self.vocabulary.start, self.vocabulary.separator, self.vocabulary.pad
        inner = self.max_tokens - 2
        prompted = [self.prompt + text for text in checked_texts(texts)]
        ids = [[start, *each[:inner], end] for each in self.vocabulary.encode(prompted)]
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

    def embed(self, texts: Sequence[str], progress: Begin = silent) -> np.ndarray:
        """float32 (texts, width).

        Args:
          texts: to embed.
          progress: told how many are embedded.

        Raises:
          ValueError: something else than texts, by its place.
          FloatingPointError: a boundary or an embedding met NaN or infinity.
        """
        texts = checked_texts(texts)
        made, count = np.empty((len(texts), self.model.config.width), np.float32), 0
        done = progress("texts embedded", len(texts))
        for places, batch in self.batches(texts):
            embedding, finite = jax.device_get(self._apply(self.params, batch))
            check_finite(self.model.config.name, finite, embedding)
            made[places] = embedding[: len(places)]
            count += len(places)
            done(count)
        return made

    def _bucket(self, tokens: int) -> int:
        bucket = SHORTEST
        while bucket < tokens:
            bucket *= 2
        return min(bucket, self.max_tokens)

    @cached_property
    def _apply(self) -> Any:
        def embed(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
            encoded, result = self.model.apply(params, batch)
            return encoded.embedding, result.stats.finite

        return jax.jit(embed)


def _prompt(model: str, preprocessing: Mapping[str, Any], name: str | None) -> str:
    if name is None:
        return ""
    known = preprocessing.get("prompts", {})
    if not known:
        raise ValueError(f"prompt={name!r}: {model} names no prompts; leave it out")
    if name not in known:
        raise unknown_name(f"prompt of {model}", name, known)
    if not preprocessing.get("include_prompt", True):
        raise ValueError(
            f"prompt={name!r}: {model} leaves its prompts' tokens out of the mean "
            "(include_prompt=false), which is not done here; embed without a prompt"
        )
    return known[name]
