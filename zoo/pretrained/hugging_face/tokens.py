"""A folder's tokenizer, so that a text gets the ids here that transformers gives it.

transformers lets `tokenizer_config.json` go before `tokenizer.json`. Both become one text of a
tokenizer.json here, which is all that is kept of a tokenizer; what it cannot say is refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config.data import DataSpec
from zoo.data.tokenizer import Vocabulary, read_tokenizer
from zoo.utils.files import read_json, write_atomic, write_json
from zoo.utils.notes import note

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
OLDER = "special_tokens_map.json"  # read where the settings do not list the added tokens
# Their name of a special token -> ours, of `Vocabulary`.
SPECIAL = {
    "pad_token": "pad",
    "unk_token": "unknown",
    "cls_token": "start",
    "sep_token": "separator",
    "mask_token": "mask",
}
BERT = "BertTokenizer"
GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")  # take tokenizer.json as it is
# What a BertTokenizer makes of its settings -> the normaliser's name of each, and its default.
NORMALISER = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
# With the only values that are done here.
FIXED: Mapping[str, tuple[Any, ...]] = {
    "truncation_side": ("right",),
    "truncation_strategy": ("longest_first",),
    "padding_side": ("right",),
    "stride": (0,),
    "backend": ("tokenizers",),
    "clean_text": (True,),
    "wordpieces_prefix": ("##",),
    "add_prefix_space": (None, False),
    "add_bos_token": (None, False),
    "add_eos_token": (None, False),
    "init_inputs": ([],),
}
# They name files and the class, decode, pad what is masked, or are of tokenizers in Python, which
# transformers does not take where there is a tokenizer.json.
WITHOUT_EFFECT = frozenset(
    """
    _from_auto chat_template clean_up_tokenization_spaces do_basic_tokenize from_slow
    full_tokenizer_file is_local local_files_only max_length model_input_names model_max_length
    name_or_path never_split pad_to_multiple_of pad_token_type_id processor_class
    special_tokens_map_file split_special_tokens tokenizer_class tokenizer_file transformers_version
    use_fast verbose vocab_file
    """.split()  # noqa: SIM905
)
TYPES: Mapping[str, tuple[Any, str]] = {
    "tokenizer_class": (str, "a name"),
    "model_input_names": (list, "a list"),
    "split_special_tokens": (bool, "true or false"),
    "added_tokens_decoder": (dict, "an object"),
    "additional_special_tokens": ((list, dict), "a list"),
    "extra_special_tokens": ((list, dict), "a list"),
    "model_specific_special_tokens": (dict, "an object"),
}
ADDED = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def read(path: Path, text: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A tokenizer.json that does what the folder's files say together, and its preprocessing.

    Args:
      path: of the folder's tokenizer.json; the other files lie beside it.
      text: its content.
      config: the folder's `config.json`.

    Returns:
      The text, as it is where nothing changes it; and "split_special_tokens": true where special
      tokens in a text are not read, "pairs": false where two texts are not joined as here.

    Raises:
      ValueError: lists every setting that is not done here.
    """
    vocabulary = read_tokenizer(text, str(path))
    where, made = path.with_name(SETTINGS), json.loads(text)
    settings = _settings(where)
    if settings is None:
        _note_defaults(path, made)
        settings = {"tokenizer_class": GENERIC[0]}
    if wrong := [
        f"{name}={settings[name]!r} must be {what}"
        for name, (kind, what) in TYPES.items()
        if settings.get(name) is not None and not isinstance(settings[name], kind)
    ]:
        raise ValueError(f"{where}: " + "; ".join(wrong))
    problems = [
        f"{name}={value!r} is not handled"
        for name, value in settings.items()
        if name not in {*SPECIAL, *NORMALISER, *WITHOUT_EFFECT, *_TOKENS}
        and value not in FIXED.get(name, (None, [], {}))
    ]
    kind = settings.get("tokenizer_class") or config.get("tokenizer_class") or BERT
    kind = str(kind).removesuffix("Fast")
    if kind == BERT:
        problems += _as_bert(made, settings)
    elif kind not in GENERIC:
        problems.append(
            f"tokenizer_class={kind!r} is not handled, only {BERT} and {', '.join(GENERIC)}; name "
            "the last of them if tokenizer.json is all that counts"
        )
    problems += _add_special(made, settings, vocabulary)
    around, pairs = _joins(text, vocabulary)
    stated = made.get("post_processor") is not None
    if not around and (stated or (kind != BERT and where.exists())):
        problems.append("post_processor of tokenizer.json puts no [CLS] and [SEP] around a text")
    if problems:
        raise ValueError(f"{where}: " + "; ".join(problems))
    found: dict[str, Any] = {}
    if settings.get("split_special_tokens"):
        found["split_special_tokens"] = True
    names = settings.get("model_input_names") or ["token_type_ids"]
    if "token_type_ids" not in names or (stated and not pairs):
        found["pairs"] = False
    return (text if made == json.loads(text) else json.dumps(made, ensure_ascii=False)), found


