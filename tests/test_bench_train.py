"""The bench of the trainer: turns, ratios, waiting, sizes of the rivals, and the whole command."""

import importlib.util
import json
import time

import jax
import numpy as np
import pytest

from scripts import bench_train
from zoo.bench import inputs, peers, report, rounds
from zoo.bench.ours import parameter_count
from zoo.models.registry import create_model

TORCH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
NANO = ("vit_nano_patch2_8", "bert_nano")


@pytest.fixture
def optax_types():
    """Optax mixes integers and floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def block_size(width, mlp_width):
    attention = 4 * (width * width + width)
    mlp = width * mlp_width + mlp_width + mlp_width * width + width
    return attention + mlp + 2 * 2 * width


def hand_count(config):
    """Parameters of our model, written down from the architecture."""
    width = config.width
    blocks = config.layers * block_size(width, config.mlp_width)
    if hasattr(config, "image_size"):
        patch = config.patch_size**2 * config.channels * width + width
        position = (config.image_size // config.patch_size) ** 2 * width
        return patch + position + blocks + 2 * width + width * config.classes + config.classes
    tables = (config.vocabulary + config.positions + config.types) * width + 2 * width
    transform = width * width + width + 2 * width
    return tables + blocks + transform + width * config.vocabulary + config.vocabulary


def test_every_run_takes_its_turn_and_the_second_step_is_timed():
    now, visited, steps = [0.0], [], {"a": [5.0, 1.0] * 3, "b": [7.0, 2.0, 7.0, 2.0, 7.0, 4.0]}

    def run(name):
        visited.append(name)
        now[0] += steps[name].pop(0)

    seconds = rounds.time_in_turn(
        {"a": lambda: run("a"), "b": lambda: run("b")}, repeats=2, clock=lambda: now[0]
    )
    # The first visit of each is a warm-up; then rounds begin with "a" and with "b".
    assert "".join(visited[4:]) == "aabb" + "bbaa"
    assert seconds == {"a": [1.0, 1.0], "b": [2.0, 4.0]}
    assert rounds.median_ratio(seconds, "b", "a") == 3.0
    with pytest.raises(ValueError, match="repeats=0 must be at least 1"):
        rounds.time_in_turn({}, 0)


class Sleeper:
    """A split and a trainer that take a stated time."""

    samples = 64

    def __init__(self, making, step):
        self.making, self.seconds = making, step

    def augmented(self, index, seed, epoch):
        time.sleep(self.making)
        return {"weight": np.ones(len(index), np.float32)}

    def put(self, batch):
        return batch

    def step(self, batch):
        time.sleep(self.seconds)


def test_waiting_is_told_from_working():
    starved = inputs.waiting(Sleeper(0.02, 0), Sleeper(0.02, 0), 32, steps=5)
    assert starved.waiting > 0.9
    assert starved.step > 0.019
    assert starved.making >= 0.02
    sated = inputs.waiting(Sleeper(0, 0.02), Sleeper(0, 0.02), 32, steps=5)
    assert sated.waiting < 0.5
    assert sated.step >= 0.02


@pytest.mark.parametrize("name", [*NANO, "vit_tiny_patch4_28", "bert_micro"])
def test_sizes_are_those_of_the_rivals(name):
    model = create_model(name, "hnn", 4)
    ours = hand_count(model.config)
    assert parameter_count(model) == ours
    if TORCH:
        theirs = sum(p.numel() for p in peers.make(model.config).parameters())
        # A ViT of Hugging Face's has a class token and its position.
        more = 2 * model.config.width if hasattr(model.config, "image_size") else 0
        assert theirs == ours + more
    else:
        assert not peers.installed()


def test_inputs_that_do_not_fit_are_refused():
    config = create_model("vit_tiny_patch4_28").config
    with pytest.raises(ValueError, match=r"'digits' has images of shape \(8, 8, 1\), but vit_tiny"):
        inputs.split_for(config, images="digits")
    split, source = inputs.split_for(config)
    assert source == "random images"
    assert next(inputs.batches(split, 8))["image"].shape == (8, 28, 28, 1)


def test_both_losses_of_the_masked_model_are_one():
    if not TORCH:
        assert "requirements-torch.txt" in peers.MISSING
        return
    config = create_model("bert_nano", positions=16, vocabulary=50).config
    rng = np.random.default_rng(0)
    # Three slots a sample; the second sample uses two, and its third points to 0.
    batch = {
        "input_ids": rng.integers(5, 50, (2, 16)).astype(np.int32),
        "position": np.array([[1, 5, 9], [3, 4, 0]], np.int32),
        "label": np.array([[7, 8, 9], [10, 11, 0]], np.int32),
        "weight": np.array([[1, 1, 1], [1, 1, 0]], np.float32),
    }
    every, masked = (peers.Peer(config, batch, masked) for masked in (False, True))
    logits = every.model(input_ids=every.inputs["input_ids"]).logits.detach().numpy()
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    used = [(0, 1, 7), (0, 5, 8), (0, 9, 9), (1, 3, 10), (1, 4, 11)]
    expected = -np.mean([log_softmax[place] for place in used])
    assert every.loss().item() == pytest.approx(expected, rel=1e-5)
    assert masked.loss().item() == pytest.approx(expected, rel=1e-5)
    before = masked.loss().item()
    for _ in range(20):
        masked.train()
    assert masked.loss().item() < before


@pytest.mark.slow  # times training of two models
@pytest.mark.usefixtures("optax_types")
def test_the_command_without_torch(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda: False)
    out = tmp_path / "bench.json"
    small = ["--batch-size", "8", "--repeats", "2", "--json", str(out)]
    assert bench_train.main(["--models", "vit_nano_patch2_8", *small]) == 0
    printed = capsys.readouterr().out
    assert "requirements-torch.txt" in printed
    record = json.loads(out.read_text())
    assert record["torch"] is None
    rows = {(row["pass"], row["run"]): row for row in record["rows"]}
    assert list(rows) == [
        ("train", "ANN"), ("train", "HNN"), ("forward", "ANN"), ("forward", "HNN"),
        ("train", "ANN, fed"),
    ]  # fmt: skip
    for row in rows.values():
        assert row["samples_per_second"] == pytest.approx(8 / row["seconds"])
        assert row["tokens_per_second"] == pytest.approx(16 * row["samples_per_second"])
    hnn = rows["train", "HNN"]
    assert hnn["boundary_share"] == pytest.approx(1 - 1 / hnn["time_over_ann"])
    assert rows["train", "ANN, fed"]["data"] == "digits"
    assert 0 <= rows["train", "ANN, fed"]["waiting_share"] <= 1


@pytest.mark.usefixtures("optax_types")
def test_torch_has_its_rows_if_it_is_there(monkeypatch):
    monkeypatch.setattr(report, "VARIANTS", {"ANN": "ann"})  # half the compilation
    name, calls = "vit_nano_patch2_8", []
    record = report.bench([name], batch_size=8, repeats=2, done=lambda: calls.append(None))
    assert len(calls) == report.visits([name], 2, with_torch=True)
    rows = {row["run"]: row for row in record["rows"] if row["pass"] == "forward"}
    if TORCH:
        assert list(rows) == ["ANN", "PyTorch"]
        assert rows["PyTorch"]["parameters"] == rows["ANN"]["parameters"] + 2 * 64
        assert any("class token beside" in note for note in record["notes"])
        bert = create_model("bert_nano").config
        assert list(peers.labels(bert)) == ["PyTorch, all logits", "PyTorch, masked logits"]
    else:
        assert list(rows) == ["ANN"]
        assert peers.MISSING in record["notes"]


def test_an_unknown_model_is_named(capsys):
    assert bench_train.main(["--models", "vit_nan", "--repeats", "1"]) == 2
    assert "vit_nano_patch2_8" in capsys.readouterr().err
