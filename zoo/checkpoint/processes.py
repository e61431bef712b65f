"""What several processes of one run (`jax.distributed`) have to do together: gather, and agree."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

_MESSAGE_BYTES = 4096


def writes() -> bool:
    """Whether this is the process that writes to the disk."""
    return jax.process_index() == 0


def to_host(tree: Any) -> Any:
    """Copies of all arrays in this process's memory, whose sources may then be changed or donated.

    In several processes it is called by all, with the same tree, because arrays that are sharded
    over them are gathered by a collective, one after another. Only the process that writes keeps
    them; the others get None.

    Args:
      tree: of jax or numpy arrays. A jax.Array may be on this process's devices, replicated over
        all processes' or sharded over them.

    Returns:
      the tree with numpy arrays, or None.
    """
    leaves, structure = jax.tree.flatten(tree)
    mine = [_copy(leaf) for leaf in leaves]
    return jax.tree.unflatten(structure, mine) if writes() else None


def _copy(leaf: Any) -> np.ndarray | None:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if not leaf.is_fully_replicated:
            whole = multihost_utils.process_allgather(leaf, tiled=True)
            return whole if writes() else None
        leaf = leaf.addressable_data(0)
    # Not np.asarray, which on a CPU gives a view: the source could then not be donated.
    return np.array(leaf) if writes() else None


def agree(error: OSError | None) -> None:
    """Raises the error that the first process brings in all of them; called by all.

    Without it, one process would leave with the error, and the others wait for it in the next
    collective. How long the first one takes to arrive does not matter.

    Raises:
      OSError: that of the first process.
    """
    if jax.process_count() > 1:
        text = str(error).encode()[:_MESSAGE_BYTES] if error and writes() else b""
        message = np.zeros(_MESSAGE_BYTES, np.uint8)
        message[: len(text)] = np.frombuffer(text, np.uint8)
        told = np.asarray(multihost_utils.broadcast_one_to_all(message)).astype(np.uint8)
        if told.any() and not writes():
            reason = told.tobytes().rstrip(b"\0").decode(errors="replace")
            error = OSError(f"in process 0: {reason}")
    if error:
        raise error
