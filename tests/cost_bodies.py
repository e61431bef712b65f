"""Functions of a device, and the meshes they run on, for `cost_sharded` and other tests."""

from collections.abc import Callable

import jax
from cost_programs import Program, loop, shape
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

ROW, GRID, CUBE = {"x": 8}, {"data": 2, "model": 4}, {"a": 2, "b": 2, "c": 2}
CHAIN = [(i, i + 1) for i in range(7)]
RING = [(i, (i + 1) % 8) for i in range(8)]


def mesh_of(sizes):
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * len(sizes))


def on_mesh(sizes, body: Callable, ins, outs, check_vma=True) -> Callable:
    return jax.shard_map(
        body, mesh=mesh_of(sizes), in_specs=ins, out_specs=outs, check_vma=check_vma
    )


def row(body, ins=None, outs=None):
    """On 8 devices in a row, arrays divided along their first axis unless it is said otherwise."""
    return on_mesh(ROW, body, P("x") if ins is None else ins, P("x") if outs is None else outs)


def both(name, body, args, ins, outs, sizes=ROW, loose_body=None, **expected):
    """The same program under check_vma and without it."""
    for check in (True, False):
        function = on_mesh(sizes, body if check else loose_body or body, ins, outs, check)
        label = name if check else f"{name}, unchecked"
        yield Program(label, function, args, mesh=sizes, **expected)


def scanned_ring(x):
    return loop(lambda y: lax.ppermute(y, "x", RING), x, 10)


def one_hop_or_none(x):
    first = lax.axis_index("x") == 0
    y = lax.cond(first, lambda: x @ x.T @ x, lambda: x)
    return lax.ppermute(y, "x", CHAIN)


def tensor_parallel(x, w, v):
    """Columns of w and rows of v on each device: one psum (Shoeybi et al. 2019)."""
    return lax.psum(jax.nn.relu(x @ w) @ v, "model")


def vary(x, *axes):
    return lax.pcast(x, axes, to="varying")


def gathered_product(x, w):
    return x @ lax.all_gather(w, "x", tiled=True)


def two_maps(x):
    first = row(lambda x: x * 2, P("x"), P("x"))
    second = row(lambda x: x + 1, P(None, "x"), P(None, "x"))
    return second(first(x))


def auto(x, w):
    sizes = {"data": 2, "model": 4}
    w = lax.with_sharding_constraint(w, NamedSharding(mesh_of(sizes), P("model", None)))
    return x @ w


def cube(x, w):
    """5 ticks of a pipeline over a, with sharded weights gathered over b and a psum over c."""

    def tick(y, _):
        y = lax.ppermute(y, "a", [(0, 1)])
        y = lax.psum(y @ lax.all_gather(w, "b", tiled=True), "c")
        return vary(y, "c"), None

    return lax.scan(tick, vary(x, "b"), None, length=5)[0]


@jax.custom_vjp
def folded(x):
    return loop(lambda y: y @ x, x, 2)


folded.defvjp(lambda x: (folded(x), x), lambda x, cotangent: (cotangent @ x,))


@jax.custom_jvp
def doubled(x):
    return x + tiled_square(x)


doubled.defjvp(lambda primals, tangents: (doubled(*primals), tangents[0]))


def tiled_square(x):
    """x @ x by a kernel of 2 programs."""

    def kernel(a, b, out):
        out[...] = a[...] @ b[...]

    return pl.pallas_call(
        kernel,
        grid=(2,),
        in_specs=[pl.BlockSpec((4, 8), lambda i: (i, 0)), pl.BlockSpec((8, 8), lambda i: (0, 0))],
        out_specs=pl.BlockSpec((4, 8), lambda i: (i, 0)),
        out_shape=shape(8, 8),
        interpret=True,
    )(x, x)


def nested(x):
    """A kernel in a custom_jvp in a jit, beside a scan in a custom_vjp in a remat, all of it in the
    branch of a cond in a scan in a shard_map."""

    def step(y, _):
        work = lambda: jax.checkpoint(folded)(jax.jit(doubled)(y))
        return lax.ppermute(lax.cond(y.sum() > 0, work, lambda: y), "x", RING), None

    return lax.scan(step, x, None, length=3)[0]
