"""A boundary in a Flax Linen model of your own: a stage on each of two devices.

python examples/own_model_linen.py

Device 0 runs the first stage, sends what it gives as spikes, and device 1 runs the second. On a CPU
the devices are fake ones.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from snapjax import Boundary, make_mesh, merge_plan, split_plan
from snapjax.parallel.sharding import stack

WIDTH = 32


class Stage(nn.Module):
    """A residual MLP."""

    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(2 * WIDTH)(nn.LayerNorm()(x))))


def main(steps: int = 100) -> tuple[float, float]:
    if jax.default_backend() == "cpu" and len(jax.devices()) < 2:
        raise SystemExit('call jax.config.update("jax_num_cpu_devices", 2) first')
    mesh, stage = make_mesh(stage=2), Stage()
    boundary = Boundary(WIDTH, code="phase", steps=4, budget=WIDTH, gradient_wire="bfloat16")

    keys = jax.random.split(jax.random.key(0), 5)
    x = jax.random.normal(keys[0], (256, WIDTH))
    y = jnp.tanh(x @ jax.random.normal(keys[1], (WIDTH, WIDTH)) / 4)
    stages = [stage.init(key, x)["params"] for key in keys[2:4]]
    ends = boundary.calibrate(boundary.init(keys[4]), stage.apply({"params": stages[0]}, x))
    trained, plan = split_plan(ends)

    def forward(stages, ends, plan, x):
        mine = {"params": jax.tree.map(lambda leaf: leaf[0], stages)}  # this device's stage
        ends = merge_plan(ends, plan)
        arrived, _ = boundary.send(ends, stage.apply(mine, x), axis="stage")
        return stage.apply(mine, arrived)[None]  # device 1's is the model's output

    specs = P("stage"), P(), P(), P()
    run = jax.shard_map(forward, mesh=mesh, in_specs=specs, out_specs=P("stage"))
    loss = lambda params: jnp.mean((run(*params, plan, x)[1] - y) ** 2)
    optimiser = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    params = (stack(stages), trained)
    state, losses = optimiser.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        losses.append(float(value))
    print(f"{boundary.bytes_per_token} bytes a token, float32 takes {4 * WIDTH}")
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses[0], losses[-1]


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
