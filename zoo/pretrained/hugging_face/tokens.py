"""An exported model's tokenizer, so that transformers makes of a text the ids that we do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.data.tokenizer import read_tokenizer
from zoo.utils.files import write_atomic, write_json

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"


def write(folder: Path, text: str, config: Any, preprocessing: Mapping[str, Any]) -> None:
    """Writes tokenizer.json and tokenizer_config.json.

    Without the second, transformers takes what a BERT has as a rule: it lowers every text and
    splits it into word pieces, whatever tokenizer.json says.

    Args:
      folder: of the model.
      text: of a tokenizer.json. One that puts no [CLS] and [SEP] around a text is written with
        them, which the model was trained with.
      config: a `BertConfig`.
      preprocessing: "max_tokens", if known.
    """
    vocabulary = read_tokenizer(text, "of the model")
    ids = {
        "pad_token": vocabulary.pad,
        "unk_token": vocabulary.unknown,
        "cls_token": vocabulary.start,
        "sep_token": vocabulary.separator,
        "mask_token": vocabulary.mask,
    }
    special = {name: vocabulary.tokenizer.id_to_token(i) for name, i in ids.items() if i >= 0}
    if (
        json.loads(text).get("post_processor") is None
        and {"cls_token", "sep_token"} <= special.keys()
    ):
        text = _between(text, *((special[n], ids[n]) for n in ("cls_token", "sep_token")))
    write_atomic(folder / TOKENIZER, text)
    longest = preprocessing.get("max_tokens", config.positions)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        # By default it gives no types, without which the second of two texts is read as the first.
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    write_json(folder / SETTINGS, {**settings, **special})


def _between(text: str, start: tuple[str, int], end: tuple[str, int]) -> str:
    """A tokenizer.json that puts special tokens, each (token, id), around a text or a pair."""
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_str(text)
    single = f"{start[0]}:0 $A:0 {end[0]}:0"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B:1 {end[0]}:1", special_tokens=[start, end]
    )
    return tokenizer.to_str()
