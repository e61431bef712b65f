# %% [markdown]
# # What a cut costs
#
# The cost model reads a program's jaxpr, counts its operations and bytes, and prices them on a
# hardware profile. Nothing of the program runs, and there need be no second device.

# %%
import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from snapjax import Boundary, cost

TOKENS, WIDTH = 128, 384
mesh = AbstractMesh((2,), ("stage",), axis_types=(AxisType.Auto,))
x = jax.ShapeDtypeStruct((2, TOKENS, WIDTH), jnp.float32)

# %% [markdown]
# One hop of 128 tokens from one device to the next, through three boundaries.


# %%
def hop(boundary):
    params = jax.eval_shape(boundary.init, jax.random.key(0))
    send = jax.shard_map(
        lambda params, x: boundary.send(params, x, axis="stage")[0],
        mesh=mesh,
        in_specs=(P(), P("stage")),
        out_specs=P("stage"),
    )
    return cost.trace(send, params, x)


boundaries = {
    "float32": Boundary(WIDTH, code="float32"),
    "int8": Boundary(WIDTH, code="int8"),
    "spikes, 1 bit": Boundary(WIDTH, code="phase", steps=4, budget=WIDTH),
}
counts = {name: hop(boundary) for name, boundary in boundaries.items()}

# %% [markdown]
# The same counts on two profiles: chips on one package, and desktop hosts on 1 Gb/s Ethernet. On
# the package, encoding costs more than the bits it saves; on Ethernet the link decides.

# %%
found = {}
for profile in ("snap-mesh", "ethernet-1g"):
    print(profile)
    for name, counted in counts.items():
        estimate = cost.estimate(counted, profile)
        found[profile, name] = estimate
        print(
            f"  {name:14} {boundaries[name].bytes_per_token:5} bytes a token "
            f"{estimate.energy.value / 1e6:10.3f} uJ {1e6 * estimate.latency.value:10.1f} us"
        )

# %% [markdown]
# `print(estimate.table())` shows where it goes, module by module, with the range of every figure.
