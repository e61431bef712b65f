"""Training steps: the same on any mesh, deterministic, and nothing moves after a bad one."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import collectives

from snapjax.codes.parameters import merge_plan, split_plan
from snapjax.parallel.sharding import make_mesh
from zoo.config.specs import TrainSpec
from zoo.data import DataSpec, load, train_batches
from zoo.models.registry import create_model
from zoo.train.diagnose import explain
from zoo.train.placement import batch_putter, gather
from zoo.train.step import Trainer, evaluate

DATA = load(DataSpec(task="classify", source="digits", noise=0.2, shift=1))
SPEC = TrainSpec(epochs=1, batch_size=24, microbatches=3)


@pytest.fixture(autouse=True)
def _optax_promotes():
    """optax raises its decay rates to an integer count, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@cache
def trainer(variant="ann", mesh=None, spec=SPEC, fsdp=False, **overrides):
    """One of each kind for all tests, so that its step is compiled once."""
    model = create_model("vit_nano_patch2_8", variant, **overrides)
    return Trainer(model, spec, 59, mesh or make_mesh(), fsdp)


def batches(spec=SPEC):
    return train_batches(DATA.train, spec.batch_size, seed=spec.seed, epoch=0)


@cache
def params_of(model):
    return jax.jit(model.init)(jax.random.key(0))


def run(trainer, steps):
    """The state after some steps, and each step's metrics on the host."""
    state = trainer.init_state(params_of(trainer.model))
    put, seen = batch_putter(trainer.mesh, trainer.spec.batch_size), []
    for batch, _ in zip(batches(trainer.spec), range(steps), strict=False):
        state, metrics = trainer.step(state, put(batch))
        seen.append(jax.tree.map(np.asarray, metrics))
    return state, seen


@pytest.fixture(scope="module")
def alone():
    """Three steps on one device: the trainer, the state after them, and their metrics."""
    one = trainer(spec=replace(SPEC, microbatches=1))
    with jax.numpy_dtype_promotion("standard"):
        return one, *run(one, 3)


@pytest.mark.parametrize(("data", "ranks"), [(2, 4), (2, 2), (1, 1)])
def test_three_steps_are_the_same_on_any_mesh(data, ranks, alone):
    # Float32 wires, because a spike in a million falls elsewhere when sums are rounded otherwise.
    one_device, reference, expected = alone
    one = trainer(mesh=make_mesh(data, ranks))
    state, metrics = run(one, 3)
    for got, want in zip(metrics, expected, strict=True):
        assert got.loss == pytest.approx(want.loss, rel=1e-5)
        assert got.gradient_norm == pytest.approx(want.gradient_norm, rel=1e-4)
    # Adam divides a gradient by its own size, so rounding in a zero gradient (that of a key bias)
    # is as large as any other update: compare the weights that have a gradient.
    for name in ("query", "value", "out"):
        np.testing.assert_allclose(
            one.params(state)["blocks"]["attention"][name]["kernel"],
            one_device.params(reference)["blocks"]["attention"][name]["kernel"],
            atol=2e-5,
        )


def test_the_step_is_compiled_once_and_sends_what_the_wire_predicts():
    one = trainer("hnn", make_mesh(2, 4))
    state, _ = run(one, 3)
    assert one._update._cache_size() == 1
    batch = batch_putter(one.mesh, 24)(next(batches()))
    text = one._update.lower(state, batch).compile().as_text()
    stage = {device: device % 4 for device in range(8)}
    crossing = [c for c in collectives(text, 8) if c.crosses(stage) and not c.scalar]
    arrays = sorted((*array, c.pairs[0]) for c in crossing for array in c.arrays)
    tokens = 24 // 3 // 2  # images a message, 16 tokens each
    assert arrays == [
        ("f32", (tokens, 16, 64), (1, 0)),  # the gradient wire
        ("u8", (tokens, 16, 8), (0, 1)),
    ]


def test_gathering_of_several_processes_is_compiled_once(caplog):
    """They gather the metrics of every step."""
    mesh = make_mesh(2, 2)
    with jax.log_compiles():
        for value in range(3):
            tree = {"loss": jnp.full((2,), value, jnp.float32)}
            gathered = gather(tree, mesh)["loss"]
            np.testing.assert_array_equal(gathered, tree["loss"])
            assert gathered.sharding.is_fully_replicated
            assert len(gathered.sharding.device_set) == 4
    assert sum("Compiling jit(<lambda>)" in line for line in caplog.messages) == 1, caplog.text


def test_fully_sharded_parameters_give_the_same_steps(alone):
    state, metrics = run(trainer(mesh=make_mesh(2, 2), fsdp=True), 3)
    for got, want in zip(metrics, alone[-1], strict=True):
        assert got.loss == pytest.approx(want.loss, rel=1e-5)
    kernel = state.trainable["blocks"]["mlp"]["up"]["kernel"]
    moment = next(
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.optimiser)
        if jax.tree_util.keystr(path).endswith("['mlp']['up']['kernel']")
    )
    for array in (kernel, moment):
        assert array.addressable_shards[0].data.size == array.size // 4  # 2 ranks x 2 in data


def test_a_parameter_that_does_not_split_is_named():
    one = Trainer(create_model("vit_nano_patch2_8"), replace(SPEC, batch_size=27), 59,
                  make_mesh(3, 1), fsdp=True)  # fmt: skip
    with pytest.raises(ValueError, match=r"kernel' of shape .* not a multiple of mesh.data=3"):
        one.init_state(params_of(one.model))


