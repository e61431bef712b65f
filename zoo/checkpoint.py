"""Checkpoints of a run: parameters through Orbax, and a JSON record of what they belong to.

    folder/
      checkpoint-000007/       one save; the number counts saves, it is not the training step
        params/                written by orbax.checkpoint.v1
        record.json            what the caller says about it: model, variant, step, metrics
        checksums.json         size and SHA-256 of every file above
      checkpoint-000008/
      .partial-<random>/       a save that was interrupted, or an old one half removed

A save is written in full to a hidden folder, which then takes its name in one rename. So a named
checkpoint is complete, however and whenever the process was stopped, and none is ever overwritten.
Saves are numbered because the step is not a safe name: a run restarted from an older checkpoint
comes by the same steps again. One process at a time saves into a folder.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding

from zoo.files import to_json, write_json

_NAME = re.compile(r"checkpoint-(\d{6,})")
_PARTIAL = ".partial-"
_PARAMS, _RECORD, _CHECKSUMS = "params", "record.json", "checksums.json"

PathLike = str | os.PathLike[str]
Entries = dict[str, tuple[str, tuple[int, ...]]]  # path in the tree -> (dtype, shape)


def save(folder: PathLike, params: dict, record: dict[str, Any], *, keep: int = 2) -> Path:
    """Saves `params` and `record` as the newest checkpoint of `folder`, and removes old ones.

    An interrupt at any moment (an exception, KeyboardInterrupt, a killed process) leaves the
    checkpoints that were there, or those and the new one. What it leaves besides is hidden, and
    removed by the next save. KeyboardInterrupt waits for the arrays that are being written.

    Args:
      folder: the run's folder; made if absent.
      params: nested dict of jax or numpy arrays; keys are strings without "." and "/".
      record: what belongs to it, as JSON (see `zoo.files.to_json`: NaN and infinities become null).
        `load` names record["model"] in its errors.
      keep: number of checkpoints to leave in the folder, at least 1.

    Returns:
      The path of the new checkpoint.

    Raises:
      ValueError: params, record or keep are not as above.
    """
    if keep < 1:
        raise ValueError(f"keep={keep} would remove the checkpoint just saved; give at least 1")
    if not isinstance(record, dict):
        raise ValueError(f"record must be a dict, got {type(record).__name__}")
    content = to_json(record, "record")
    _entries("params", params)  # an error here, before anything is written
    folder = Path(folder).absolute()  # Orbax takes absolute paths only
    folder.mkdir(parents=True, exist_ok=True)
    for debris in folder.glob(_PARTIAL + "*"):
        shutil.rmtree(debris, ignore_errors=True)

    partial = _hidden(folder)
    partial.mkdir()
    try:
        _write_params(partial / _PARAMS, params)
        write_json(partial / _RECORD, content)
        write_json(partial / _CHECKSUMS, _checksums(partial))
        path = folder / f"checkpoint-{_number(checkpoints(folder)) + 1:06d}"
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in checkpoints(folder)[:-keep]:
        # Renamed first: a removal that stops halfway must not leave half a checkpoint under a name.
        removed = _hidden(folder)
        os.rename(old, removed)
        shutil.rmtree(removed, ignore_errors=True)  # the next save tries again
    return path


def checkpoints(folder: PathLike) -> list[Path]:
    """The complete checkpoints of a run's folder, oldest first; none if there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(named, key=lambda path: _number([path]))


def latest(folder: PathLike) -> Path | None:
    """The newest complete checkpoint of a run's folder, or None (start afresh)."""
    paths = checkpoints(folder)
    return paths[-1] if paths else None


