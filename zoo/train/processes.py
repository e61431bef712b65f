"""Several processes, one a host: who the coordinator is, and how many devices each brings."""

import atexit
import os
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from zoo.train import group

TIMEOUT = 300.0  # seconds
LONGEST = 24 * 60 * 60
MOST_FAKE = 4096
"""Devices that a CPU shows at most; each has threads of its own."""

_group: group.Group | None = None  # that this process has joined


def initialise(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    bind: str | None = None,
    timeout: float = TIMEOUT,
) -> None:
    """Joins the process group; call it before anything looks at a device.

    With no argument it joins one only where a scheduler has set one up: SLURM with more than one
    task, or a TPU pod, both of which `jax.distributed` recognises by itself.

    Args:
      coordinator: address "host:port" of process 0.
      processes: how many there are.
      process_id: which this is, 0 to processes - 1.
      bind: host that process 0 listens at, where that is another than the coordinator's.
      timeout: seconds to wait for the other processes, and later for a sign of life of each.

    Raises:
      ValueError: only some of the arguments, or values that do not fit.
      ConnectionError: the other processes did not come.
    """
    given = [value is not None for value in (coordinator, processes, process_id)]
    if any(given) and not all(given):
        raise ValueError(
            f"coordinator={coordinator}, processes={processes} and process_id={process_id} go "
            "together: give all three, or none under SLURM and on a TPU pod"
        )
    if bind is not None:
        if not all(given):
            raise ValueError(
                f"coordinator_bind={bind!r} is where process 0 of --coordinator listens; give "
                "--coordinator, --processes and --process-id too, or leave it out"
            )
        group.check_host(bind)
    if not 1 <= timeout < LONGEST:
        raise ValueError(f"timeout={timeout:g} must be at least 1 second and less than a day")
    seconds = {
        "initialization_timeout": int(timeout) + 1,
        # The group hears of a lost process first, and says so in one line.
        "heartbeat_timeout_seconds": 2 * int(timeout) + 10,
        "shutdown_timeout_seconds": LONGEST,  # process 0 writes the model while the others wait
    }
    if coordinator is not None and processes is not None and process_id is not None:
        if processes < 1 or not 0 <= process_id < processes:
            raise ValueError(f"process_id={process_id} must be in [0, processes={processes})")
        address = group.parse(coordinator)
        _join(address, bind or address.host, processes, process_id, timeout, seconds)
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1 or "," in os.environ.get(
        "TPU_WORKER_HOSTNAMES", ""
    ):
        jax.distributed.initialize(**seconds)


def _join(
    coordinator: group.Address,
    bind: str,
    processes: int,
    process_id: int,
    timeout: float,
    seconds: Mapping[str, int],
) -> None:
    global _group
    joining = group.Group(coordinator, bind, processes, process_id, timeout, _lost)
    try:
        service = joining.join()
    except (ValueError, ConnectionError):
        joining.close()
        raise
    _group = joining
    if any(name.lower().endswith("_proxy") for name in os.environ):
        # gRPC would ask the proxy for the forwarder.
        os.environ["no_grpc_proxy"] = f"127.0.0.1,{coordinator.host}"  # noqa: SIM112 (gRPC's name)
    jax.distributed.initialize(
        service,
        processes,
        process_id,
        coordinator_bind_address=str(group.Address(bind, coordinator.port)),
        **seconds,
    )
    # Runs before the handler of jax, which waits for the others.
    atexit.register(lambda: leave(1 if hasattr(sys, "last_value") else 0))


def leave(code: int) -> None:
    """Tells the other processes, if there are any, that this one ends with an exit code; does not
    return where that is not 0."""
    if _group is not None:
        _group.leave(code)


def _lost(reason: str) -> None:
    """Ends the program, whatever it is doing: nothing can go on without all processes."""
    shown = "\x1b[?25h" if sys.stderr.isatty() else ""  # the cursor, which a bar hides
    print(f"{shown}error: {reason}. Start all of them again with --resume", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(group.LOST)


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


def first_alone(act: Callable[[], object]) -> None:
    """Has process 0 do something; called by all, and what it raises is raised by all.

    Raises:
      ValueError, OSError: as `act` does.
    """
    failure: ValueError | OSError | None = None
    if jax.process_index() == 0:
        try:
            act()
        except (ValueError, OSError) as error:
            failure = error
    kind = "OSError" if isinstance(failure, OSError) else "ValueError"
    kind, _, told = first_said(f"{kind} {failure}" if failure else "").partition(" ")
    if failure:
        raise failure
    if told:
        raise (OSError if kind == "OSError" else ValueError)(f"in process 0: {told}")


def alike(text: str) -> bool:
    """Whether all processes have the same text; called by all."""
    if jax.process_count() == 1:
        return True
    seen = np.asarray(zlib.crc32(text.encode()), np.uint32)
    everyone = np.asarray(multihost_utils.process_allgather(seen)).ravel()
    return bool((everyone == everyone[0]).all())