def test_a_batch_that_does_not_split_is_refused_at_once():
    with pytest.raises(ValueError, match="batch_size=24 must be a multiple of 5"):
        trainer(mesh=make_mesh(1, 4), spec=replace(SPEC, microbatches=5))


def spiking():
    """Spikes over three boundaries, and dropout."""
    return trainer("hnn", make_mesh(1, 4), dropout=0.1)


def test_a_run_repeats_bit_for_bit():
    (first, a), (second, b) = (run(spiking(), 3) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, (first.trainable, a), (second.trainable, b))


def test_only_kernels_decay():
    spec = TrainSpec(epochs=1, weight_decay=0.5, learning_rate=1.0, warmup=0.0)
    one = Trainer(create_model("vit_nano_patch2_8", "hnn"), spec, 10, make_mesh())
    trainable, plans = split_plan(params_of(one.model))
    state = one.init_state(merge_plan(jax.tree.map(np.ones_like, trainable), plans))
    nothing = jax.tree.map(np.zeros_like, state.trainable)
    updates, _ = jax.jit(one.optimiser.update)(nothing, state.optimiser, state.trainable)
    names = lambda tree, holds: {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if holds(jax.tree_util.keystr(path), leaf)
    }
    moved = names(optax.tree.scale(1.0, updates), lambda _, leaf: np.any(leaf))
    assert moved == names(state.trainable, lambda name, _: "kernel" in name)
    assert len(moved) == 8


def test_the_moving_average_follows_its_recursion():
    one = trainer(spec=replace(SPEC, ema=0.5))
    state = one.init_state(params_of(one.model))
    put = batch_putter(one.mesh, 24)
    average = np.asarray(one.params(state)["head"]["norm"]["scale"])
    for count, (batch, _) in enumerate(zip(batches(), range(3), strict=False)):
        state, _ = one.step(state, put(batch))
        new = np.asarray(one.params(state)["head"]["norm"]["scale"])
        decay = min(0.5, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * new
        kept = one.params(state, averaged=True)["head"]["norm"]["scale"]
        np.testing.assert_allclose(kept, average, rtol=1e-6)
    assert np.abs(average - new).max() > 1e-5


@pytest.mark.slow  # trains twice, to a loss
def test_bfloat16_compute_keeps_float32_weights_and_comes_close(alone):
    exact, (state, rounded) = alone[-1], run(trainer(precision="bfloat16"), 3)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.trainable)} == {jnp.dtype("float32")}
    # Eight bits of mantissa, a few dozen roundings deep.
    assert rounded[-1].loss == pytest.approx(exact[-1].loss, rel=0.02)
    assert rounded[-1].loss != exact[-1].loss


def test_evaluation_counts_every_sample_once_on_any_mesh():
    one = trainer(spec=replace(SPEC, batch_size=48), mesh=make_mesh(2, 4))
    params = params_of(one.model)
    scores = evaluate(one, one.init_state(params), DATA.validation)
    batch = DATA.validation.take(np.arange(DATA.validation.samples))
    logits, _ = jax.jit(one.model.apply)(params, {"image": jnp.asarray(batch["image"])})
    shifted = np.asarray(logits, np.float64) - np.asarray(logits).max(-1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_softmax, batch["label"][:, None], -1)
    assert scores.samples == 360
    assert scores.loss == pytest.approx(-picked.mean(), rel=1e-5)
    assert scores.accuracy == pytest.approx((logits.argmax(-1) == batch["label"]).mean())


def bad_step(one, params, batch):
    """The trainer's state before and after a step that must change nothing, and its metrics."""
    state = one.init_state(params)
    before = jax.tree.map(np.array, state)
    after, metrics = one.step(state, batch)
    return before, after, metrics


def test_a_step_that_is_not_finite_changes_nothing_and_is_explained():
    one = spiking()
    put = batch_putter(one.mesh, 24)
    params = jax.tree.map(jnp.asarray, params_of(one.model))
    # Large enough that the second stage's MLP overflows, while every parameter is finite.
    up = params["blocks"]["mlp"]["up"]["kernel"]
    params["blocks"]["mlp"]["up"]["kernel"] = up.at[1].set(3e38)
    batch = put(next(batches()))
    before, after, metrics = bad_step(one, params, batch)
    assert not metrics.finite
    assert not after.finite
    jax.tree.map(np.testing.assert_array_equal, before._replace(finite=after.finite), after)
    assert "output is not finite is blocks/1/mlp/up" in explain(one, after, batch, jax.device_put)
    again, _ = one.step(after, put(next(batches())))  # nothing ever after
    assert int(again.step) == 0


def test_bad_parameters_and_bad_data_are_told_apart():
    one = spiking()
    params, put, batch = params_of(one.model), batch_putter(one.mesh, 24), next(batches())
    kernel = params["head"]["classifier"]["kernel"]
    broken = {**params, "head": {**params["head"], "classifier": {
        **params["head"]["classifier"], "kernel": kernel.at[0, 0].set(np.nan)}}}  # fmt: skip
    _, after, metrics = bad_step(one, broken, put(batch))
    assert not metrics.finite
    assert "parameter head/classifier/kernel was not finite" in explain(
        one, after, batch, jax.device_put
    )
    bad = dict(batch, image=np.full_like(batch["image"], np.inf))
    _, after, metrics = bad_step(one, params, put(bad))
    assert not metrics.finite
    assert "batch array image was not finite" in explain(one, after, bad, jax.device_put)
