# %% [markdown]
# # A boundary in a model of your own, in plain JAX
#
# Two layers with a boundary between them, on one device. `apply` computes what the receiver would
# see, so a model can be built and trained before there is a second device.

# %%
import jax
import jax.numpy as jnp

from snapjax import Boundary, merge_plan, split_plan

WIDTH = 64
boundary = Boundary(features=WIDTH, code="phase", steps=4, budget=WIDTH)
print(f"{boundary.bytes_per_token} bytes a token, float32 takes {4 * WIDTH}")

# %% [markdown]
# The data: a random function to learn.

# %%
keys = iter(jax.random.split(jax.random.key(0), 5))
x = jax.random.normal(next(keys), (512, 16))
y = jnp.tanh(x @ jax.random.normal(next(keys), (16, 4)))

# %% [markdown]
# The model's parameters, and the boundary's, fitted to what the first layer gives.

# %%
weights = {
    "in": jax.random.normal(next(keys), (16, WIDTH)) / 4,
    "out": jax.random.normal(next(keys), (WIDTH, 4)) / 8,
}
hidden = jnp.tanh(x @ weights["in"])
ends = boundary.calibrate(boundary.init(next(keys)), hidden)

# %% [markdown]
# The plan says how many bits each feature has. It is made of integers and is not trained:
# `split_plan` parts it from what is.

# %%
trained, plan = split_plan(ends)


def loss(params):
    hidden = jnp.tanh(x @ params["weights"]["in"])
    arrived, _ = boundary.apply(merge_plan(params["ends"], plan), hidden)
    return jnp.mean((arrived @ params["weights"]["out"] - y) ** 2)


@jax.jit
def step(params):
    value, gradient = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), value


params = {"weights": weights, "ends": trained}
losses = []
for _ in range(200):
    params, value = step(params)
    losses.append(float(value))
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, through spikes at 1 bit a feature")
