"""Times a boundary against one dense encoder block, forward and backward.

On one device (`Boundary.apply`), and over a link of fake devices (`transmit` and `receive`), where
every device runs one and they share the cores. Repeats are interleaved, so that a busy machine
slows all rows alike; the table gives medians, and the median ratio to the block of the same turn.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from rich.console import Console
from rich.table import Table

from snapjax.boundary import Boundary
from snapjax.codes.parameters import merge_plan, split_plan
from snapjax.parallel.sharding import make_mesh

HEAD_WIDTH = 48
Layer = Callable[[Any, jax.Array], tuple[jax.Array, Any]]  # (params, x) -> (y, other outputs)


def dense_block(width: int) -> tuple[Any, Layer]:
    """A pre-norm transformer block with an MLP of 4 widths, without biases."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"qkv": 3 * width, "out": width, "up": 4 * width}
    params = {
        name: jax.random.normal(key, (width, size)) / width**0.5
        for (name, size), key in zip(shapes.items(), keys, strict=False)
    }
    params["down"] = jax.random.normal(keys[3], (4 * width, width)) / (4 * width) ** 0.5

    def norm(x: jax.Array) -> jax.Array:
        return jax.nn.standardize(x, axis=-1)

    def block(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        heads = (*x.shape[:2], -1, min(HEAD_WIDTH, width))
        qkv = jnp.split(norm(x) @ params["qkv"], 3, axis=-1)
        mixed = jax.nn.dot_product_attention(*(part.reshape(heads) for part in qkv))
        x = x + mixed.reshape(x.shape) @ params["out"]
        return x + jax.nn.gelu(norm(x) @ params["up"]) @ params["down"], ()

    return params, block


def on_one_device(boundary: Boundary) -> Layer:
    return boundary.apply


def over_a_link(boundary: Boundary) -> Layer:
    def layer(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        value, sent = boundary.transmit(params, x, "stage")
        return boundary.receive(params["decoder"], value, x.dtype), sent

    return layer


def forward_and_backward(params: Any, layer: Layer, devices: int) -> Callable[..., Any]:
    """x -> (the layer's other outputs, gradients of params and x), on each of the devices."""
    trainable, plans = split_plan(params)
    mesh = make_mesh(stage=devices)

    def loss(trainable: Any, x: jax.Array, weight: jax.Array) -> tuple[jax.Array, Any]:
        y, other = layer(merge_plan(trainable, plans), x)
        return (y * weight).sum(), other

    def run(trainable: Any, x: jax.Array, weight: jax.Array) -> Any:
        # Each device's parameters are its own, as in a pipeline: nothing is summed over devices.
        local = jax.tree.map(lambda leaf: leaf[0], (trainable, x, weight))
        gradients, other = jax.grad(loss, argnums=(0, 1), has_aux=True)(*local)
        varying = lambda leaf: leaf + 0 * local[1].reshape(-1)[0]
        return jax.tree.map(lambda leaf: varying(leaf)[None], (gradients, other))

    by_stage = PartitionSpec("stage")
    if devices > 1:
        run = jax.shard_map(run, mesh=mesh, in_specs=(by_stage,) * 3, out_specs=by_stage)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * devices), trainable)
    return jax.jit(lambda x, weight: run(stacked, x, weight))


def measure(runs: dict[str, Callable[..., Any]], args: Any, repeats: int) -> dict[str, Any]:
    """{name: {"ms": median, "ratio": median ratio to the first run of the same turn}}."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-2, repeats):  # two turns compile and warm up
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*args))
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    first = next(iter(seconds.values()))
    return {
        name: {
            "ms": 1e3 * statistics.median(values),
            "ratio": statistics.median(a / b for a, b in zip(values, first, strict=True)),
        }
        for name, values in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["128x49x144", "64x64x384", "32x128x768"])
    parser.add_argument("--codes", nargs="+", default=["float32", "phase"])
    parser.add_argument("--steps", type=int, default=4, help="T of the spike codes")
    parser.add_argument("--devices", type=int, default=2, help="fake devices along the link")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", args.devices)
    table = Table("batch x tokens x width", "where", "what", "ms", "ratio")
    results = {}
    for name in args.shapes:
        shape = tuple(int(size) for size in name.split("x"))
        for devices, place in ((1, on_one_device), (args.devices, over_a_link)):
            runs = {"dense block": forward_and_backward(*dense_block(shape[-1]), devices)}
            for code in args.codes:
                boundary = Boundary(shape[-1], code, steps=args.steps, budget=shape[-1])
                params = boundary.init(jax.random.key(0))
                runs[code] = forward_and_backward(params, place(boundary), devices)
            drawn = np.random.default_rng(0).standard_normal((2, devices, *shape))
            row = measure(runs, tuple(jnp.asarray(drawn, jnp.float32)), args.repeats)
            where = "one device" if devices == 1 else f"link of {devices}"
            results[f"{name}, {where}"] = row
            for what, figures in row.items():
                cells = f"{figures['ms']:.2f}", f"{figures['ratio']:.3f}"
                table.add_row(name, where, what, *cells)
    Console().print(f"jax {jax.__version__} on {jax.devices()[0]}", table, sep="\n")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