def load(
    folder: PathLike, abstract_params: dict, sharding: Any = None, *, model: str | None = None
) -> tuple[dict, dict[str, Any]]:
    """Loads a checkpoint into the shape of a model: the parameters, bit for bit, and the record.

    Every file is compared with its checksum first, and the file's tree with the model's, before any
    array is read. Nothing is cast, left out or filled in.

    Args:
      folder: a run's folder (its newest checkpoint is loaded) or one checkpoint's own.
      abstract_params: nested dict of jax.ShapeDtypeStruct, e.g. of
        `jax.eval_shape(lambda key: init(config, key), key)`.
      sharding: where the arrays go: one jax.sharding.Sharding for all, or a dict of them over the
        tree or its upper part. None: the abstract leaf's own (on the mesh of jax.set_mesh if it
        is abstract), else the first device.
      model: the name of the model asked for; a record of another one is refused.

    Returns:
      params: like abstract_params, of jax.Array.
      record: as it was saved.

    Raises:
      ValueError: no checkpoint there, a damaged one, or one of another model; the last lists every
        missing, unexpected and differing entry.
    """
    path = _find(folder)
    _verify(path)
    record = json.loads((path / _RECORD).read_text())
    from orbax.checkpoint import v1 as ocp

    in_file = _entries(str(path), _apart(ocp.metadata, path / _PARAMS).metadata)
    _compare(path, record, in_file, _entries("abstract_params", abstract_params), model)
    placed = _with_sharding(abstract_params, sharding)
    arrays = jax.tree.leaves(_apart(ocp.load, path / _PARAMS, _without_empty(placed)))
    return jax.tree.unflatten(jax.tree.structure(abstract_params), arrays), record


def load_record(folder: PathLike) -> dict[str, Any]:
    """The record of a checkpoint, given as in `load`, without its parameters.

    Raises:
      ValueError: no checkpoint there, or its record is damaged.
    """
    path = _find(folder)
    _verify(path, lambda name: name == _RECORD)
    return json.loads((path / _RECORD).read_text())


def _write_params(path: Path, params: dict) -> None:
    from orbax.checkpoint import v1 as ocp  # 0.3 s, which readers of records need not wait for

    # Orbax refuses numpy scalars, and takes numpy arrays.
    arrays = jax.tree.map(lambda x: x if isinstance(x, jax.Array) else np.asarray(x), params)
    _apart(ocp.save, path, _without_empty(arrays))


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls the function in a thread of its own, and waits for it even when interrupted.

    KeyboardInterrupt comes to the main thread. Inside Orbax it is taken for a failed read, or it
    leaves threads behind that wait for ever, so that the process cannot end.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def _without_empty(tree: dict) -> dict:
    """The tree without its empty dicts (a code with no parameters), which Orbax would compare."""
    full = {k: _without_empty(v) if isinstance(v, dict) else v for k, v in tree.items()}
    return {k: v for k, v in full.items() if not isinstance(v, dict) or v}


def _hidden(folder: Path) -> Path:
    """A new name that no reader takes for a checkpoint."""
    return folder / (_PARTIAL + uuid.uuid4().hex)


def _number(paths: list[Path]) -> int:
    """The number of the last of `paths`; 0 if there is none."""
    return int(paths[-1].name.rpartition("-")[2]) if paths else 0


def _find(folder: PathLike) -> Path:
    """The checkpoint that `folder` is, or the newest one in it."""
    path = Path(folder).absolute()
    if not path.is_dir():
        raise ValueError(f"folder={str(folder)!r} does not exist or is not a folder ({path})")
    if _NAME.fullmatch(path.name) or (path / _CHECKSUMS).is_file():
        return path
    newest = latest(path)
    if newest is None:
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"folder={str(folder)!r} holds no checkpoint: a folder checkpoint-NNNNNN is needed, "
            f"found {found}"
        )
    return newest


