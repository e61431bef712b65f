"""Several processes, one a host: who the coordinator is, and how many devices each brings."""

import os
import zlib
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

MOST_FAKE = 4096
"""Devices that a CPU shows at most; each has threads of its own."""


def initialise(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the process group; call it before anything looks at a device.

    With no argument it joins one only where a scheduler has set one up: SLURM with more than one
    task, or a TPU pod, both of which `jax.distributed` recognises by itself.

    Args:
      coordinator: address "host:port" of process 0.
      processes: how many there are.
      process_id: which this is, 0 to processes - 1.

    Raises:
      ValueError: only some of the arguments, or values that do not fit.
      RuntimeError: the group could not be joined.
    """
    given = [value is not None for value in (coordinator, processes, process_id)]
    if any(given) and not all(given):
        raise ValueError(
            f"coordinator={coordinator}, processes={processes} and process_id={process_id} go "
            "together: give all three, or none under SLURM and on a TPU pod"
        )
    if all(given):
        if processes < 1 or not 0 <= process_id < processes:
            raise ValueError(f"process_id={process_id} must be in [0, processes={processes})")
        if ":" not in coordinator:
            raise ValueError(f"coordinator={coordinator!r} must be HOST:PORT")
        jax.distributed.initialize(coordinator, processes, process_id)
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1 or "," in os.environ.get(
        "TPU_WORKER_HOSTNAMES", ""
    ):
        jax.distributed.initialize()


def fake_devices(needed: int, processes: int) -> None:
    """Lets a CPU show as many devices as a mesh needs, this process its share.

    No effect on GPUs and TPUs. Call it before anything looks at a device.

    Raises:
      ValueError: a mesh of no device, or one that does not split evenly over the processes.
    """
    if not 1 <= needed <= MOST_FAKE * processes:
        raise ValueError(
            f"a mesh of {needed} devices: give at least 1 device, and at most {MOST_FAKE} a process"
        )
    if needed % processes:
        raise ValueError(
            f"a mesh of {needed} devices does not split over processes={processes}; change "
            "mesh.data or mesh.stage"
        )
    try:
        jax.config.update("jax_num_cpu_devices", needed // processes)
    except RuntimeError as error:  # devices have been looked at, as in a notebook
        there = jax.local_device_count()
        if there < needed // processes:
            raise ValueError(
                f"a mesh of {needed} devices: this process has looked at its {there} already, and "
                "can have no more; begin with a fresh one"
            ) from error


def check_shared(folder: Path, newest: Path | None) -> None:
    """Raises ValueError where the processes see different checkpoints; called by all.

    Each would start from another state, and none would notice.

    Args:
      folder: of the checkpoints, as this process sees it.
      newest: checkpoint in it, None if there is none.
    """
    if not alike(newest.name if newest else ""):
        raise ValueError(
            f"out: the processes see different checkpoints in {folder} (this one "
            f"{newest.name if newest else 'none'}); give a folder that all of them share"
        )


def check_same_config(config: object) -> None:
    """Raises ValueError where the processes have different configs; called by all."""
    if not alike(repr(config)):
        raise ValueError("the processes have different configs; start all with the same --set")


def check_same_teacher(name: str | None, record: object) -> None:
    """Raises ValueError where the processes have loaded different teachers; called by all.

    Args:
      name: what the config calls it.
      record: what this process found, see `zoo.train.distillation.teacher_record`.
    """
    if not alike(repr(record)):
        raise ValueError(
            f"distill.teacher={name!r}: the processes have loaded different weights; give all of "
            "them the same"
        )


def check_same_data(source: str, sha256: str) -> None:
    """Raises ValueError where the processes have loaded different data; called by all.

    Args:
      source: where this process found them.
      sha256: of what it found.
    """
    if not alike(sha256):
        raise ValueError(
            f"data.source={source!r}: the processes have loaded different data (this one "
            f"SHA-256 {sha256}); give all of them the same"
        )


def first_said(text: str, room: int = 1024) -> str:
    """The text of the first process whose text is not empty, or "" of none; called by all.

    Args:
      text: this process's.
      room: UTF-8 bytes that are passed on.
    """
    if jax.process_count() == 1:
        return text
    said = np.zeros(room, np.uint8)
    content = np.frombuffer(text.encode()[:room], np.uint8)
    said[: content.size] = content
    for row in np.asarray(multihost_utils.process_allgather(said)).reshape(-1, room):
        if row.any():
            return row.tobytes().rstrip(b"\0").decode(errors="replace")
    return ""


def alike(text: str) -> bool:
    """Whether all processes have the same text; called by all."""
    if jax.process_count() == 1:
        return True
    seen = np.asarray(zlib.crc32(text.encode()), np.uint32)
    everyone = np.asarray(multihost_utils.process_allgather(seen)).ravel()
    return bool((everyone == everyone[0]).all())