_TOKENS = ("bos_token", "eos_token", "additional_special_tokens", "extra_special_tokens",
           "added_tokens_decoder", "model_specific_special_tokens")  # fmt: skip


def _settings(path: Path) -> dict[str, Any] | None:
    """tokenizer_config.json with what an older file beside it adds; None where there is none."""
    if not path.is_file():
        return None
    settings, older = read_json(path), path.with_name(OLDER)
    if "added_tokens_decoder" not in settings and older.is_file():
        settings = {**settings, **read_json(older)}
    return settings


def _bert_normaliser(settings: Mapping[str, Any]) -> dict[str, Any]:
    values = {ours: settings.get(name, usual) for name, (ours, usual) in NORMALISER.items()}
    return {"type": "BertNormalizer", "clean_text": True, **values}


def _is_bert(made: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is what a BertTokenizer makes, but for its normaliser's settings."""
    model, normaliser = made.get("model") or {}, made.get("normalizer") or {}
    return (
        model.get("type", "WordPiece") == "WordPiece"
        and model.get("continuing_subword_prefix", "##") == "##"
        and model.get("unk_token", "[UNK]") == "[UNK]"
        and model.get("max_input_chars_per_word", 100) == 100
        and normaliser.get("type") == "BertNormalizer"
        and normaliser.get("clean_text", True) is True
        and (made.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
    )


def _note_defaults(path: Path, made: Mapping[str, Any]) -> None:
    if _is_bert(made) and made["normalizer"] != _bert_normaliser({}):
        note(
            f"{path}: has no {SETTINGS} beside it and is taken as it is, {made['normalizer']}; "
            f"transformers would take a BERT's defaults. Write a {SETTINGS} with do_lower_case, "
            "strip_accents and tokenize_chinese_chars"
        )


def _as_bert(made: dict[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Gives a tokenizer.json the normaliser that a BertTokenizer has; what is wrong with it."""
    wrong = [
        f"{name}={settings[name]!r} must be true, false{' or null' if usual is None else ''}"
        for name, (_, usual) in NORMALISER.items()
        if name in settings and not isinstance(settings[name], bool) and settings[name] is not usual
    ]
    if not _is_bert(made):
        wrong.append(
            f"tokenizer_class={BERT!r}, by which transformers would make another tokenizer than "
            f"tokenizer.json describes; name {GENERIC[0]}Fast if tokenizer.json is right"
        )
    made["normalizer"] = _bert_normaliser(settings)
    return wrong


def _add_special(
    made: dict[str, Any], settings: Mapping[str, Any], vocabulary: Vocabulary
) -> list[str]:
    """Has a tokenizer.json find the special tokens that its settings name; what is wrong."""
    listed: dict[str, Any] = {name: settings.get(name) for name in (*SPECIAL, *_TOKENS[:2])}
    for group in (*_TOKENS[2:4], _TOKENS[5]):
        more = settings.get(group) or []
        entries = more.items() if isinstance(more, dict) else enumerate(more)
        listed |= {f"{group}[{key!r}]": value for key, value in entries}
    known, added = vocabulary.tokenizer.get_vocab(), made.setdefault("added_tokens", [])
    there = {token["content"]: token for token in added}
    problems = []
    for name, value in listed.items():
        content = value.get("content") if isinstance(value, dict) else value
        if content is None:
            continue
        if not isinstance(content, str):
            problems.append(f"{name}={content!r} is not in {TOKENIZER}")
            continue
        ours = getattr(vocabulary, SPECIAL[name]) if name in SPECIAL else None
        if content not in known:
            problems.append(f"{name}={content!r} is not in {TOKENIZER}")
        elif ours is not None and known[content] != ours:
            ours_is = vocabulary.tokenizer.id_to_token(ours) if ours >= 0 else None
            problems.append(f"{name}={content!r} is not the token that is taken here, {ours_is!r}")
        elif content not in there:
            there[content] = {"id": known[content], **dict.fromkeys(ADDED, False)}
            there[content] |= {"content": content, "special": True}
            added.append(there[content])
    added.sort(key=lambda token: token["id"])
    decoder = settings.get("added_tokens_decoder")
    if decoder is not None:
        flags = lambda token: (
            {name: token.get(name, False) for name in ADDED} if isinstance(token, dict) else token
        )
        ours_added = {str(token["id"]): flags(token) for token in added}
        theirs = {str(key): flags(token) for key, token in decoder.items()}
        problems += [
            f"added_tokens_decoder[{key!r}]={theirs.get(key)} is not that of {TOKENIZER}"
            for key in sorted(ours_added.keys() | theirs.keys())
            if ours_added.get(key) != theirs.get(key)
        ]
    return problems


def _joins(text: str, vocabulary: Vocabulary) -> tuple[bool, bool]:
    """Whether a tokenizer.json puts special tokens around a text, and joins a pair, as here."""
    from tokenizers import Tokenizer

    made, start, end = Tokenizer.from_str(text), vocabulary.start, vocabulary.separator
    made.no_padding()
    one, two = made.encode(""), made.encode("", "")
    return one.ids == [start, end], (two.ids, two.type_ids) == ([start, end, end], [0, 0, 1])


def longest(path: Path, positions: int) -> tuple[str, Any]:
    """What limits a text's tokens, and to how many; None where nothing does.

    Args:
      path: of the folder's tokenizer_config.json.
      positions: longest sequence of the model.
    """
    where = f"{path}: model_max_length"
    limit = read_json(path).get("model_max_length") if path.is_file() else None
    # transformers writes 1e30 where there is no limit.
    return where, None if isinstance(limit, int | float) and limit >= positions else limit


def check_limit(where: str, limit: Any) -> int:
    """Raises ValueError for a limit that is none."""
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 3:
        raise ValueError(
            f"{where}={limit!r} must be a whole number of at least 3 tokens, two of which are "
            "special"
        )
    return limit


def write(folder: Path, text: str, config: Any, preprocessing: Mapping[str, Any]) -> None:
    """Writes tokenizer.json and tokenizer_config.json.

    Without the second, transformers takes what a BERT has as a rule: it lowers every text and
    splits it into word pieces, whatever tokenizer.json says.

    Args:
      folder: of the model.
      text: of a tokenizer.json. One that puts no [CLS] and [SEP] around a text is written with
        them, which the model was trained with.
      config: a `BertConfig`.
      preprocessing: "max_tokens" and "split_special_tokens", if known.
    """
    vocabulary = read_tokenizer(text, "of the model")
    ids = {name: getattr(vocabulary, ours) for name, ours in SPECIAL.items()}
    special = {name: vocabulary.tokenizer.id_to_token(i) for name, i in ids.items() if i >= 0}
    if (
        json.loads(text).get("post_processor") is None
        and {"cls_token", "sep_token"} <= special.keys()
    ):
        text = _between(text, *((special[n], ids[n]) for n in ("cls_token", "sep_token")))
    write_atomic(folder / TOKENIZER, text)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": preprocessing.get("max_tokens", config.positions),
        # By default it gives no types, without which the second of two texts is read as the first.
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    if DataSpec().like(preprocessing).split_special_tokens:
        settings["split_special_tokens"] = True
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
