"""How fast the present machine is, as constants of a profile, and how good predictions are.

Each constant is measured on a small program of its own, none of which is a model of the zoo: what a
profile then predicts of the zoo's models is a prediction.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snapjax import cost
from snapjax.cost.price.constants import UNITS, Constant
from zoo.bench.ours import Ours
from zoo.bench.rounds import time_in_turn
from zoo.data import Batch

Clock = Callable[[], float]


class Sizes(NamedTuple):
    """How large the measured programs are.

    Attributes:
      matmuls: (rows, inner, columns) of each.
      stream: float32 values of an array that no cache holds.
      wide: of one large enough for XLA to split it over all cores.
      passes: over them.
      loop: iterations of a loop of one small operation.
      repeats: of each program; medians are taken.
    """

    matmuls: tuple[tuple[int, int, int], ...] = (
        (256, 64, 64),
        (1024, 64, 64),
        (1024, 128, 512),
        (2048, 256, 256),
        (2048, 512, 2048),
        (1024, 1024, 1024),
    )
    stream: int = 1 << 25
    wide: int = 1 << 19
    passes: int = 16
    loop: int = 2000
    repeats: int = 9


class Spread(NamedTuple):
    """Seconds of one program: fastest, median, slowest."""

    low: float
    value: float
    high: float


def seconds(function: Callable[..., Any], *args: Any, repeats: int, clock: Clock) -> Spread:
    """Seconds of one call of a jitted function, compilation left out."""
    jax.block_until_ready(function(*args))
    taken = []
    for _ in range(repeats):
        began = clock()
        jax.block_until_ready(function(*args))
        taken.append(clock() - began)
    return Spread(min(taken), statistics.median(taken), max(taken))


def fit_line(work: np.ndarray, taken: np.ndarray) -> tuple[float, float]:
    """(rate, half) of taken = (work + half) / rate with the least relative error, half >= 0.

    Args:
      work, taken: (n,) positive, at least 2 of different work.
    """
    # Divided by what was taken, every program weighs the same, the small ones too.
    weights = np.stack([work / taken, 1 / taken], axis=1)
    (slope, offset), *_ = np.linalg.lstsq(weights, np.ones(len(work)), rcond=None)
    if slope <= 0 or offset < 0:
        return float(1 / np.median(taken / work)), 0.0
    return float(1 / slope), float(offset / slope)


def measure(sizes: Sizes = Sizes(), clock: Clock = time.perf_counter) -> dict[str, Spread]:  # noqa: B008
    """Constants of a profile, by name, in their units.

    Args:
      sizes: of the programs.
      clock: seconds since some moment.
    """
    run = lambda function, *args: seconds(
        jax.jit(function), *args, repeats=sizes.repeats, clock=clock
    )
    found: dict[str, Spread] = {}
    matmul = lambda a, b: jnp.matmul(a, b, preferred_element_type=a.dtype)
    for name, dtype in (("rate_mac_32", jnp.float32), ("rate_mac_16", jnp.bfloat16)):
        spreads = [
            run(matmul, jnp.ones((m, k), dtype), jnp.ones((k, n), dtype))
            for m, k, n in sizes.matmuls
        ]
        work = np.array([float(m * k * n) for m, k, n in sizes.matmuls])
        fits = [fit_line(work, np.array(taken)) for taken in zip(*spreads, strict=True)]
        slow, usual, fast = sorted(rate for rate, _ in fits)
        found[name] = Spread(slow, usual, fast)
        if name == "rate_mac_32":
            found["compute_half"] = Spread(*sorted(half for _, half in fits))
    loop = lambda times, body: lambda x: jax.lax.fori_loop(0, times, lambda _, y: body(y), x)
    # Reads one array and writes another, 8 bytes an element; in a loop, since a fresh result would
    # cost the operating system's pages instead, and with its counter, or XLA would join two passes.
    passes = lambda x: jax.lax.fori_loop(0, sizes.passes, lambda i, y: 0.5 * y + i, x)
    copied = run(passes, jnp.ones(sizes.stream, jnp.float32))
    found["memory_bandwidth"] = _rate(8 * sizes.passes * sizes.stream, copied)
    wide, steps = jnp.ones(sizes.wide, jnp.float32), 64
    found["rate_elementwise"] = _rate(2 * steps * sizes.wide, run(_multiply_adds(steps), wide))
    exponentials = run(loop(sizes.passes, lambda x: jnp.exp(-x)), wide)
    found["rate_transcendental"] = _rate(sizes.passes * sizes.wide, exponentials)
    small = run(loop(sizes.loop, lambda x: x @ x), jnp.eye(8, dtype=jnp.float32))
    found["start"] = Spread(*(taken / sizes.loop for taken in small))
    return found


def _rate(work: float, taken: Spread) -> Spread:
    return Spread(work / taken.high, work / taken.value, work / taken.low)


def _multiply_adds(steps: int) -> Callable[[jax.Array], jax.Array]:
    def chain(x: jax.Array) -> jax.Array:
        # Coefficients that differ, or XLA would find a shorter way.
        for step in range(steps):
            x = x * (1 + 1 / (step + 2)) - 1 / (step + 3)
        return x

    return chain


def describe() -> str:
    """The machine, its devices and the version of jax, for a profile's sources."""
    device = jax.devices()[0]
    kind = device.device_kind if device.platform != "cpu" else _processor()
    return f"{kind}, jax {jax.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def calibrated(name: str, base: str, found: dict[str, Spread], where: str) -> cost.Profile:
    """A profile of the machine that was measured; what was not is the base's.

    Args:
      name: of the profile.
      base: a profile whose energies and links hold.
      found: from `measure`.
      where: from `describe`.
    """
    profile = cost.load_profile(base)
    source = f"measured on {where}"
    made = {
        key: Constant(spread.value, UNITS[key], spread.low, spread.high, "-", source, "measured")
        for key, spread in found.items()
    }
    for key in ("rate_mac_8", "rate_ac"):  # XLA:CPU multiplies them as float32
        made[key] = replace(made["rate_mac_32"], source=f"as rate_mac_32, {source}")
    wide = made["rate_mac_32"]
    made["rate_mac_64"] = Constant(
        wide.value / 2, wide.unit, wide.low / 2, wide.high / 2, "-",
        f"half of rate_mac_32, {source}", "assumed",
    )  # fmt: skip
    reached = "the rates are those that large operations reach"
    made["compute_efficiency"] = Constant(1.0, "share", 1.0, 1.0, "-", reached, "measured")
    description = f"{where}; energies and links of {base}"
    constants = {**profile.constants, **made}
    return replace(profile, name=name, description=description, constants=constants)


