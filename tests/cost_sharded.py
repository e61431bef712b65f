"""Small programs on 8 devices whose costs were counted by hand; see `cost_programs`.

A ring over n devices sends, of a payload of B bytes on each: psum 2 (n-1)/n B, all_gather (n-1) B,
reduce_scatter and all_to_all (n-1)/n B; ppermute B.
"""

import jax
import jax.numpy as jnp
from cost_bodies import (
    CHAIN,
    CUBE,
    GRID,
    RING,
    ROW,
    auto,
    both,
    cube,
    gathered_product,
    mesh_of,
    nested,
    on_mesh,
    one_hop_or_none,
    row,
    scanned_ring,
    tensor_parallel,
    two_maps,
)
from cost_programs import Program, shape
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

# Of each device (8, 8) float32: 256 bytes. Over 8 devices.
x8 = shape(64, 8)

SHARDED = [
    # 2 x 7/8 x 256.
    *both("psum", lambda x: lax.psum(x, "x"), (x8,), P("x"), P(), bytes={"x": 448}),
    # The same for a maximum; axes as a tuple.
    *both("pmax", lambda x: lax.pmax(x, ("x",)), (x8,), P("x"), P(), bytes={"x": 448}),
    # A mean divides 64 elements afterwards.
    *both("pmean", lambda x: lax.pmean(x, "x"), (x8,), P("x"), P(), bytes={"x": 448}),
    # 7 x 256.
    *both(
        "all_gather",
        lambda x: lax.all_gather(x, "x", tiled=True),
        (x8,),
        P("x"),
        P("x"),
        bytes={"x": 7 * 256},
    ),
    # To the same value everywhere: the same bytes.
    Program(
        "all_gather to invarying",
        row(lambda x: lax.all_gather(x, "x", to="invarying"), P("x"), P()),
        (x8,),
        mesh=ROW,
        bytes={"x": 7 * 256},
    ),
    # 7/8 x 256.
    *both(
        "reduce_scatter",
        lambda x: lax.psum_scatter(x, "x", tiled=True),
        (x8,),
        P("x"),
        P("x"),
        bytes={"x": 224},
    ),
    *both(
        "all_to_all",
        lambda x: lax.all_to_all(x, "x", 0, 0, tiled=True),
        (x8,),
        P("x"),
        P("x"),
        bytes={"x": 224},
    ),
    # Every device of a ring sends its 256 bytes.
    *both("ring", lambda x: lax.ppermute(x, "x", RING), (x8,), P("x"), P("x"), bytes={"x": 256}),
    # In a chain all but the last do: the busiest still sends 256.
    *both("chain", lambda x: lax.ppermute(x, "x", CHAIN), (x8,), P("x"), P("x"), bytes={"x": 256}),
    # A pair with itself crosses no link.
    Program(
        "permutation that stays",
        row(lambda x: lax.ppermute(x, "x", [(i, i) for i in range(8)])),
        (x8,),
        mesh=ROW,
    ),
    # 10 hops.
    *both("ring in a scan", scanned_ring, (x8,), P("x"), P("x"), bytes={"x": 2560}),
    # A device's 64 bfloat16 are 128 bytes whatever a CPU makes of them, 64 int4 are 32, 64 bools 8,
    # and 9 bools 2.
    *(
        Program(
            title,
            row(lambda x: lax.ppermute(x, "x", RING)),
            (shape(*sizes, dtype=dtype),),
            mesh=ROW,
            bytes={"x": bytes_},
            hlo=(f"{title.partition(',')[0]} in wider elements",),
        )
        for title, sizes, dtype, bytes_ in (
            ("bfloat16", (64, 8), jnp.bfloat16, 128),
            ("int4", (64, 8), jnp.int4, 32),
            ("bool", (64, 8), jnp.bool_, 8),
            ("bool, not a whole byte", (24, 3), jnp.bool_, 2),
        )
    ),
    # Only the first device multiplies: (8,8) x (8,8), twice; the mean over the devices is 1/8.
    *both(
        "cond on the place, dearest",
        one_hop_or_none,
        (x8,),
        P("x"),
        P("x"),
        macs=2 * 512,
        bytes={"x": 256},
    ),
    *both(
        "cond on the place, exact",
        one_hop_or_none,
        (x8,),
        P("x"),
        P("x"),
        macs=2 * 512 / 8,
        bytes={"x": 256},
        options={"cond": "exact"},
        hlo=("the HLO counts the dearest branch",),
    ),
    # (8, 8) x (64, 4) gathered from 8 shards of (8, 4), 128 bytes: 7 x 128. Products: 8 x 64 x 4,
    # x being (8, 64) here.
    *both(
        "gathered weights",
        gathered_product,
        (shape(64, 64), shape(64, 4)),
        (P("x"), P("x")),
        P("x"),
        macs=8 * 64 * 4,
        bytes={"x": 7 * 128},
    ),
    # Its gradient: forward 2048; of the weights 2048; x is not differentiated. The cotangent of the
    # gathered weights, (64, 4) float32 = 1024 bytes, is scattered: 7/8 x 1024. The products with
    # the cotangent of ones remain. The forward's gather is dead code: nothing needs w's value.
    Program(
        "gradient of gathered weights",
        jax.grad(lambda w, x: (row(gathered_product, (P("x"), P("x")), P("x"))(x, w) ** 2).sum()),
        (shape(64, 4), shape(64, 64)),
        macs=2 * 8 * 64 * 4,
        mesh=ROW,
        bytes={"x": 7 * 128 + 7 / 8 * 1024},
    ),
    # On 2 x 4: x (4, 16), w (16, 8 of 32), v (8 of 32, 16): 4 x 16 x 8 twice. The psum of (4, 16)
    # float32, 256 bytes: 2 x 3/4 x 256.
    *both(
        "tensor parallel",
        tensor_parallel,
        (shape(8, 16), shape(16, 32), shape(32, 16)),
        (P("data"), P(None, "model"), P("model")),
        P("data"),
        sizes=GRID,
        macs=2 * 4 * 16 * 8,
        bytes={"model": 384},
    ),
    # Over both axes at once: (8, 8) float32, 256 bytes. Over model 2 x 3/4 x 256 = 384, and over
    # data on the quarter that is left 2 x 1/2 x 64: together 2 x 7/8 x 256.
    *both(
        "psum over two axes",
        lambda x: lax.psum(x, ("data", "model")),
        (x8,),
        P(("data", "model")),
        P(),
        sizes=GRID,
        bytes={"data": 64, "model": 384},
    ),
    # Over model 3 x 256, over data the 4 x 256 that a device then has.
    *both(
        "all_gather over two axes",
        lambda x: lax.all_gather(x, ("data", "model")),
        (x8,),
        P(("data", "model")),
        P(("data", "model")),
        sizes=GRID,
        bytes={"data": 1024, "model": 768},
    ),
    # Over model 3/4 x 256, over data 1/2 x 64.
    *both(
        "reduce_scatter over two axes",
        lambda x: lax.psum_scatter(x, ("data", "model"), tiled=True),
        (x8,),
        P(("data", "model")),
        P(("data", "model")),
        sizes=GRID,
        bytes={"data": 32, "model": 192},
    ),
    # One axis of two: the other one is silent.
    *both(
        "psum over one axis of two",
        lambda x: lax.psum(x, "model"),
        (x8,),
        P(("data", "model")),
        P("data"),
        sizes=GRID,
        bytes={"model": 384},
    ),
    # The flat ring over 2 x 4: all hops but two stay in a row of 4.
    Program(
        "ring over two axes",
        on_mesh(
            GRID,
            lambda x: lax.ppermute(x, ("data", "model"), RING),
            P(("data", "model")),
            P(("data", "model")),
        ),
        (x8,),
        mesh=GRID,
        bytes={"data": 256, "model": 256},
    ),
    # Per tick (4, 8) x (8, 8) = 256 products; the hop 4 x 8 x 4 = 128 bytes; half of w, 128 bytes;
    # psum 2 x 1/2 x 128. 5 ticks; the gather does not change, and XLA takes it out of the loop.
    Program(
        "pipeline, sharded weights and tensor parallel",
        on_mesh(CUBE, cube, (P(("a", "c")), P("b")), P(("a", "b", "c"))),
        (shape(16, 8), shape(8, 8)),
        macs=5 * 256,
        mesh=CUBE,
        bytes={"a": 5 * 128, "b": 5 * 128, "c": 5 * 128},
        hlo=("loop-invariant",),
    ),
    # Three axes: 256 bytes; over c 256, over b 128, over a 64: 2 x 7/8 x 256 in all.
    *both(
        "psum over three axes",
        lambda x: lax.psum(x, ("a", "b", "c")),
        (x8,),
        P(("a", "b", "c")),
        P(),
        sizes=CUBE,
        bytes={"a": 64, "b": 128, "c": 256},
    ),
    # Rows become columns between the two: each device keeps an eighth of its 8 x 64 float32,
    # 2048 bytes, and sends 7/8 of them.
    Program("resharding between two maps", two_maps, (shape(64, 64),), mesh=ROW, bytes={"x": 1792}),
    # Shards of 8 x 64 float32 that the second map takes whole: 7 x 2048.
    Program(
        "gathering between two maps",
        lambda x: row(lambda x: x + 1, P(), P())(row(lambda x: x * 2)(x)),
        (shape(64, 64),),
        mesh=ROW,
        bytes={"x": 7 * 2048},
    ),
    # What is whole everywhere is cut for free.
    Program(
        "cutting between two maps",
        lambda x: row(lambda x: x + 1)(row(lambda x: x * 2, P(), P())(x)),
        (shape(64, 64),),
        mesh=ROW,
    ),
    # (16, 64) x (64, 16 of 16), contracted over model: 16 x 64 x 16 / 4 on each device.
    Program(
        "auto-sharded",
        jax.jit(
            auto,
            in_shardings=(None, NamedSharding(mesh_of(GRID), P("model", None))),
        ),
        (shape(16, 64), shape(64, 16)),
        macs=16 * 64 * 16 / 4,
        mesh=GRID,
        hlo=("auto-sharded program",),
    ),
    # 3 x (the kernel's 512, the scan's 2 x 512); 3 hops of 256 bytes.
    Program(
        "nested every way",
        on_mesh(ROW, nested, P("x"), P("x"), False),
        (x8,),
        macs=3 * (512 + 2 * 512),
        mesh=ROW,
        bytes={"x": 3 * 256},
    ),
    # Backward one more product of folded's own rule; the remat runs its scan again only where its
    # result is needed, and the rule needs its argument alone. 3 hops forward, 3 back.
    Program(
        "gradient of nested every way",
        jax.grad(lambda x: (on_mesh(ROW, nested, P("x"), P("x"), False)(x) ** 2).sum()),
        (x8,),
        macs=3 * (512 + 2 * 512) + 3 * 512,
        mesh=ROW,
        bytes={"x": 6 * 256},
    ),
    # The psum's result is not used.
    Program(
        "dead collective",
        row(lambda x: (lax.psum(x, "x"), x + 1)[1]),
        (x8,),
        mesh=ROW,
    ),
    # The transpose of a psum is a cast: one psum forward; the cotangent of x is the same for all.
    Program(
        "gradient through a psum",
        jax.grad(lambda x: (row(lambda x: lax.psum(x, "x"), P("x"), P())(x) ** 2).sum()),
        (x8,),
        mesh=ROW,
        bytes={"x": 448},
    ),
]
