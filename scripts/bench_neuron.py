"""Times a forward and backward pass of T neuron steps: `neuron.run` and other ways to write it.

All rows compute the same spikes and gradients. Repeats are interleaved, so that a busy machine
slows all rows alike; the table gives medians.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snapjax.neurons import neuron
from snapjax.neurons.surrogate import SURROGATES, Surrogate


def scan_of_step(unroll: bool, model: neuron.Neuron, membrane, currents, threshold, leak) -> Any:
    def body(membrane, current):
        return neuron.step(model, membrane, current, threshold, leak)

    return jax.lax.scan(body, membrane, currents, unroll=unroll)


def loop_of_step(model: neuron.Neuron, membrane, currents, threshold, leak) -> Any:
    spikes = []
    for current in currents:
        membrane, fired = neuron.step(model, membrane, current, threshold, leak)
        spikes.append(fired)
    return membrane, jnp.stack(spikes)


IMPLEMENTATIONS: dict[str, Callable] = {
    "lax.scan(step)": partial(scan_of_step, False),
    "lax.scan(step), unrolled": partial(scan_of_step, True),
    "Python loop of step": loop_of_step,
    "neuron.run": neuron.run,
}


def arguments(options: argparse.Namespace) -> tuple[list[jax.Array], list[jax.Array]]:
    """(membrane, currents, threshold, leak), and the cotangents of the outputs."""
    rng = np.random.default_rng(0)
    shape, steps = tuple(options.shape), options.steps
    parameter = shape[-1:] if options.learned == "feature" else ()
    values = [
        np.zeros(shape),
        rng.normal(0.5, 1, (steps, *shape)),
        np.full(parameter, 1.0),
        np.full(parameter, 0.9),
    ]
    cotangents = [rng.normal(size=shape), rng.normal(size=(steps, *shape))]
    return tuple([jnp.asarray(x, options.dtype) for x in group] for group in (values, cotangents))


def passes(function: Callable, model: neuron.Neuron, options: argparse.Namespace) -> Callable:
    """jit of (outputs, gradients) for the currents and, when learned, threshold and leak."""

    @jax.jit
    def both(values, cotangents):
        membrane, *others = values
        count = 1 if options.learned == "none" else 3
        outputs, vjp = jax.vjp(
            lambda *learned: function(model, membrane, *learned, *others[count:]), *others[:count]
        )
        return outputs, vjp(tuple(cotangents))

    return both


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every repeat of every implementation; compiles first."""
    model = neuron.Neuron(options.reset, Surrogate(options.surrogate))
    inputs = arguments(options)
    functions = {name: passes(f, model, options) for name, f in IMPLEMENTATIONS.items()}
    for function in functions.values():
        jax.block_until_ready(function(*inputs))
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(options.repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*inputs))
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4, help="T")
    parser.add_argument("--shape", type=int, nargs="+", default=[32, 64, 384], help="of a step")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--surrogate", choices=SURROGATES, default="atan")
    parser.add_argument("--reset", choices=neuron.RESETS, default="soft")
    parser.add_argument(
        "--learned",
        choices=["none", "scalar", "feature"],
        default="none",
        help="whether threshold and leak get gradients too, as scalars or as vectors",
    )
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args()

    seconds = measure(options)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    baseline = medians["lax.scan(step)"]
    device = jax.devices()[0]
    setting = {
        **{name: value for name, value in vars(options).items() if name != "json"},
        "device": f"{device.platform} ({device.device_kind}), {os.cpu_count()} cores",
        "jax": jax.__version__,
    }
    print(", ".join(f"{name}={value}" for name, value in setting.items()))
    print(f"\n| {'implementation':<24} | median ms | against lax.scan(step) |")
    print(f"|{'-' * 26}|{'-' * 11}|{'-' * 24}|")
    for name, median in medians.items():
        print(f"| {name:<24} | {1e3 * median:>9.2f} | {median / baseline:>21.2f}x |")
    if options.json:
        rows = {
            name: {"median_ms": 1e3 * median, "ratio": median / baseline}
            for name, median in medians.items()
        }
        options.json.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
