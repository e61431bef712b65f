"""Meshes, sharding rules, and the layouts that parameters take.

Parameters have one stable layout, the canonical one, and one that a pipeline runs on. A model of S
stages is placed on D ranks, D a divisor of S; each rank runs k = S / D virtual stages, one after
another:

| | canonical | placed on D ranks |
|---|---|---|
| embed, head | (...) | (D, ...): the first (last) slot is used, the others are spare copies |
| blocks | (layers, ...) | (D, layers / D, ...) |
| boundaries.encoder | (S - 1, ...) | (D, k, ...): [d, j] follows stage dk + j; last is spare |
| boundaries.decoder | (S - 1, ...) | (D, k, ...): [d, j] precedes stage dk + j; first is spare |

Placed arrays are sharded over "stage" along their first axis, so no parameter's gradient ever
crosses a link. Spare slots hold copies and not zeros: whatever is computed on them and thrown away
stays finite.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from snapjax.errors import check_types

AXES = ("data", "stage", "model")
Rules = Sequence[tuple[str, PartitionSpec]]


def make_mesh(
    data: int = 1, stage: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh with axes ("data", "stage", "model").

    Args:
      data, stage, model: sizes, each >= 1.
      devices: the devices to use; None for the first data * stage * model of `jax.devices()`.

    Raises:
      ValueError: for a size below 1 or more ranks than devices.
    """
    sizes = {"data": data, "stage": stage, "model": model}
    check_types("make_mesh", {name: (size, int) for name, size in sizes.items()})
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"make_mesh: {name}={size} must be at least 1")
    devices = list(jax.devices() if devices is None else devices)
    needed = data * stage * model
    if needed > len(devices):
        raise ValueError(
            f"make_mesh: data={data} x stage={stage} x model={model} needs {needed} devices, "
            f"found {len(devices)}; use smaller axes, or give a CPU more fake devices with "
            f'jax.config.update("jax_num_cpu_devices", {needed}) before anything else runs'
        )
    return jax.make_mesh(
        tuple(sizes.values()), AXES, (AxisType.Auto,) * len(AXES), devices=devices[:needed]
    )


def split_layers(layers: int, stages: int) -> int:
    """Layers of each stage.

    Raises:
      ValueError: when `stages` does not divide `layers`, naming the numbers that do.
    """
    check_types("split_layers", {"layers": (layers, int), "stages": (stages, int)})
    if stages < 1 or layers % stages:
        fits = [n for n in range(1, layers + 1) if layers % n == 0]
        raise ValueError(f"stages={stages} must divide layers={layers}; use one of {fits}")
    return layers // stages


def split_stages(stages: int, ranks: int) -> int:
    """Virtual stages of each rank.

    Raises:
      ValueError: when `ranks` does not divide `stages`, naming the numbers that do.
    """
    check_types("split_stages", {"stages": (stages, int), "ranks": (ranks, int)})
    if stages < 1 or ranks < 1 or stages % ranks:
        fits = [n for n in range(1, stages + 1) if stages % n == 0]
        raise ValueError(
            f"{ranks} ranks on the 'stage' axis must divide stages={stages}; use one of {fits}"
        )
    return stages // ranks


