"""Classes in another order are the same classes: to start from, and to agree with."""

from dataclasses import replace

import numpy as np
import pytest

from zoo.config.presets import get_preset
from zoo.config.values import override
from zoo.data import DataSpec, load
from zoo.evaluation import agreement
from zoo.pretrained import single_file
from zoo.pretrained.load import load_pretrained
from zoo.train.start import Inputs, build_model, init_params

NAMES = [f"digit {chr(ord('a') + i)}" for i in range(10)]
ORDER = [7, 2, 9, 0, 4, 1, 3, 8, 6, 5]


def ordered(order, names=NAMES):
    """The digits' model with names for its classes, its outputs in another order."""
    loaded = load_pretrained("vit_nano_patch2_8.ann_digits")
    head = {
        name: np.stack([np.asarray(leaf)[..., i] for i in order], axis=-1)
        for name, leaf in loaded.params["head"]["classifier"].items()
    }
    params = {**loaded.params, "head": {**loaded.params["head"], "classifier": head}}
    known = {**loaded.source.preprocessing, "class_names": [names[i] for i in order]}
    return replace(loaded, params=params, source=replace(loaded.source, preprocessing=known))


def test_models_agree_on_classes_and_not_on_their_numbers():
    plain, other = ordered(range(10)), ordered(ORDER)
    scored = agreement.score(plain, DataSpec(), dense=other, samples=64)
    assert scored["agreement"] == 1
    strange = ordered(range(10), ["another", *NAMES[1:]])
    with pytest.raises(ValueError, match=r"have the classes digit a, .* so they cannot agree on"):
        agreement.score(plain, DataSpec(), dense=strange, samples=64)


def test_models_that_read_in_two_ways_cannot_agree():
    plain = ordered(range(10))
    known = {**plain.source.preprocessing, "mean": [3.0]}
    other = replace(plain, source=replace(plain.source, preprocessing=known))
    with pytest.raises(ValueError, match="have two means or deviations of their images, so"):
        agreement.score(plain, DataSpec(), dense=other, samples=64)
    plain, other = (load_pretrained(f"bert_nano.{name}_topics") for name in ("ann", "hnn"))
    text = other.tokenizer.replace('"lowercase":true', '"lowercase":false')
    assert text != other.tokenizer
    with pytest.raises(ValueError, match="have two tokenizers, so they cannot agree"):
        agreement.score(plain, plain.config.data, dense=replace(other, tokenizer=text))


def test_a_run_that_starts_from_a_classifier_takes_its_classes_by_name(tmp_path):
    other = ordered(ORDER)
    path = tmp_path / "other.safetensors"
    single_file.save(path, other.model, other.params, other.source, {}, None)
    config = override(get_preset("digits_ann"), [f"model.init_from={path}"])
    data = load(config.data)
    for names, wanted in ((NAMES, range(10)), ([*NAMES[1:], "another"], ORDER)):
        inputs = Inputs(replace(data, record={**data.record, "class_names": names}), None, {})
        params = init_params(build_model(config, inputs), config, inputs)
        head = params["head"]["classifier"]
        for name, leaf in ordered(wanted).params["head"]["classifier"].items():
            np.testing.assert_array_equal(head[name], leaf)
