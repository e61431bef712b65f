"""Training steps: the same on a mesh as on one device, deterministic, and what is decayed."""

import jax
import numpy as np
import optax
import pytest
from meshes import collectives

from snapjax.sharding import make_mesh
from zoo import data
from zoo.registry import create_model
from zoo.train import TrainConfig, Trainer, means

SPLITS = data.digits()
CONFIG = TrainConfig(epochs=1, batch_size=24, microbatches=3, noise=0.2, shift=1)


@pytest.fixture(autouse=True)
def _optax_promotes():
    """optax raises its decay rates to an integer count, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def trainer(variant="ann", mesh=None, config=CONFIG):
    return Trainer(create_model("vit_nano_patch2_8", variant), config, 59, mesh)


def run(trainer, steps):
    state = trainer.start(trainer.model.init(jax.random.key(0)))
    sums = []
    for batch, _ in zip(trainer.batches(SPLITS.train, 0), range(steps), strict=False):
        state, step_sums = trainer.step(state, batch)
        sums.append(step_sums)
    return trainer.params(state), means(sums)


def test_three_steps_on_a_mesh_equal_three_on_one_device():
    alone, alone_means = run(trainer(), 3)
    spread, spread_means = run(trainer(mesh=make_mesh(2, 4)), 3)
    assert alone_means == pytest.approx(spread_means, rel=1e-5)
    # Adam divides a gradient by its own size, so rounding in a zero gradient (that of a key bias)
    # is as large as any other update: compare the weights that have a gradient.
    for name in ("query", "value", "out"):
        np.testing.assert_allclose(
            alone["blocks"]["attention"][name]["kernel"],
            spread["blocks"]["attention"][name]["kernel"],
            atol=2e-5,
        )


def test_the_step_is_compiled_once_and_sends_what_the_wire_predicts():
    one = trainer("hnn", make_mesh(2, 4))
    state = one.start(one.model.init(jax.random.key(0)))
    for batch, _ in zip(one.batches(SPLITS.train, 0), range(3), strict=False):
        state, _ = one.step(state, batch)
    assert one._update._cache_size() == 1
    arguments = (state.trainable, state.plans, state.optimiser, batch, jax.random.key(0))
    text = one._update.lower(*arguments).compile().as_text()
    stage = {device: device % 4 for device in range(8)}
    crossing = [c for c in collectives(text, 8) if c.crosses(stage) and not c.scalar]
    arrays = sorted((*array, c.pairs[0]) for c in crossing for array in c.arrays)
    tokens = 24 // 3 // 2  # images a message, 16 tokens each
    assert arrays == [
        ("f32", (tokens, 16, 64), (1, 0)),  # the gradient wire
        ("u8", (tokens, 16, 8), (0, 1)),
    ]


def test_a_batch_that_does_not_split_is_refused_at_once():
    with pytest.raises(ValueError, match="batch_size=24 must be a multiple of 5"):
        trainer(mesh=make_mesh(1, 4), config=TrainConfig(batch_size=24, microbatches=5))


def test_a_run_repeats_bit_for_bit():
    first, _ = run(trainer("hnn", make_mesh(1, 4)), 3)
    second, _ = run(trainer("hnn", make_mesh(1, 4)), 3)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_augmentation_depends_on_the_options_and_the_seed():
    image = lambda **options: next(
        trainer(config=TrainConfig(batch_size=24, **options)).batches(SPLITS.train, 0)
    )["image"]
    plain = image()
    order = data.epoch_order(SPLITS.train.samples, 0, 0)
    np.testing.assert_array_equal(plain, SPLITS.train.images[order[:24]])
    noise = image(noise=0.2) - plain
    assert 0.19 < noise.std() < 0.21
    moved = image(shift=1)
    assert (moved != plain).any()
    assert set(np.unique(moved)) <= set(np.unique(plain))
    assert (image(noise=0.2, seed=1) != image(noise=0.2)).any()


def test_only_matrices_decay():
    config = TrainConfig(epochs=1, weight_decay=0.5, learning_rate=1.0, warmup=0.0)
    model = create_model("vit_nano_patch2_8", "hnn")
    params = jax.tree.map(np.ones_like, model.init(jax.random.key(0)))
    one = Trainer(model, config, 10)
    state = one.start(params)
    nothing = jax.tree.map(np.zeros_like, state.trainable)
    updates, _ = one.optimiser.update(nothing, state.optimiser, state.trainable)
    moved = {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(optax.tree.scale(1.0, updates))
        if np.any(leaf)
    }
    kernels = {
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(state.trainable)
        if "kernel" in jax.tree_util.keystr(path)
    }
    assert moved == kernels
    assert len(kernels) == 8


def test_debug_names_the_boundary_where_a_run_diverged():
    config = TrainConfig(epochs=1, batch_size=24, debug=True)
    one = trainer("hnn", make_mesh(1, 4), config)
    params = one.model.init(jax.random.key(0))
    kernel = params["blocks"]["mlp"]["down"]["kernel"]
    params["blocks"]["mlp"]["down"]["kernel"] = kernel.at[1].set(np.nan)  # the second stage's
    batch = next(one.batches(SPLITS.train, 0))
    with pytest.raises(FloatingPointError, match=r"step 0: .* boundaries \[2"):
        one.step(one.start(params), batch)
    bad = dict(batch, image=np.full_like(batch["image"], np.inf))
    good = one.model.init(jax.random.key(0))
    with pytest.raises(FloatingPointError, match=r"boundaries \[1"):
        one.step(one.start(good), bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"microbatches": 0}, "microbatches=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"seed": -1}, "seed=-1"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"epochs": 10**12}, "epochs=1000000000000"),
        ({"warmup": 1.0}, "warmup=1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)
