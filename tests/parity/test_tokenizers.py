"""Ids of odd texts: those of transformers' AutoTokenizer, setting by setting."""

import itertools
import json
from pathlib import Path

import odd_texts
import pytest
import transformers as hf

from zoo import Encoder, load_pretrained
from zoo.data.text import tokenised
from zoo.pretrained.hugging_face.known import locate

TESTS = Path(__file__).parents[1]
GOLDEN = json.loads((TESTS / "golden" / "tokenizers.json").read_text())["ids"]


@pytest.mark.parametrize("case", odd_texts.CASES)
def test_the_golden_ids_are_those_of_transformers(case, tmp_path):
    """By which tests/test_tokenizer_settings.py judges ours."""
    odd_texts.write(tmp_path, odd_texts.CASES[case])
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(odd_texts.TEXTS).input_ids == GOLDEN[case]


def test_texts_and_pairs_of_a_published_model():
    """All of one length limit, cut as transformers cuts by default."""
    folder, _ = locate("minilm_l6")
    theirs, encoder = hf.AutoTokenizer.from_pretrained(folder), Encoder.of(load_pretrained(folder))
    cut = {"truncation": True, "max_length": encoder.max_tokens}
    for places, batch in encoder.batches(odd_texts.TEXTS):
        for place, ids, real in zip(
            places, batch["input_ids"], batch["attention_mask"], strict=False
        ):
            assert ids[real].tolist() == theirs(odd_texts.TEXTS[place], **cut).input_ids
    texts = [text for text in odd_texts.TEXTS if theirs.tokenize(text)]
    pairs = list(itertools.pairwise(texts))
    for sequence in (8, 13, 64):
        made = tokenised(
            *map(list, zip(*pairs, strict=True)), None, None, encoder.vocabulary,
            sequence=sequence, truncate=True, place=str,
        )  # fmt: skip
        for row, pair in enumerate(pairs):
            wanted = theirs(*pair, truncation=True, max_length=sequence)
            count = made.lengths[row]
            assert made.input_ids[row, :count].tolist() == wanted.input_ids
            assert made.token_type_ids[row, :count].tolist() == wanted.token_type_ids