def stack(layers: Sequence[Any]) -> Any:
    """A list of equal trees -> one tree with a leading axis of `len(layers)`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def unstack(tree: Any) -> list[Any]:
    """The inverse of `stack`."""
    leaves, structure = jax.tree.flatten(tree)
    return [jax.tree.unflatten(structure, layer) for layer in zip(*leaves, strict=True)]


def place(params: dict[str, Any], ranks: int, stages: int | None = None) -> dict[str, Any]:
    """Canonical parameters -> placed on `ranks` ranks (see the module's table).

    Args:
      params: canonical parameters, or any tree of their layout, such as one half of `split_plan`.
      ranks: D, the size of the mesh's "stage" axis.
      stages: S, stages of the model, a multiple of D; None for D.

    Raises:
      ValueError: for stages that do not divide the layers, ranks that do not divide the stages, or
        boundaries of another number of stages.
    """
    stages = ranks if stages is None else stages
    virtual = split_stages(stages, ranks)
    check_parts("place", params, stages)
    everywhere = lambda leaf: jnp.broadcast_to(leaf[None], (ranks, *leaf.shape))

    def cut(leaf: Any) -> Any:
        per_rank = virtual * split_layers(leaf.shape[0], stages)
        return leaf.reshape(ranks, per_rank, *leaf.shape[1:])

    def slots(leaf: Any, spare_first: bool) -> Any:
        if leaf.shape[0] != stages - 1:
            raise ValueError(
                f"place: boundaries of {leaf.shape[0]} cuts do not fit stages={stages}, which has "
                f"{stages - 1}"
            )
        parts = [leaf[:1], leaf] if spare_first else [leaf, leaf[-1:]]
        return jnp.concatenate(parts).reshape(ranks, virtual, *leaf.shape[1:])

    placed = {
        "embed": jax.tree.map(everywhere, params["embed"]),
        "blocks": jax.tree.map(cut, params["blocks"]),
        "head": jax.tree.map(everywhere, params["head"]),
    }
    if stages > 1:
        boundaries = params["boundaries"]
        placed["boundaries"] = {
            "encoder": jax.tree.map(lambda leaf: slots(leaf, False), boundaries["encoder"]),
            "decoder": jax.tree.map(lambda leaf: slots(leaf, True), boundaries["decoder"]),
        }
    return placed


def check_parts(where: str, params: Any, stages: int) -> None:
    """Raises ValueError for parameters that lack a part of a model in so many stages."""
    parts = {"embed", "blocks", "head"} | ({"boundaries"} if stages != 1 else set())
    got = sorted(map(str, params)) if isinstance(params, Mapping) else type(params).__name__
    if not isinstance(params, Mapping) or not parts <= params.keys():
        raise ValueError(
            f"{where}: parameters have {got}, need {sorted(parts)} for stages={stages}"
        )


def unplace(placed: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `place`; ranks and stages are read off the arrays."""
    check_parts("unplace", placed, 1)
    join = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])
    params = {
        "embed": jax.tree.map(lambda leaf: leaf[0], placed["embed"]),
        "blocks": jax.tree.map(join, placed["blocks"]),
        "head": jax.tree.map(lambda leaf: leaf[-1], placed["head"]),
    }
    if "boundaries" in placed:
        ends = placed["boundaries"]
        params["boundaries"] = {
            "encoder": jax.tree.map(lambda leaf: join(leaf)[:-1], ends["encoder"]),
            "decoder": jax.tree.map(lambda leaf: join(leaf)[1:], ends["decoder"]),
        }
    return params


def match_rules(rules: Rules, params: Any) -> Any:
    """The `PartitionSpec` of every leaf: the first rule whose pattern is found in its path wins.

    Args:
      rules: ordered (regular expression, spec) pairs, matched against paths such as
        "blocks/attention/query/kernel".
      params: tree of arrays or `ShapeDtypeStruct`s.

    Raises:
      ValueError: when no rule matches a leaf, or its spec has more axes than the leaf.

    Example:
      >>> rules = [("kernel", PartitionSpec(None, "model")), ("", PartitionSpec())]
      >>> specs = match_rules(rules, {"kernel": jnp.zeros((2, 4)), "bias": jnp.zeros(4)})
      >>> tuple(specs["kernel"]), tuple(specs["bias"])
      ((None, 'model'), ())
    """

    def spec(path: Any, leaf: Any) -> PartitionSpec:
        name = path_name(path)
        for pattern, candidate in rules:
            if re.search(pattern, name):
                if len(candidate) > len(leaf.shape):
                    raise ValueError(
                        f"sharding rule {pattern!r}: {candidate} has more axes than {name!r} "
                        f"of shape {leaf.shape}"
                    )
                return candidate
        raise ValueError(
            f"no sharding rule matches {name!r}; end the rules with ('', PartitionSpec())"
        )

    return jax.tree_util.tree_map_with_path(spec, params)


def shardings(mesh: Mesh, specs: Any) -> Any:
    """A tree of specs -> a tree of `NamedSharding`s on `mesh`, after checking the axis names."""

    def one(spec: PartitionSpec) -> NamedSharding:
        for axis in jax.tree.leaves(tuple(spec)):
            if axis not in mesh.axis_names:
                raise ValueError(f"{spec}: axis {axis!r} is not in the mesh's {mesh.axis_names}")
        return NamedSharding(mesh, spec)

    return jax.tree.map(one, specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))


def put_placed(mesh: Mesh, placed: dict[str, Any]) -> dict[str, Any]:
    """Placed parameters onto the mesh: every first axis over "stage"."""
    return jax.device_put(placed, NamedSharding(mesh, PartitionSpec("stage")))


def path_name(path: Any) -> str:
    """A tree path as "a/b/c"."""
    return "/".join(str(getattr(entry, "key", getattr(entry, "idx", entry))) for entry in path)
