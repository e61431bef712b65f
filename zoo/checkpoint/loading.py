"""Loads a checkpoint, or some of its parts, into the shape of a model."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding

from zoo.checkpoint.entries import Entries, differences, entries_of, without_empty
from zoo.checkpoint.folder import (
    RECORD,
    DamagedCheckpoint,
    PathLike,
    checkpoints,
    damaged,
    find,
    is_checkpoint,
    read_record,
    verify,
)
from zoo.config.old_names import current_tree, saved_tree, with_added, without_added

Check = Callable[[dict[str, dict], dict[str, Any]], None]


def load(
    folder: PathLike,
    abstract: dict[str, dict],
    sharding: Any = None,
    *,
    model: str | None = None,
    check: Check | None = None,
    fallback: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> tuple[dict[str, dict], dict[str, Any]]:
    """Loads parts of a checkpoint, bit for bit, and the record.

    Every file of these parts is compared with its checksum first, and their trees with the ones
    asked for, before any array is read. Nothing is cast, left out or filled in. Other parts are
    neither read nor known.

    In several processes every one that asks reads the folder by itself.

    Args:
      folder: a run's folder (its newest checkpoint is loaded) or one checkpoint's own.
      abstract: the parts that are asked for, {"params": ...}, nested dicts of
        jax.ShapeDtypeStruct, e.g. of `jax.eval_shape(lambda key: init(config, key), key)`.
      sharding: where the arrays go: one jax.sharding.Sharding for all, or a dict of them over the
        tree or its upper part; its devices may belong to several processes. None: the abstract
        leaf's own (on the mesh of jax.set_mesh if it is abstract), else this process's first
        device.
      model: the name of the model asked for; a record of another one is refused.
      check: called with the tree and the record; what it says in a ValueError makes the checkpoint
        a damaged one.
      fallback: pass over damaged checkpoints, from the newest of a run's folder to the oldest. One
        that is whole but of another model is still an error.
      on_skip: called with the error message of every checkpoint passed over.

    Returns:
      tree: like abstract, of jax.Array.
      record: as it was saved, and as "path" the checkpoint that was loaded.

    Raises:
      ValueError: no checkpoint there, or one of another model; the last lists every missing,
        unexpected and differing entry.
      DamagedCheckpoint: naming the files that are damaged (a ValueError).
    """
    newest = find(folder)
    several = fallback and not is_checkpoint(Path(folder).absolute())
    candidates = checkpoints(newest.parent)[::-1] if several else [newest]
    passed = []
    for path in candidates:
        try:
            tree, record = _load(path, abstract, sharding, model)
            if check is not None:
                _checked(check, tree, record, path)
            return tree, record
        except DamagedCheckpoint as error:
            if not fallback:
                raise
            passed.append(str(error))
            if on_skip:
                on_skip(str(error))
    raise DamagedCheckpoint(
        f"folder={str(folder)!r} holds no checkpoint that is whole\n" + "\n".join(passed)
    )


def _load(
    path: Path, abstract: dict[str, dict], sharding: Any, model: str | None
) -> tuple[dict[str, dict], dict[str, Any]]:
    entries_of("abstract", abstract)  # what is wrong with it is said first
    held = verify(path, abstract)
    record = read_record(path)
    here = sorted(held & abstract.keys())
    saved = {name: _apart(_metadata, path / name) for name in here}
    in_file = current_tree(saved)
    asked = entries_of("abstract", without_added(abstract, in_file))
    _compare(path, record, in_file, asked, held - abstract.keys(), model)

    placed = _with_sharding(abstract, sharding)
    arrays: list[jax.Array] = []
    for name in sorted(abstract):  # as jax orders the leaves
        # One part at a time, so that no more than one is held twice.
        full = without_empty(abstract[name])
        if full:
            wanted = saved_tree(without_added(full, in_file[name], name), saved[name], name)
            read = current_tree(_apart(_read, path / name, wanted), name)
            read = with_added(read, full, lambda leaf: np.zeros(leaf.shape, leaf.dtype), name)
            # In the order of the tree that is asked for, whatever the file calls its entries.
            host = jax.tree.leaves(jax.tree.map(lambda _, leaf: leaf, full, read))
            arrays += map(_place, host, jax.tree.leaves(placed[name]))
    return jax.tree.unflatten(jax.tree.structure(abstract), arrays), record


def _checked(check: Check, tree: dict[str, dict], record: dict[str, Any], path: Path) -> None:
    try:
        check(tree, record)
    except ValueError as error:
        raise damaged(path, f"{RECORD}: {error}") from error


def contents(folder: PathLike) -> Entries:
    """Dtype and shape of every array of a checkpoint by its path, "params/blocks/kernel".

    Args:
      folder: a run's folder (of its newest checkpoint) or one checkpoint's own.

    Raises:
      ValueError: no checkpoint there, or it is damaged.
    """
    path = find(folder)
    held = sorted(verify(path, ()))
    verify(path, held)
    return entries_of(str(path), {name: _apart(_metadata, path / name) for name in held})


def _apart(function: Callable[..., Any], path: Path, *arguments: Any) -> Any:
    """Calls a function of Orbax on a part of a checkpoint in a thread of its own, and waits for it
    even when interrupted.

    KeyboardInterrupt comes to the main thread. Inside Orbax it is taken for a failed read, or it
    leaves threads behind that wait for ever, so that the process cannot end.

    Raises:
      DamagedCheckpoint: Orbax cannot read the part, though it has its checksums.
    """
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(function, path, *arguments).result()
        except MemoryError:
            raise
        except Exception as error:  # whatever Orbax meets in its files
            raise damaged(path.parent, f"{path.name}: {type(error).__name__}: {error}") from error


def _alone() -> Any:
    """Has Orbax wait for no other process: each reads when it likes. For the calling thread."""
    from orbax.checkpoint import v1 as ocp

    context, process = ocp.Context(), jax.process_index()
    context.multiprocessing.primary_host = process
    context.multiprocessing.active_processes = {process}
    context.multiprocessing.barrier_sync_key_prefix = f"process_{process}"
    return context


def _metadata(path: Path) -> Any:
    from orbax.checkpoint import v1 as ocp

    with _alone():
        return ocp.metadata(path).metadata


def _read(path: Path, abstract: dict) -> Any:
    from orbax.checkpoint import v1 as ocp

    # numpy arrays ask for numpy arrays; one element that is repeated takes no memory.
    host = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), abstract)
    with _alone():
        return ocp.load(path, host)


def _place(host: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
    """The array on its devices, of which this process fills its own."""
    whole = np.asarray(host)
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: whole[index])


def _compare(
    path: Path,
    record: dict[str, Any],
    in_file: dict[str, Any],
    asked: Any,
    others: Iterable[str],
    model: str | None,
) -> None:
    """Raises one error that lists every entry in which file and model differ."""
    found = entries_of(str(path), in_file) if in_file else {}
    lines = differences(found, asked, "the file", "the model")
    if lines or (model is not None and record.get("model", model) != model):
        of = f" of model {record['model']!r}" if "model" in record else ""
        wanted = f"model {model!r}" if model else "the model asked for"
        head = f"checkpoint {path}{of} does not fit {wanted}"
        count, *lines = lines or ["it has the same entries"]
        if others:
            lines.append(f"  not asked for: {', '.join(sorted(others))}")
        raise ValueError("\n".join([f"{head}: {count}", *lines]))


def _with_sharding(abstract: dict, sharding: Any) -> dict:
    """The abstract tree with a sharding on every leaf."""
    if sharding is None:
        chosen = jax.tree.map(_own_sharding, abstract)
    else:
        chosen = jax.tree.broadcast(sharding, abstract)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), abstract, chosen
    )


def _own_sharding(leaf: Any) -> jax.sharding.Sharding:
    own = getattr(leaf, "sharding", None)
    if own is None:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if isinstance(own, NamedSharding) and isinstance(own.mesh, AbstractMesh):
        # From eval_shape under jax.set_mesh, which knows axes and no devices.
        mesh = jax.sharding.get_mesh()
        if mesh.empty:
            raise ValueError(
                f"abstract: sharding {own} names no devices; call load under jax.set_mesh, or give "
                "sharding"
            )
        return NamedSharding(mesh, own.spec)
    return own