def _checksums(path: Path, only: Callable[[str], bool] = lambda name: True) -> dict[str, str]:
    """Size and SHA-256 of every file below `path` by its relative name, without checksums.json."""
    sums = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name != _CHECKSUMS and only(name):
            with open(file, "rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            sums[name] = f"{file.stat().st_size} bytes, SHA-256 {digest}"
    return sums


def _verify(path: Path, only: Callable[[str], bool] = lambda name: True) -> None:
    """Compares the files with their recorded checksums.

    Orbax by itself loads wrong numbers from an array file with one flipped bit. The recorded names
    are compared with those found on the disk, and never used to open anything.
    """
    try:
        recorded = json.loads((path / _CHECKSUMS).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"checkpoint {path} is damaged: {_CHECKSUMS}: {error}") from error
    if not isinstance(recorded, dict):
        raise ValueError(f"checkpoint {path} is damaged: {_CHECKSUMS} is not a JSON object")
    recorded = {name: value for name, value in recorded.items() if only(name)}
    found = _checksums(path, only)
    wrong = [
        f"  {name}: saved {recorded.get(name, 'nothing')}; found {found.get(name, 'nothing')}"
        for name in sorted(recorded.keys() | found.keys())
        if recorded.get(name) != found.get(name)
    ]
    if wrong:
        others = [p.name for p in checkpoints(path.parent) if p != path]
        remedy = f"; also there: {', '.join(others)}" if others else ""
        raise ValueError("\n".join([f"checkpoint {path} is damaged{remedy}", *wrong]))


def _entries(what: str, tree: Any) -> Entries:
    """Dtype and shape of every leaf by its path, "blocks/attention/kernel"."""
    entries: Entries = {}

    def walk(prefix: tuple[str, ...], node: Any) -> None:
        where = "/".join(prefix)
        if isinstance(node, dict):
            for key, child in node.items():
                # Orbax joins keys by ".", and then mixes up {"a.b": x} and {"a": {"b": y}}.
                if not isinstance(key, str) or not key or set(key) & set("./"):
                    raise ValueError(
                        f"{what}: key {key!r} below {where!r} must be a string without '.' and '/'"
                    )
                walk((*prefix, key), child)
        elif not hasattr(node, "shape") or not hasattr(node, "dtype"):
            raise ValueError(f"{what}: {where!r} is a {type(node).__name__}, not an array")
        elif 0 in node.shape:
            raise ValueError(f"{what}: {where!r} of shape {node.shape} is empty; leave it out")
        elif not _holds(node):
            raise ValueError(
                f"{what}: {where!r} has dtype {node.dtype}, which jax.Array cannot hold as numbers "
                "here; convert it (float64 to float32, a PRNG key by jax.random.key_data)"
            )
        else:
            entries[where] = (str(node.dtype), tuple(node.shape))

    if not isinstance(tree, dict):
        raise ValueError(f"{what} must be a nested dict of arrays, got {type(tree).__name__}")
    walk((), tree)
    if not entries:
        raise ValueError(f"{what} holds no array")
    return entries


def _holds(leaf: Any) -> bool:
    """Whether jax keeps the leaf's dtype: not 64 bits unless enabled, no text, no PRNG keys."""
    dtype = leaf.dtype
    if not isinstance(dtype, np.dtype) or dtype.kind in "OSUMm":
        return False
    host = isinstance(leaf, np.ndarray | np.generic)
    return not host or jax.dtypes.canonicalize_dtype(dtype) == dtype


def _compare(
    path: Path, record: dict[str, Any], in_file: Entries, in_model: Entries, model: str | None
) -> None:
    """Raises one error that lists every entry in which file and model differ."""

    def described(entries: Entries, name: str) -> str:
        dtype, shape = entries[name]
        return f"{dtype} {shape}"

    missing = [
        f"  missing: {name}: the model has {described(in_model, name)}"
        for name in sorted(in_model.keys() - in_file.keys())
    ]
    unexpected = [
        f"  unexpected: {name}: the file has {described(in_file, name)}"
        for name in sorted(in_file.keys() - in_model.keys())
    ]
    different = [
        f"  different: {name}: the file has {described(in_file, name)}, "
        f"the model {described(in_model, name)}"
        for name in sorted(in_file.keys() & in_model.keys())
        if in_file[name] != in_model[name]
    ]
    renamed = model is not None and record.get("model", model) != model
    if missing or unexpected or different or renamed:
        of = f" of model {record['model']!r}" if "model" in record else ""
        asked = f"model {model!r}" if model else "the model asked for"
        raise ValueError(
            f"checkpoint {path}{of} does not fit {asked}: {len(missing)} missing, "
            f"{len(unexpected)} unexpected, {len(different)} different entries\n"
            + "\n".join(missing + unexpected + different)
        )


def _with_sharding(abstract_params: dict, sharding: Any) -> dict:
    """The abstract tree with a sharding on every leaf, without which Orbax guesses one."""
    if sharding is None:
        chosen = jax.tree.map(_own_sharding, abstract_params)
    else:
        chosen = jax.tree.broadcast(sharding, abstract_params)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        abstract_params,
        chosen,
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
                f"abstract_params: sharding {own} names no devices; call load under jax.set_mesh, "
                "or give sharding"
            )
        return NamedSharding(mesh, own.spec)
    return own
