"""What the multi-device tests share: a tiny pipelined model, and readers of compiled programs."""

import re
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snapjax.boundary import Boundary
from snapjax.codes.parameters import merge_plan, split_plan
from snapjax.parallel.pipeline import Pipeline
from snapjax.parallel.sharding import make_mesh, place, put_placed, stack, unplace

# The same program and collectives, compiled in half the time to slower machine code.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

FEATURES, TOKENS = 10, 3  # neither divides by 8, nor the features by the tokens


def toy_params(boundary: Boundary, stages: int, seed: int = 0) -> dict:
    """Canonical parameters of a residual tanh network of one layer a stage."""
    keys = jax.random.split(jax.random.key(seed), 3)
    draw = lambda key, *shape: 0.5 * jax.random.normal(key, shape)
    width = boundary.features
    return {
        "embed": {"kernel": draw(keys[0], 4, width)},
        "blocks": {"kernel": draw(keys[1], stages, width, width)},
        "head": {"kernel": draw(keys[2], width)},
        "boundaries": stack(
            [boundary.init(jax.random.fold_in(keys[0], i)) for i in range(stages - 1)]
        ),
    }


def toy_batch(size: int, seed: int = 1) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "x": jnp.asarray(rng.standard_normal((size, TOKENS, 4)), jnp.float32),
        "target": jnp.asarray(rng.standard_normal((size,)), jnp.float32),
    }


def embed(params, batch, key=None):
    return batch["x"] @ params["kernel"]


def run_stage(params, x, batch=None, key=None):
    layer = lambda x, kernel: (x + jnp.tanh(x @ kernel), None)
    return jax.lax.scan(layer, x, params["kernel"])[0]


def head(params, x, batch, key=None):
    prediction = x.mean(1) @ params["kernel"]
    return {"loss": ((prediction - batch["target"]) ** 2).sum()}, {"prediction": prediction}


class Pass(NamedTuple):
    loss: float
    prediction: np.ndarray
    gradients: dict
    rate: np.ndarray
    bits: np.ndarray


def on_one_device(boundary: Boundary, params: dict, batch: dict, stages: int, key=None) -> Pass:
    """The cut model without a mesh: the reference every mesh must agree with."""
    trainable, plans = split_plan(params)

    def loss(trainable):
        params = merge_plan(trainable, plans)
        x, stats = embed(params["embed"], batch), []
        for stage in range(stages):
            x = run_stage({"kernel": params["blocks"]["kernel"][stage : stage + 1]}, x)
            if stage < stages - 1:
                ends = jax.tree.map(lambda leaf, i=stage: leaf[i], params["boundaries"])
                x, sent = boundary.apply(ends, x, key)
                stats.append(sent)
        sums, samples = head(params["head"], x, batch)
        return sums["loss"], (samples["prediction"], stack(stats))

    (value, (prediction, stats)), gradients = jit(jax.value_and_grad(loss, has_aux=True))(trainable)
    return Pass(value, np.asarray(prediction), gradients, stats.spike_rate, stats.bits)


def toy_pipeline(
    boundary: Boundary, data: int, stages: int, microbatches: int, remat=False, ranks=None
):
    mesh = make_mesh(data, ranks or stages)
    return Pipeline(embed, run_stage, head, boundary, stages, mesh, microbatches, remat)


def step_function(pipeline: Pipeline, params: dict):
    """(jitted value_and_grad, placed trainable parameters) of the pipelined toy."""
    placed = put_placed(pipeline.mesh, place(params, pipeline.ranks, pipeline.stages))
    trainable, plans = split_plan(placed)

    def loss(trainable, batch, key=None):
        outputs = pipeline(merge_plan(trainable, plans), batch, key)
        return outputs.sums["loss"], outputs

    return jit(jax.value_and_grad(loss, has_aux=True)), trainable


