"""What a folder's tokenizer_config.json makes of its tokenizer.json, against transformers' ids."""

import json
from pathlib import Path

import odd_texts
import pytest
from data_files import letters
from odd_texts import BERT, GENERIC, bert
from tokenizers import processors

from zoo.config.data import DataSpec
from zoo.data.tokenizer import read_tokenizer
from zoo.pretrained.hugging_face import tokens
from zoo.train.start import check_tokens
from zoo.utils.notes import Note

# By tests/parity/make_tokenizer_golden.py; tests/parity/test_tokenizers.py makes them again.
GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokenizers.json").read_text())["ids"]


def read(folder: Path, settings: dict | None, tokenizer=None):
    """The vocabulary of a folder, and its preprocessing."""
    odd_texts.write(folder, settings or {}, tokenizer)
    if settings is None:
        (folder / "tokenizer_config.json").unlink()
    path = folder / "tokenizer.json"
    text, found = tokens.read(path, path.read_text(encoding="utf-8"), {"model_type": "bert"})
    return read_tokenizer(text, "", bool(DataSpec().like(found).split_special_tokens)), found


@pytest.mark.parametrize("case", odd_texts.CASES)
def test_ids_are_those_of_transformers(tmp_path, case):
    vocabulary, _ = read(tmp_path, odd_texts.CASES[case])
    made = [[2, *ids, 3] for ids in vocabulary.encode(odd_texts.TEXTS)]
    assert made == GOLDEN[case]


def test_the_cases_differ():
    """Otherwise the test above would show nothing."""
    assert len(odd_texts.TEXTS) == 200
    different = {json.dumps(ids) for ids in GOLDEN.values()}
    assert len(different) == 7
    assert GOLDEN["cased"] == GOLDEN["no_class"] != GOLDEN["defaults"]


def test_a_text_that_nothing_changes_is_kept_as_it_is(tmp_path):
    vocabulary, found = read(tmp_path, BERT)
    assert vocabulary.text == bert().to_str()
    assert found == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**BERT, "do_lower_case": "no"}, "do_lower_case='no' must be true, false"),
        ({**BERT, "strip_accents": 1}, "strip_accents=1 must be true, false or null"),
        ({**BERT, "truncation_side": "left"}, "truncation_side='left' is not handled"),
        ({**BERT, "padding_side": "left"}, "padding_side='left' is not handled"),
        ({**BERT, "word_tokenizer_type": "mecab"}, "word_tokenizer_type='mecab' is not handled"),
        ({**BERT, "cls_token": "[SEP]"}, "cls_token='[SEP]' is not the token that is taken here, "),
        ({**BERT, "mask_token": "<mask>"}, "mask_token='<mask>' is not in tokenizer.json"),
        (
            {**BERT, "additional_special_tokens": ["[new]"]},
            "additional_special_tokens[0]='[new]'",
        ),
        ({**BERT, "added_tokens_decoder": {"7": {"content": "the"}}}, "added_tokens_decoder['7']="),
        (
            {"tokenizer_class": "BertJapaneseTokenizer"},
            "tokenizer_class='BertJapaneseTok",
        ),
        ({**BERT, "added_tokens_decoder": 5}, "added_tokens_decoder=5 must be an object"),
        ({**BERT, "added_tokens_decoder": {"2": None}}, "added_tokens_decoder['2']=None is not"),
        ({**BERT, "model_input_names": 5}, "model_input_names=5 must be a list"),
        ({**BERT, "split_special_tokens": "yes"}, "split_special_tokens='yes' must be true or"),
        ({"tokenizer_class": 5}, "tokenizer_class=5 must be a name"),
        ({**BERT, "cls_token": 5, "sep_token": [1]}, "cls_token=5 is not in tokenizer.json"),
        ({**BERT, "auto_map": {"AutoTokenizer": ["x.Y", None]}}, "auto_map="),
    ],
)
def test_settings_that_are_not_done_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: ") as refused:
        read(tmp_path, settings)
    assert message in str(refused.value)


def test_every_fault_is_listed(tmp_path):
    with pytest.raises(ValueError, match="one=1 is not handled; two=2 is not handled"):
        read(tmp_path, {**BERT, "one": 1, "two": 2, "three": None})


def test_a_bert_class_needs_a_tokenizer_of_a_bert(tmp_path):
    """Of which transformers would make another one."""
    made = json.loads(bert().to_str())
    for change in ({"model": {**made["model"], "max_input_chars_per_word": 50}},
                   {"normalizer": {"type": "Lowercase"}}, {"normalizer": None},
                   {"normalizer": {**made["normalizer"], "clean_text": False}},
                   {"pre_tokenizer": {"type": "WhitespaceSplit"}}):  # fmt: skip
        text = json.dumps({**made, **change})
        path = tmp_path / "tokenizer.json"
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(BERT))
        with pytest.raises(ValueError, match="by which transformers would make another tokenizer"):
            tokens.read(path, text, {})
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(GENERIC))
        assert tokens.read(path, text, {}) == (text, {})


def test_without_settings_the_tokenizer_is_taken_as_it_is_and_it_is_said(tmp_path):
    assert read(tmp_path, None)[0].text == bert().to_str()
    with pytest.warns(Note, match=r"has no tokenizer_config.json .*'lowercase': False.* Write a"):
        vocabulary, _ = read(tmp_path, None, bert(lowercase=False))
    assert vocabulary.text == bert(lowercase=False).to_str()


def test_special_tokens_that_only_the_settings_name_are_found_in_texts(tmp_path):
    made = json.loads(bert().to_str())
    bare = json.dumps({**made, "added_tokens": []})
    path = tmp_path / "tokenizer.json"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**BERT, **odd_texts.NAMED}))
    text, _ = tokens.read(path, bare, {})
    assert read_tokenizer(text, "").encode(["[SEP] [MASK]"]) == [[3, 4]]
    assert read_tokenizer(bare, "").encode(["[SEP]"]) != [[3]]


@pytest.mark.parametrize(("pair", "types"), [("[CLS] $A [SEP] [SEP] $B [SEP]", (0, 0)),
                                             ("[CLS] $A [SEP] $B [SEP]", (0, 0))])  # fmt: skip
def test_pairs_that_are_joined_otherwise_are_told(tmp_path, pair, types):
    tokenizer = bert()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    assert read(tmp_path, BERT, tokenizer)[1] == {"pairs": False}
    assert read(tmp_path, {**BERT, "model_input_names": ["input_ids"]})[1] == {"pairs": False}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B", special_tokens=[("[SEP]", 3)]
    )
    with pytest.raises(ValueError, match=r"puts no \[CLS\] and \[SEP\] around a text"):
        read(tmp_path, GENERIC, tokenizer)


def test_a_tokenizer_that_is_no_bert_loads_by_its_class(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(BERT))
    with pytest.raises(ValueError, match="transformers would make another tokenizer"):
        tokens.read(tmp_path / "tokenizer.json", letters(), {})


def test_weights_of_other_rules_than_the_data_are_told():
    """The same tokens, of which one makes lower case."""
    lower, cased = (bert(lowercase=value).to_str() for value in (True, False))
    check_tokens(lower, lower, "FOLDER")
    check_tokens(lower, json.dumps(json.loads(lower), indent=1), "FOLDER")
    with pytest.raises(ValueError, match=r"by other rules \(normalizer\), .* `snapjax convert`"):
        check_tokens(lower, cased, "FOLDER")
