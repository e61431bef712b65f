"""Masking, tokenizers and blocks against hand examples, whole-number references and counts."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from data_files import WORDS, letters
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from zoo.data import embedded, masking, text
from zoo.data.order import sample_words
from zoo.data.text import MaskedText
from zoo.data.tokenizer import (
    SPECIAL,
    load_tokenizer,
    read_tokenizer,
    train_tokenizer,
)

PAD, UNK, CLS, SEP, MASK = range(5)
LETTERS = read_tokenizer(letters(), "letters")


def place(row: int) -> str:
    return f"here: row {row}"


def ids(letters: str) -> list[int]:
    """ "ab." -> [5, 6, 3]; "^" begins, "." parts, "_" is padding."""
    return [{"^": CLS, ".": SEP, "_": PAD}.get(c, ord(c) - ord("a") + 5) for c in letters]


# --- masking


def ordinary_of(size: int) -> np.ndarray:
    return np.arange(size) >= 5


def random_samples(samples: int, sequence: int, size: int, specials: float, seed: int):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, size, (samples, sequence), np.int32)
    inner = rng.random((samples, sequence)) < specials
    tokens = np.where(inner, rng.integers(0, 4, tokens.shape, np.int32), tokens)
    tokens[:, 0], tokens[:, -1] = CLS, SEP
    return tokens


@given(sequence=st.integers(3, 50), rate=st.floats(0.01, 0.99), seed=st.integers(0, 9999),
       specials=st.sampled_from([0.0, 0.3, 0.9, 1.0]))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_the_right_number_of_ordinary_tokens_is_predicted_and_nothing_else_changes(
    sequence, rate, seed, specials
):
    tokens = random_samples(4, sequence, 30, specials, seed)
    before = tokens.copy()
    words = sample_words(seed, 1, np.arange(4), masking.words_needed(sequence, rate))
    made = masking.corrupt(tokens, words, rate, MASK, ordinary_of(30))
    np.testing.assert_array_equal(tokens, before)
    assert [part.dtype for part in made] == ["i4", "i4", "i4", "f4"]
    slots = max(1, round(rate * (sequence - 2)))
    assert made.position.shape == made.label.shape == made.weight.shape == (4, slots)
    for row in range(4):
        ordinary = int((tokens[row] >= 5).sum())
        count = max(1, round(rate * ordinary)) if ordinary else 0
        assert made.weight[row].tolist() == [1.0] * count + [0.0] * (slots - count)
        position = made.position[row, :count].tolist()
        assert position == sorted(set(position))
        assert made.label[row, :count].tolist() == tokens[row, position].tolist()
        assert all(tokens[row, p] >= 5 for p in position)
        assert not made.position[row, count:].any()
        assert not made.label[row, count:].any()
        others = np.delete(np.arange(sequence), position)
        np.testing.assert_array_equal(made.input_ids[row, others], tokens[row, others])
        assert all(t == MASK or t >= 5 for t in made.input_ids[row, position])


def masked_words(samples: int = 3000, size: int = 25, rate: float = 0.15):
    tokens = random_samples(samples, 64, size, 0.1, 3)
    words = sample_words(5, 6, np.arange(samples), masking.words_needed(64, rate))
    return tokens, words, masking.corrupt(tokens, words, rate, MASK, ordinary_of(size))


def within(count: int, total: int, share: float) -> bool:
    """Five deviations of a binomial count."""
    return abs(count - total * share) < 5 * (total * share * (1 - share)) ** 0.5


def test_eight_of_ten_are_masked_one_is_random_and_one_is_kept():
    tokens, _, made = masked_words()
    used = made.weight > 0
    now = np.take_along_axis(made.input_ids, made.position, 1)[used]
    true = made.label[used]
    total = used.sum()
    assert total > 20_000
    assert within((now == MASK).sum(), total, 0.8)
    # A random token is the true one in one of twenty cases.
    assert within((now == true).sum(), total, 0.1 + 0.1 / 20)
    random = now[(now != MASK) & (now != true)]
    assert within(len(random), total, 0.1 - 0.1 / 20)
    counts = np.bincount(random, minlength=25)
    assert not counts[:5].any()
    assert all(within(count, len(random), 1 / 20) for count in counts[5:])
    # Every ordinary place is as likely as any other.
    places = np.bincount(made.position[used], minlength=64)
    assert places[0] == places[63] == 0
    share = (tokens >= 5).sum(0)[1:-1] * (total / (tokens >= 5).sum())
    assert (np.abs(places[1:-1] - share) < 5 * share**0.5).all()


def test_the_fate_and_the_random_token_come_from_two_halves_of_a_word():
    # One ordinary token a sample, which is therefore chosen, and a word made by hand for its slot.
    tokens = np.full((1, 3), CLS, np.int32)
    tokens[0, 1] = 7
    tenth, twentieth = -(-(2**32) // 10), -(-(2**32) // 20)
    uppers = [0, tenth - 1, 8 * tenth - 8, 8 * tenth, 9 * tenth - 9, 9 * tenth, 2**32 - 1]
    lowers = [0, twentieth - 1, twentieth, 2**31, 2**32 - 1]
    for upper, lower in itertools.product(uppers, lowers):
        words = np.array([[0, 0, 0, upper << 32 | lower]], np.uint64)
        made = masking.corrupt(tokens, words, 0.5, MASK, ordinary_of(25))
        fate, other = upper * 10 >> 32, 5 + (lower * 20 >> 32)
        expected = MASK if fate < 8 else other if fate == 8 else 7
        assert made.input_ids.tolist() == [[CLS, expected, CLS]]
        assert (made.position.tolist(), made.label.tolist()) == ([[1]], [[7]])


def test_the_smallest_words_choose_the_places():
    tokens = np.array([[CLS, 5, 6, UNK, 7, 8, SEP]], np.int32)
    words = np.array([[0, 90, 20, 1, 10, 2**64 - 1, 0, *[2**64 - 1] * 3]], np.uint64)
    made = masking.corrupt(tokens, words, 0.6, MASK, ordinary_of(9))  # round(0.6 * 4) of them
    assert made.position.tolist() == [[2, 4, 0]]
    assert made.label.tolist() == [[6, 7, 0]]
    assert made.weight.tolist() == [[1, 1, 0]]
    assert made.input_ids.tolist() == tokens.tolist()  # the last fate keeps them


def test_masks_differ_by_epoch_and_are_fixed_in_evaluation():
    split = MaskedText(random_samples(50, 32, 30, 0.0, 1), 0.15, MASK, ordinary_of(30))
    every = np.arange(50)
    one, again, other = (split.augmented(every, 3, epoch) for epoch in (0, 0, 1))
    for key in one:
        np.testing.assert_array_equal(one[key], again[key])
    # 4 of 30 places: two draws agree in all 4 in one of 27,405 samples.
    assert (one["position"] != other["position"]).any(1).all()
    first, second = split.take(every), split.take(every[::-1])
    for key in first:
        np.testing.assert_array_equal(first[key], second[key][::-1])
    assert set(one) == {"input_ids", "position", "label", "weight"}
    assert (first["weight"] == 1).all()


# --- blocks, texts and pairs


def test_a_corpus_becomes_full_blocks_across_its_rows():
    made = text.blocks(["a b c", "", "d e", "f g h"], LETTERS, 5, "here")
    assert made.tolist() == [ids("^abc."), ids("^def.")]  # g and h are less than a block
    assert made.dtype == np.int32
    assert text.blocks(["a b"], LETTERS, 4, "here").tolist() == [ids("^ab.")]


def test_a_corpus_shorter_than_a_block_is_refused():
    with pytest.raises(ValueError, match=r"here: 2 tokens are less .* data.sequence=5"):
        text.blocks(["a", "b"], LETTERS, 5, "here")
    with pytest.raises(ValueError, match="here: 0 tokens"):
        text.blocks([], LETTERS, 5, "here")


@given(rows=st.lists(st.text("ab \u00e9", max_size=6000), max_size=12))
@settings(max_examples=40, deadline=None)
def test_chunks_are_the_rows_with_a_newline_after_each(rows):
    made = text.chunks(rows)
    assert "".join(made) == "".join(row + "\n" for row in rows)
    assert all(len(chunk) >= text.CHUNK for chunk in made[:-1])
    assert "" not in made


def test_words_of_joined_rows_are_those_of_single_rows():
    rows = embedded.topics()[0][:300]
    vocabulary = train_tokenizer("wordpiece", rows, 500)
    apart = [i for row in vocabulary.encode(rows) for i in row]
    assert vocabulary.encode_joined(text.chunks(rows)).tolist() == apart
    assert vocabulary.encode_joined([]).tolist() == []


def labelled(texts, pairs=None, *, sequence, truncate=False):
    labels = np.arange(len(texts), dtype=np.int32)
    return text.tokenised(texts, pairs, labels, len(texts) + 1, LETTERS, sequence=sequence,
                         truncate=truncate, place=place)  # fmt: skip


def test_single_texts():
    split = labelled(["a b", "c", "z d"], sequence=5)
    batch = split.take(np.array([1, 0, 2]))
    assert batch["input_ids"].tolist() == [ids("^c.__"), ids("^ab._"), [CLS, UNK, 8, SEP, PAD]]
    assert batch["attention_mask"].tolist() == [
        [True, True, True, False, False],
        [True, True, True, True, False],
        [True, True, True, True, False],
    ]
    assert not batch["token_type_ids"].any()
    assert batch["label"].tolist() == [1, 0, 2]
    names = ("input_ids", "attention_mask", "token_type_ids", "label", "weight")
    assert [batch[name].dtype for name in names] == ["i4", "bool", "i4", "i4", "f4"]
    again = split.augmented(np.array([1, 0, 2]), 3, 4)
    assert all((again[key] == batch[key]).all() for key in batch)


def test_pairs():
    batch = labelled(["a b", "c"], ["d", "e f g"], sequence=8).take(np.arange(2))
    assert batch["input_ids"].tolist() == [ids("^ab.d.__"), ids("^c.efg._")]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [6, 7]
    assert batch["weight"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("first", "second", "sequence", "expected"),
    [
        ("abcde", None, 5, "^abc."),
        ("abc", None, 5, "^abc."),
        ("abcdef", "gh", 7, "^ab.gh."),  # the longer one is cut until it is as long
        ("ab", "cdefgh", 7, "^ab.cd."),
        ("abcd", "efgh", 6, "^a.ef."),  # of equal lengths the second keeps the odd one
        ("abcd", "efgh", 7, "^ab.ef."),
        ("abcd", "efgh", 10, "^abc.efgh."),
        ("abcde", "fgh", 6, "^ab.f."),  # otherwise the longer one does
        ("a", "bcdefgh", 5, "^a.b."),
    ],
)
def test_truncation(first, second, sequence, expected):
    pairs = None if second is None else [" ".join(second)]
    batch = labelled([" ".join(first)], pairs, sequence=sequence, truncate=True).take(np.arange(1))
    assert batch["input_ids"].tolist() == [ids(expected)]
    assert batch["attention_mask"].all()


def test_pairs_are_cut_as_the_tokenizers_library_cuts_them():
    """Its default, and so transformers': 2,304 pairs of 1 to 16 tokens in rooms of 2 to 9."""
    library = read_tokenizer(letters(), "").tokenizer
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )  # fmt: skip
    lengths = list(itertools.product(range(1, 17), repeat=2))
    texts, pairs = ([" ".join(itertools.islice(itertools.cycle(word), each[i])) for each in lengths]
                    for i, word in enumerate(("abcd", "efgh")))  # fmt: skip
    for sequence in range(5, 13):
        library.enable_truncation(sequence, strategy="longest_first")
        batch = labelled(texts, pairs, sequence=sequence, truncate=True).take(np.arange(256))
        for row, pair in enumerate(zip(texts, pairs, strict=True)):
            wanted, real = library.encode(*pair), batch["attention_mask"][row]
            assert batch["input_ids"][row][real].tolist() == wanted.ids
            assert batch["token_type_ids"][row][real].tolist() == wanted.type_ids