def on_mesh(pipeline: Pipeline, params: dict, batch: dict, key=None) -> Pass:
    step, trainable = step_function(pipeline, params)
    (value, outputs), gradients = step(trainable, batch, key)
    return Pass(
        value,
        np.asarray(outputs.samples["prediction"])[-1],
        unplace(gradients),
        np.asarray(outputs.stats.spike_rate)[:-1],
        np.asarray(outputs.stats.bits)[:-1],
    )


def largest_gap(a, b) -> float:
    """The largest absolute difference in any array, over the largest absolute entry of that array.

    An array whose entries are all below 1e-6 of the tree's largest is rounding around zero (such as
    the gradient of a value that cancels), and is measured against that.
    """
    pairs = [
        (np.asarray(x), np.asarray(y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    ]
    assert pairs
    floor = 1e-6 * max(np.abs(x).max(initial=0) for x, _ in pairs)
    return max(
        float(np.abs(x - y).max(initial=0) / max(np.abs(x).max(initial=0), floor, 1e-30))
        for x, y in pairs
    )


class Collective(NamedTuple):
    """A collective of a compiled program: its kind, what it moves, and who with whom."""

    kind: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]  # (dtype, shape) of each operand
    pairs: tuple[tuple[int, int], ...]  # of a collective-permute
    groups: tuple[tuple[int, ...], ...]  # of the others
    in_entry: bool  # in the entry computation, and not in a loop's body or a branch

    def crosses(self, stage_of: dict[int, int]) -> bool:
        """Whether it connects devices of different stages."""
        sets = self.pairs or self.groups
        return any(len({stage_of[device] for device in members}) > 1 for members in sets)

    @property
    def scalar(self) -> bool:
        return all(shape == () for _, shape in self.arrays)


KINDS = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"


def collectives(compiled_text: str, devices: int) -> list[Collective]:
    """Every collective in a compiled program's HLO text; an unreadable one is an error."""
    found, in_entry = [], False
    for line in compiled_text.splitlines():
        if line.endswith("{"):
            in_entry = line.startswith("ENTRY")
        match = re.search(rf"= (.*?) ({KINDS})(-start)?\(", line)
        if not match:
            assert not re.search(r"= .* (send|recv|ragged-all-to-all)\(", line), line
            continue
        arrays = tuple(
            (dtype, tuple(int(n) for n in shape.split(",") if n))
            for dtype, shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", match[1])
        )
        pairs = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", line)
        groups = re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", line)
        iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
        axes = re.search(
            r"replica_groups=mesh\[([^\]]*)\]"
            r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? *\{([^}]*)\}",
            line,
        )
        numbers = lambda text: [
            tuple(int(n) for n in group.split(",")) for group in re.findall(r"\{([\d,]+)\}", text)
        ]
        if axes:  # a mesh of named axes, and the names that a group runs over
            sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", axes[1])}
            inner = [list(sizes).index(name) for name in re.findall(r"'([^']+)'", axes[4])]
            order = np.arange(np.prod(list(sizes.values())))
            if axes[2]:  # the devices, in the order of a transposed counter
                order = order.reshape([int(n) for n in axes[2].split(",")])
                order = order.transpose([int(n) for n in (axes[3] or "0").split(",")])
            order = order.reshape(list(sizes.values()))
            order = np.moveaxis(order, inner, range(-len(inner), 0))
            width = int(np.prod([order.shape[-len(inner) + i] for i in range(len(inner))]))
            members = tuple(map(tuple, order.reshape(-1, width).tolist()))
        elif iota:
            shape, dims = ([int(n) for n in iota[i].split(",")] for i in (1, 2))
            order = np.arange(np.prod(dims)).reshape(dims)
            if iota[3]:
                order = order.transpose([int(n) for n in iota[3].split(",")])
            members = tuple(map(tuple, order.reshape(shape).tolist()))
        elif groups is not None:
            members = tuple(numbers(groups[1])) or (tuple(range(devices)),)
        else:
            members = ()
        assert pairs or members, line
        found.append(
            Collective(
                match[2], arrays, tuple(numbers(pairs[1])) if pairs else (), members, in_entry
            )
        )
    return found
