"""Meshes, sharding rules, and the layouts that parameters take.

Parameters have one stable layout, the canonical one, and one that a pipeline runs on:

| | canonical | placed on S stages |
|---|---|---|
| embed, head | (...) | (S, ...): the first (last) slot is used, the others are spare copies |
| blocks | (layers, ...) | (S, layers / S, ...) |
| boundaries.encoder | (S - 1, ...) | (S, ...): slot s sends to s + 1; the last is spare |
| boundaries.decoder | (S - 1, ...) | (S, ...): slot s receives from s - 1; the first is spare |

Placed arrays are sharded over "stage" along their first axis, so no parameter's gradient ever
crosses a stage boundary. Spare slots hold copies and not zeros: whatever is computed on them and
thrown away stays finite.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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
      ValueError: for a size below 1 or more places than devices.
    """
    sizes = {"data": data, "stage": stage, "model": model}
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
    if stages < 1 or layers % stages:
        fits = [n for n in range(1, layers + 1) if layers % n == 0]
        raise ValueError(f"stages={stages} must divide layers={layers}; use one of {fits}")
    return layers // stages


def stack(layers: Sequence[Any]) -> Any:
    """A list of equal trees -> one tree with a leading axis of `len(layers)`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def unstack(tree: Any) -> list[Any]:
    """The inverse of `stack`."""
    leaves, structure = jax.tree.flatten(tree)
    return [jax.tree.unflatten(structure, layer) for layer in zip(*leaves, strict=True)]


def place(params: dict[str, Any], stages: int) -> dict[str, Any]:
    """Canonical parameters -> placed on `stages` stages (see the module's table)."""
    layers = jax.tree.leaves(params["blocks"])[0].shape[0]
    per_stage = split_layers(layers, stages)
    everywhere = lambda leaf: jnp.broadcast_to(leaf[None], (stages, *leaf.shape))
    cut = lambda leaf: leaf.reshape(stages, per_stage, *leaf.shape[1:])
    placed = {
        "embed": jax.tree.map(everywhere, params["embed"]),
        "blocks": jax.tree.map(cut, params["blocks"]),
        "head": jax.tree.map(everywhere, params["head"]),
    }
    if stages > 1:
        boundaries = params["boundaries"]
        placed["boundaries"] = {
            "encoder": jax.tree.map(
                lambda leaf: jnp.concatenate([leaf, leaf[-1:]]), boundaries["encoder"]
            ),
            "decoder": jax.tree.map(
                lambda leaf: jnp.concatenate([leaf[:1], leaf]), boundaries["decoder"]
            ),
        }
    return placed


def unplace(placed: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `place`; the stages are read off the arrays."""
    join = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])
    params = {
        "embed": jax.tree.map(lambda leaf: leaf[0], placed["embed"]),
        "blocks": jax.tree.map(join, placed["blocks"]),
        "head": jax.tree.map(lambda leaf: leaf[-1], placed["head"]),
    }
    if "boundaries" in placed:
        params["boundaries"] = {
            "encoder": jax.tree.map(lambda leaf: leaf[:-1], placed["boundaries"]["encoder"]),
            "decoder": jax.tree.map(lambda leaf: leaf[1:], placed["boundaries"]["decoder"]),
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