class Prediction(NamedTuple):
    """Seconds of one step of a model: predicted, with its range, and measured.

    `step` is "forward" or "train"; `error` is (predicted - measured) / measured.
    """

    model: str
    step: str
    predicted: float
    low: float
    high: float
    measured: float

    @property
    def error(self) -> float:
        """Relative: 0.1 where the prediction is 10 % too long."""
        return self.predicted / self.measured - 1


def predict(ours: Ours, batch: Batch, profile: cost.Profile) -> dict[str, cost.Estimate]:
    """{"forward", "train"} of a trainer on one device, priced.

    Args:
      ours: what runs.
      batch: one batch of it, or its shapes.
      profile: of the machine.
    """
    shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    state, batch = jax.tree.map(shape, (ours.state, batch))
    trainer = ours.trainer
    return {
        "forward": cost.estimate(cost.trace(trainer.forward, state, batch), profile),
        "train": cost.estimate(cost.trace(trainer.step, state, batch), profile),
    }


def compare(
    name: str,
    ours: Ours,
    batch: Batch,
    profile: cost.Profile,
    repeats: int,
    clock: Clock = time.perf_counter,
) -> list[Prediction]:
    """Predicted beside measured time of the forward pass and the training step of a model."""
    predicted = predict(ours, batch, profile)
    taken = time_in_turn(ours.runs(batch), repeats, clock)
    return [
        Prediction(
            name,
            step,
            predicted[step].latency.value,
            predicted[step].latency.low,
            predicted[step].latency.high,
            statistics.median(taken[step]),
        )
        for step in ("forward", "train")
    ]
