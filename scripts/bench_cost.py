"""How long pricing takes: the jaxpr, the walk over it, its prices, and the memory, of whole
training steps.

    python scripts/bench_cost.py [--models bert_base bert_large] [--repeats 5]

Nothing is allocated: every argument is a shape. The walk is what `snapjax.cost.trace` adds once the
jaxpr exists, and the prices what `snapjax.cost.estimate` does; jax's own tracing is beside them.
"""

import argparse
import resource
import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import optax

from snapjax import cost
from snapjax.codes.parameters import merge_plan, split_plan
from zoo.models.registry import create_model

MODELS = ("bert_base", "bert_large")


def training_step(name: str, batch: int, tokens: int):
    """(a step of AdamW on BERT's masked tokens, the shapes of its arguments)."""
    model = create_model(name, variant="hnn", stages=4)
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    inputs = {"input_ids": shape((batch, tokens)), "position": shape((batch, 20))}
    optimiser = optax.adamw(1e-4)

    def step(trainable, plans, state, batch):
        def loss(trainable):
            logits, _ = model.apply(merge_plan(trainable, plans), batch)
            return logits.sum()

        value, gradients = jax.value_and_grad(loss)(trainable)
        updates, state = optimiser.update(gradients, state, trainable)
        return value, optax.apply_updates(trainable, updates), state

    params = jax.eval_shape(model.init, jax.random.key(0))
    trainable, plans = split_plan(params)
    return step, (trainable, plans, jax.eval_shape(optimiser.init, trainable), inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    seconds = " ".join(f"{name:>8}" for name in ("jaxpr s", "walk s", "prices s"))
    print(f"{'model':10} {'parameters':>12} {'TMAC':>8} {seconds} {'peak MiB':>9}")
    for name in args.models:
        step, shapes = training_step(name, args.batch, args.tokens)
        start = time.perf_counter()
        jitted = jax.jit(step)
        jitted.trace(*shapes)  # kept by jax: what follows finds the jaxpr
        traced = time.perf_counter() - start
        walks, prices = [], []
        for _ in range(args.repeats):
            start = time.perf_counter()
            counts = cost.trace(jitted, *shapes, strict=True, parameters=shapes[0])
            walked = time.perf_counter()
            cost.estimate(counts, "snap-mesh")
            walks.append(walked - start)
            prices.append(time.perf_counter() - walked)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name:10} {counts.parameters:12,} {counts.macs / 1e12:8.3f} {traced:8.2f} "
            f"{statistics.median(walks):8.3f} {statistics.median(prices):8.3f} {peak:9.0f}"
        )


if __name__ == "__main__":
    main()