@pytest.mark.parametrize(
    ("texts", "pairs", "match"),
    [
        (["a", "a b c d"], None, r"here: row 1 has 4 tokens, more than the 3 .*=5; .*truncate=tru"),
        (["a", "a b"], ["b", "c"], r"here: row 1 has 3 tokens, more than the 2 that"),
        (["a", " "], None, "here: row 1 has a text without tokens, ' '; remove it"),
        (["a", "b"], ["a", ""], "here: row 1 has a text without tokens, ''; remove it"),
    ],
)
def test_texts_that_do_not_fit_are_refused_by_their_row(texts, pairs, match):
    with pytest.raises(ValueError, match=match):
        labelled(texts, pairs, sequence=5)


# --- tokenizers

kinds = pytest.mark.parametrize("kind", ["wordpiece", "bytes"])
WILD = 'Ünï çödé, don\'t 3.14 [MASK] [SEP] "quoted" 漢字 tab\tжизнь \U0001f600\n  two\n'


def topic_texts() -> list[str]:
    return embedded.topics()[0][:400]


@kinds
def test_the_same_texts_give_the_same_tokenizer_also_in_another_process(kind):
    # The library's own WordPiece trainer does not: it numbers pieces in the order of a hash map.
    texts = [*topic_texts(), WILD]
    made = [train_tokenizer(kind, texts, 700).text for _ in range(3)]
    made.append(train_tokenizer(kind, texts[::-1], 700).text)  # counts, not places, decide
    assert len(set(made)) == 1
    code = (
        "from zoo.data import embedded; from zoo.data.tokenizer import train_tokenizer\n"
        f"texts = [*embedded.topics()[0][:400], {WILD!r}]\n"
        f"print(train_tokenizer({kind!r}, texts, 700).sha256)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == read_tokenizer(made[0], "").sha256


@kinds
def test_a_trained_tokenizer_survives_its_json(kind, tmp_path):
    texts = topic_texts()
    vocabulary = train_tokenizer(kind, texts, 700)
    assert vocabulary.size == 700
    path = tmp_path / "tokenizer.json"
    path.write_text(vocabulary.text, encoding="utf-8")
    again = load_tokenizer(path, split_special_tokens=True)
    assert again.encode([*texts, WILD]) == vocabulary.encode([*texts, WILD])
    assert (again.sha256, again.size) == (vocabulary.sha256, 700)
    for each in (vocabulary, again):
        assert (each.pad, each.unknown, each.start, each.separator, each.mask) == (0, 1, 2, 3, 4)
        np.testing.assert_array_equal(each.ordinary(), np.arange(700) >= 5)


def test_wordpiece_takes_the_longest_pieces_of_lower_case_words():
    vocabulary = train_tokenizer("wordpiece", ["low low low lower newest newest"] * 9, 64)
    table = json.loads(vocabulary.text)["model"]["vocab"]
    assert [word for word, place in sorted(table.items(), key=lambda e: e[1])[:5]] == list(SPECIAL)
    # Pieces of one character of a word's inside are numbered first, then those that begin one.
    singles = sorted("lowernst")
    assert sorted(table, key=table.get)[5:21] == ["##" + c for c in singles] + singles
    pieces = vocabulary.tokenizer.encode("LOW Löwer tern", add_special_tokens=False).tokens
    assert pieces[:2] == ["low", "lower"]
    assert "".join(piece.removeprefix("##") for piece in pieces[2:]) == "tern"
    for word in ("newest", "low", "lower"):  # all fit in
        assert word in table
    assert vocabulary.tokenizer.decode(vocabulary.encode(["Low  NEWEST"])[0]) == "low newest"


def test_wordpiece_knows_no_other_characters():
    vocabulary = train_tokenizer("wordpiece", ["abc abc"], 64)
    assert vocabulary.encode(["abz"]) == [[vocabulary.unknown]]


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_bytes_have_no_unknown_and_lose_nothing(raw):
    made = BYTES.encode([raw])[0]
    assert not set(made) & set(range(5))
    assert BYTES.tokenizer.decode(made) == raw


BYTES = train_tokenizer("bytes", ["the theme of the thesis"] * 20, 300)


@kinds
def test_no_text_can_write_a_special_token(kind):
    raw = "".join(SPECIAL) + " [MASK] [mask]"
    vocabulary = train_tokenizer(kind, [raw] * 5, 320)
    assert not set(vocabulary.encode([raw])[0]) & set(range(5))


def test_an_unknown_kind_of_tokenizer_is_not_another():
    with pytest.raises(ValueError, match="unknown tokenizer 'word'; did you mean 'wordpiece'"):
        train_tokenizer("word", ["a"], 300)


@kinds
def test_a_vocabulary_too_small_for_the_characters_is_refused(kind):
    texts = ["".join(chr(0x10D0 + i) for i in range(32))]  # Georgian letters
    if kind == "wordpiece":
        with pytest.raises(ValueError, match=r"data.vocabulary=64 is less than the 69 tokens"):
            train_tokenizer(kind, texts, 64)
    else:
        with pytest.raises(ValueError, match=r"data.vocabulary=260 is less than the 261 tokens"):
            train_tokenizer(kind, texts, 260)


def test_other_special_tokens_and_ids_without_a_token_are_not_ordinary():
    made = json.loads(letters((*WORDS, "[extra]")))
    made["model"]["vocab"]["h"] = 20  # leaves 12 without a token
    vocabulary = read_tokenizer(json.dumps(made), "made")
    assert vocabulary.size == 21
    assert np.flatnonzero(vocabulary.ordinary()).tolist() == [5, 6, 7, 8, 9, 10, 11, 20]


def test_padding_and_truncation_of_a_json_are_dropped():
    tokenizer = read_tokenizer(letters(), "").tokenizer
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    assert read_tokenizer(tokenizer.to_str(), "").encode(["a b c"]) == [ids("abc")]


def test_a_tokenizer_without_a_token_that_is_needed_is_refused():
    bare = read_tokenizer(letters(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b")), "x.json")
    with pytest.raises(ValueError, match=r"tokenizer x.json: has no \[MASK\] token; use a BERT"):
        text.blocks(["a b a b"], bare, 4, "here")
    made = text.tokenised(["a"], None, np.zeros(1, np.int32), 2, bare, sequence=4, truncate=False,
                         place=place)  # fmt: skip
    assert made.input_ids.tolist() == [[2, 4, 3, 0]]
    none = read_tokenizer(letters(("a", "[UNK]")), "y.json")
    with pytest.raises(ValueError, match=r"has no \[PAD\], \[CLS\], \[SEP\] token"):
        text.tokenised(["a"], None, np.zeros(1, np.int32), 2, none, sequence=4, truncate=False,
                      place=place)  # fmt: skip
