"""The C library's memory allocator, told to keep what a training step will ask for again."""

import ctypes
import sys

# From glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keeps freed memory in this process instead of giving it back to the system.

    XLA:CPU frees a step's temporary buffers after it and asks for them again in the next. glibc
    returns blocks so large to the system, which then zeroes every page of them anew: 20 % of a
    step's time for a ViT of a million parameters. Call it before anything runs. Freed memory stays
    with the process, up to the largest that it ever used.

    Returns:
      whether there was a glibc to tell; elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    # One arena: each thread's own would give its memory back whatever the thresholds say.
    settings = ((ARENA_MAX, 1), (MMAP_THRESHOLD, 1 << 30), (TRIM_THRESHOLD, LARGEST))
    return all(mallopt(*setting) == 1 for setting in settings)
