"""A user's own models, and what the walk says to whoever asks for what cannot be."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from cost_bodies import CUBE, GRID, ROW, mesh_of, on_mesh, vary
from cost_programs import either, halve_until_small, shape, square
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from model_inputs import batch_for

from snapjax import cost
from snapjax.cost.hlo import counts as hlo
from snapjax.parallel.sharding import make_mesh
from zoo.config.specs import TrainSpec
from zoo.models.registry import create_model
from zoo.train.step import Trainer


class Cnn(nn.Module):
    """A LeNet in Linen, which knows nothing of snapjax."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (5, 5), name="first")(x))
        x = x.reshape(x.shape[0], 14, 2, 14, 2, 6).mean((2, 4))
        x = nn.relu(nn.Conv(16, (5, 5), padding="VALID", name="second")(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        return nn.Dense(10, name="classifier")(x)


def test_a_linen_cnn():
    model, images = Cnn(), shape(4, 28, 28, 1)
    params = jax.eval_shape(model.init, jax.random.key(0), images)
    counts = cost.trace(model.apply, params, images, strict=True, parameters=params)
    # 28 x 28 outputs of 5 x 5 x 1 taps; 10 x 10 of 5 x 5 x 6 taps; 5 x 5 x 16 = 400 features.
    assert counts.by_path() == {
        "Cnn/first": 4 * 6 * 28 * 28 * 25,
        "Cnn/second": 4 * 16 * 10 * 10 * 150,
        "Cnn/classifier": 4 * 400 * 10,
    }
    # Biases, sums of 2 x 2 for the mean, and of the classifier.
    adds = 6 * 784 + 3 * 6 * 196 + 16 * 100 + 10
    assert counts.total("add") == 4 * adds
    assert counts.total("divide") == 4 * 6 * 196
    assert counts.parameters == (25 * 6 + 6) + (150 * 16 + 16) + (400 * 10 + 10)

    loss = lambda params, images: model.apply(params, images).sum()
    step = cost.trace(jax.value_and_grad(loss), params, images, strict=True)
    # Backward: the classifier twice, the first layer once, as the images have no gradient, and the
    # second once for its kernel. Its input's gradient is a convolution with padding: 14 x 14
    # outputs of 5 x 5 x 16 taps for 6 channels.
    by_path = counts.by_path()
    assert step.by_path() == {
        "Cnn/first": 2 * by_path["Cnn/first"],
        "Cnn/second": 2 * by_path["Cnn/second"] + 4 * 6 * 14 * 14 * 400,
        "Cnn/classifier": 3 * by_path["Cnn/classifier"],
    }


def test_a_plain_jax_mlp_under_shard_map():
    """Data parallel over 2 and tensor parallel over 4: one training step with its gradients."""
    batch, width, hidden = 32, 64, 256

    def loss(params, x, y):
        def device(w, v, x, y):
            prediction = lax.psum(jnp.tanh(x @ w) @ v, "model")
            return lax.pmean(((prediction - y) ** 2).mean(), "data")

        ins = (P(None, "model"), P("model"), P("data"), P("data"))
        return on_mesh(GRID, device, ins, P())(*params, x, y)

    @jax.jit
    def step(params, x, y):
        value, gradients = jax.value_and_grad(loss)(params, x, y)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)

    params = (shape(width, hidden), shape(hidden, width))
    args = (params, shape(batch, width), shape(batch, width))
    counts = cost.trace(step, *args, strict=True, parameters=params)
    # On a device 16 x 64 x 64 a product. Forward two; backward the gradients of w, of v and of
    # tanh's output: x needs none.
    assert counts.macs == (2 + 3) * 16 * 64 * 64
    assert counts.parameters == 2 * width * hidden
    # Over model one psum of (16, 64) float32, 4096 bytes: 2 x 3/4 x 4096, and nothing backward,
    # for x is no parameter. Over data the gradients of w and v, 64 x 64 float32 = 16384 bytes each,
    # 2 x 1/2 x 16384, and the loss, 4 bytes.
    assert counts.by_axis() == {"data": 2 * 16384 + 4, "model": 6144}
    assert {t.collective for t in counts.transfers} == {"psum"}
    # Outside of shard_map the update touches a device's quarter of w and of v: one multiplication
    # and one subtraction each.
    update = [op for op in counts.ops if op.primitive == "sub" and op.bytes_written > 16 * 64 * 4]
    assert max(op.count for op in update) >= 2 * width * hidden / 4
    compiled = step.lower(*args).compile()
    assert cost.compare(counts, hlo.counts(compiled, mesh_of(GRID))) == ()


def test_a_training_step_over_three_axes():
    """Pipeline over a, sharded weights over b, tensor parallel over c: 5 ticks of 3 rematerialised
    layers, counted by hand."""
    rows, width, local = 8, 16, 32

    def layer(x, weights):
        w, v = (lax.all_gather(part, "b", tiled=True) for part in weights)
        return x + lax.psum(jnp.tanh(vary(x, "c") @ w) @ v, "c")

    def device(weights, x):
        def tick(x, _):
            step = lambda x, weights: (jax.checkpoint(layer)(x, weights), None)
            return lax.ppermute(lax.scan(step, x, weights)[0], "a", [(0, 1)]), None

        x = lax.scan(tick, vary(x, "a"), None, length=5)[0]
        return lax.psum((x**2).sum(), ("a", "b"))

    # Weights of 3 layers for each place of a, halved over b and c.
    weights = (shape(6, width, 2 * local), shape(6, 2 * local, width))
    ins = ((P("a", "b", "c"), P("a", ("b", "c"))), P("b"))
    # b divides v's rows after c has: what all_gather puts together is c's half, in b's order.
    run = on_mesh(CUBE, device, ((P("a", "b", "c"), P("a", ("c", "b"))), ins[1]), P())
    step = jax.jit(jax.value_and_grad(run))
    counts = cost.trace(step, weights, shape(2 * rows, width), strict=True)
    product = rows * width * local  # 4096
    # Of each layer in each tick: two products forward, one again in the backward pass (the second
    # one's result is not needed), four backward.
    assert counts.macs == 15 * (2 + 1 + 4) * product
    x, shard = rows * width * 4, width * local * 4 / 2  # bytes: 512, 1024 of each matrix
    # Over a: the activation in each tick, forward and backward; the loss is one float, of which the
    # psum over a and b sends half over a: 2 x 1/2 x 2.
    assert counts.by_axis()["a"] == 2 * 5 * x + 2
    # Over c: 2 x 1/2 x 512 forward for the output, backward for the input.
    assert counts.by_axis()["c"] == 15 * 2 * x
    # Over b: the weights do not change from tick to tick, and differentiating a scan takes what
    # does not change out of its forward pass. A formula would count 15 gathers of each matrix
    # there; it is 3. The backward pass gathers them again in each of 15, and scatters a gradient.
    sent = {
        name: sum(
            transfer.executions * transfer.sent_bytes
            for transfer in counts.transfers
            if transfer.collective == name
        )
        for name in ("all_gather", "reduce_scatter")
    }
    assert sent == {"all_gather": 2 * (3 + 15) * shard, "reduce_scatter": 2 * 15 * shard}
    # And half of the loss: the innermost axis of the two carries all 4 bytes.
    assert counts.by_axis()["b"] == sum(sent.values()) + 4
    compiled = step.lower(weights, shape(2 * rows, width)).compile()
    for difference in cost.compare(counts, hlo.counts(compiled, mesh_of(CUBE))):
        assert "loop" in difference.reason


def test_whatever_has_no_price_is_listed_or_raised():
    transform = lambda x: jnp.fft.fft(x).real
    (entry,) = cost.trace(transform, shape(4, 64)).unpriced
    assert (entry.primitive, entry.size, entry.executions) == ("fft", 256, 1)
    with pytest.raises(ValueError, match=r"parts without a price: fft at '', 256 elements x 1"):
        cost.trace(transform, shape(4, 64), strict=True)
    with pytest.raises(ValueError, match="trip count unknown: the body counts once; state while"):
        cost.trace(halve_until_small, square, strict=True)


def test_a_reduction_of_the_users_own():
    """(4, 8) to 4: 28 times the function's product and sum."""
    fold = lambda x: lax.reduce(x, 1.0, lambda a, b: a * b + b, (1,))
    assert cost.trace(fold, shape(4, 8)).by_kind() == {"add": 28, "multiply": 28}


def test_the_host_is_not_counted_and_not_hidden():
    def run(x):
        jax.debug.print("{}", x.sum())
        return x + 1

    counts = cost.trace(run, shape(8), strict=True)
    assert any("runs on the host and is not counted" in note for note in counts.notes)
    call = lambda x: jax.pure_callback(lambda x: x, shape(8), x)
    assert [entry.primitive for entry in cost.trace(call, shape(8)).unpriced] == ["pure_callback"]


def test_a_function_with_its_own_rule_for_vmap():
    @jax.custom_batching.custom_vmap
    def product(x):
        return x @ x

    product.def_vmap(lambda size, batched, x: (x @ x, True))
    assert cost.trace(product, square, strict=True).macs == 512
    assert cost.trace(jax.vmap(product), shape(3, 8, 8), strict=True).macs == 3 * 512


def test_bad_rules_are_named():
    with pytest.raises(ValueError, match="cond='most' must be one of max, mean, exact"):
        cost.trace(either, square, square, cond="most")
    with pytest.raises(ValueError, match="has 3 weights; the cond at '' has 2 branches"):
        cost.trace(either, square, square, cond={"*": (1, 0, 0)})
    for weights in ((-1, 2), (0, 0), (0.5, 0.6), (float("nan"), 1), ("1", "0")):
        with pytest.raises(ValueError, match="at least 0 whose sum is 1"):
            cost.trace(either, square, square, cond={"*": weights})
    for trips in (-1, float("inf"), "5", True, {"": -1}):
        with pytest.raises(ValueError, match="is no number of iterations; give one of at least 0"):
            cost.trace(halve_until_small, square, while_trips=trips)


def test_a_pattern_that_no_path_matches_is_named():
    with pytest.raises(ValueError, match="while_trips: no path matches 'loop'; the paths are ''"):
        cost.trace(halve_until_small, square, while_trips={"loop": 3})
    with pytest.raises(ValueError, match=r"cond: no path matches 'a\*'; the paths are \(none\)"):
        cost.trace(halve_until_small, square, cond={"a*": (1, 0)})


def test_two_meshes_in_one_program_are_named():
    one = on_mesh({"x": 8}, lambda x: lax.psum(x, "x"), P("x"), P())
    two = on_mesh({"x": 4}, lambda x: lax.psum(x, "x"), P("x"), P())
    with pytest.raises(ValueError, match="mesh axis 'x' has sizes 8 and 4 in one program"):
        cost.trace(lambda x: (one(x), two(x)), shape(8, 8))


def test_counts_of_two_meshes_do_not_add():
    one = cost.trace(on_mesh(ROW, lambda x: x * 2, P("x"), P("x")), shape(8, 8))
    two = cost.trace(on_mesh(GRID, lambda x: x * 2, P("data"), P("data")), shape(8, 8))
    with pytest.raises(ValueError, match="counts of two meshes do not add"):
        one + two


def test_auto_sharded_programs_say_so():
    sharding = NamedSharding(mesh_of(GRID), P("data", "model"))
    x = jax.ShapeDtypeStruct((16, 16), jnp.float32, sharding=sharding)
    counts = cost.trace(lambda x: x @ x, x)
    assert any(note.startswith("auto-sharded") for note in counts.notes)
    assert counts.devices == 8
    # Elementwise work needs nobody else's: each device does its eighth.
    alone = cost.trace(lambda x: jnp.tanh(x) + 1, x)
    assert (alone.total("add"), alone.notes) == (16 * 16 / 8, ())


@pytest.mark.slow  # traces and compiles a step for eight devices
@pytest.mark.parametrize("fsdp", [False, True])
def test_the_trainers_whole_step(fsdp):
    """Optimiser and all: XLA adds two scalars' sums, of the norm and of what is finite."""
    model = create_model("vit_nano_patch2_8", "hnn", stages=4)
    spec, mesh = TrainSpec(epochs=1, batch_size=16, microbatches=2), make_mesh(2, 4)
    trainer = Trainer(model, spec, 10, mesh, fsdp=fsdp)
    batch = batch_for(model, 16)
    # optax raises its decay rates to an integer count, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        state = trainer.init_state(model.init(jax.random.key(0)))
        counts = cost.trace(trainer._update, state, batch, strict=True)
        compiled = trainer._update.lower(state, batch).compile()
    (difference,) = cost.compare(counts, hlo.counts(compiled, mesh))
    assert difference.what == "psum over stage"
    assert "reduce_and" in difference.reason
    assert difference.hlo < 400  # bytes, beside the 84 kB that the stages send
    # With fsdp half of every block's matrices comes from the other half of the devices.
    gathered = sum(
        transfer.executions * transfer.sent_bytes
        for transfer in counts.transfers
        if transfer.collective == "all_gather"
    )
    matrices = 4 * 64 * 64 + 2 * 64 * 128  # of a stage's block, float32
    assert gathered >= fsdp * matrices * 4 / 2
    assert (gathered > 0) == fsdp


def test_an_explicit_mesh_is_auto_sharded_too():
    mesh = jax.make_mesh((2, 4), ("data", "model"), (AxisType.Explicit,) * 2)
    put = lambda spec, *dims: jax.ShapeDtypeStruct(
        dims, jnp.float32, sharding=NamedSharding(mesh, spec)
    )

    def layer(x, w):
        return jnp.tanh(jnp.einsum("bi,ij->bj", x, w, out_sharding=P("data", None)))

    with jax.set_mesh(mesh):
        counts = cost.trace(layer, put(P("data", "model"), 16, 64), put(P("model"), 64, 16))
    assert any(note.startswith("auto-sharded") for note in counts.notes)
    assert counts.macs == 16 * 64 * 16 / 8  # rows over data, what is contracted over model
    assert counts.total("transcendental") == 16 * 16 / 2  # each half of the rows on 4 devices


def test_tracing_allocates_nothing():
    before = len(jax.live_arrays())
    big = shape(1 << 20, 1 << 15)
    assert cost.trace(lambda x, y: x @ y, big, shape(1 << 15, 1 << 15)).macs == 2.0**50
    assert len(jax.live_arrays()) == before
