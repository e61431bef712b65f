"""Times the formats of `snapjax.wire`, and the ways to write them that were not chosen.

Every figure is the median of interleaved repeats; the ratio is to the first row of its table.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from snapjax.wire import dense, entropy, rates, spikes

Step = Callable[..., jax.Array]
Variants = dict[str, Step | tuple[Step, ...]]  # a tuple: each takes what the one before returned


def eights(bits: jax.Array) -> jax.Array:
    bits = jnp.pad((bits != 0).astype(jnp.uint8), ((0, 0), (0, -bits.shape[1] % 8)))
    return bits.reshape(bits.shape[0], -1, 8)


PLACES = np.arange(8, dtype=np.uint8)
PACK = {
    "wire.pack_bits": spikes.pack_bits,
    "jnp.packbits": lambda x: jnp.packbits(x != 0, axis=-1, bitorder="little"),
    "multiply, sum": lambda x: jnp.sum(eights(x) * (1 << PLACES), -1, dtype=jnp.uint8),
    "shift, or": lambda x: lax.reduce_or(eights(x) << PLACES, axes=(2,)),
}


def unpack_variants(k: int) -> Variants:
    def flat(planes: jax.Array) -> jax.Array:
        return planes.reshape(planes.shape[0], -1)[:, :k].astype(jnp.float32)

    return {
        "wire.unpack_bits": lambda p: spikes.unpack_bits(p, k, jnp.float32),
        "jnp.unpackbits": lambda p: flat(jnp.unpackbits(p, axis=-1, bitorder="little")),
        "repeat, shift": lambda p: flat(jnp.repeat(p, 8, -1) >> np.tile(PLACES, p.shape[1]) & 1),
    }


def event_variants(capacity: int) -> Variants:
    """Feature indices of the spikes; only the library's row also writes counts and bytes."""

    def scatter(x: jax.Array) -> jax.Array:
        sent = x.reshape(-1) != 0
        slot = jnp.where(sent, jnp.cumsum(sent) - 1, capacity)
        column = jnp.arange(x.size) % x.shape[1]
        return jnp.zeros(capacity, jnp.int32).at[slot].set(column, mode="drop")

    slots = jnp.arange(capacity)
    return {
        "wire.pack_events": lambda x: spikes.pack_events(x, capacity),
        "jnp.nonzero": lambda x: jnp.nonzero(x.reshape(-1), size=capacity)[0] % x.shape[1],
        "cumsum, scatter": scatter,
        "cumsum, searchsorted": lambda x: (
            jnp.searchsorted(jnp.cumsum(x.reshape(-1) != 0), slots, "right") % x.shape[1]
        ),
    }


def medians(variants: Variants, x: jax.Array, repeats: int) -> dict[str, float]:
    """Milliseconds of one pass through each variant's steps, jitted one by one."""
    jitted = {
        name: [jax.jit(step) for step in (steps if isinstance(steps, tuple) else (steps,))]
        for name, steps in variants.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(-2, repeats):  # two turns compile and warm up
        for name, steps in jitted.items():
            start = time.perf_counter()
            value = x
            for step in steps:
                value = step(value)
            value.block_until_ready()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--rate", type=float, default=0.05, help="share of the features that spike")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    tokens, k = args.tokens, args.features
    rng = np.random.default_rng(0)
    sent = jnp.asarray(rng.random((tokens, k)) < args.rate, jnp.float32)
    x = jnp.asarray(rng.normal(size=(tokens, k)), jnp.float32)
    planes = spikes.pack_bits(sent)
    capacity = int(spikes.event_count(sent))
    events = spikes.pack_events(sent, capacity)
    results: dict[str, dict[str, float]] = {}

    def table(title: str, variants: Variants, x: jax.Array) -> None:
        results[title] = row = medians(variants, x, args.repeats)
        print(f"\n{title:44}{'ms':>10}{'ratio':>8}")
        for name, ms in row.items():
            print(f"  {name:42}{ms:10.3f}{ms / next(iter(row.values())):8.2f}")

    print(f"jax {jax.__version__} on {jax.devices()[0]}, {tokens} x {k}, spike rate {args.rate}")
    table("pack bits", PACK, sent)
    table("pack bits, 3 features fewer", PACK, sent[:, 3:])
    table("unpack bits", unpack_variants(k), planes)
    table("pack events", event_variants(capacity), sent)
    owners: Variants = {
        "scatter, cumsum (wire)": lambda n: spikes.owner_of_slot(jnp.cumsum(n), capacity),
        "searchsorted": lambda n: jnp.searchsorted(jnp.cumsum(n), jnp.arange(capacity), "right"),
    }
    table("token of each event", owners, jnp.sum(sent, 1, dtype=jnp.int32))
    both: Variants = {
        f"planes, {planes.size} bytes": (
            spikes.pack_bits,
            lambda p: spikes.unpack_bits(p, k, x.dtype),
        ),
        f"events, {events.size} bytes": (
            lambda s: spikes.pack_events(s, capacity),
            lambda e: spikes.unpack_events(e, tokens, k, capacity, x.dtype),
        ),
    }
    # The same events with a sign each, as a code of ON and OFF neurons has them.
    likely = rates.tables(np.full((1, k), max(args.rate, 1 / sent.size)), tokens=tokens)
    signed = jnp.where(jnp.asarray(rng.random(sent.shape) < 0.5), sent, -sent)
    ideal = -sum(p * np.log2(p) for p in (1 - args.rate, args.rate)) + args.rate  # bits a feature
    size = int(1.05 * ideal * sent.size / 8) + 64
    fits = bool(entropy.pack(signed, likely, size)[1])
    entropy_row = f"entropy, {size} bytes{'' if fits else ', which do not fit'}"
    both["a copy"] = lambda s: s + 1
    both[entropy_row] = (
        lambda s: entropy.pack(s, likely, size)[0],
        lambda b: entropy.unpack(b, likely, tokens, k),
    )
    print(f"\nentropy of places and signs: {ideal * sent.size / 8:.0f} bytes")
    table("spikes: pack, then unpack", both, signed)
    formats: Variants = {}
    key = jax.random.key(0)
    for f, rounding in [(f, None) for f in dense.DENSE_FORMATS] + [("int8", key), ("int4", key)]:
        name = f if rounding is None else f"{f} stochastic"
        formats[f"{name}, {dense.dense_bytes(tokens, k, f)} bytes"] = (
            lambda v, f=f, rounding=rounding: dense.pack_dense(v, f, rounding),
            lambda b, f=f: dense.unpack_dense(b, k, f, x.dtype),
        )
    table("dense formats: pack, then unpack", formats, x)
    uniform: Variants = {
        "16 bits (wire)": lambda key: dense._uniform(key, x.shape),
        "jax.random.uniform": lambda key: jax.random.uniform(key, x.shape),
    }
    table("thresholds of stochastic rounding", uniform, key)
    if args.json:
        args.json.write_text(json.dumps({"shape": [tokens, k], "ms": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
