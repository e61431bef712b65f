"""How much memory there is, asked before anything of a size that a user or a file chose is made."""

import os


def total_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(size: int, what: str) -> None:
    """Raises ValueError where something would be larger than the memory of this machine.

    Args:
      size: in bytes.
      what: it is, and what chose its size, for the error.

    Example:
      >>> check_memory(10**18, "vit: width=1000000: its parameters")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: vit: width=1000000: its parameters would take 1,000,000,000.0 GB, and this ...
    """
    total = total_memory()
    if size > total:
        raise ValueError(
            f"{what} would take {size / 1e9:,.1f} GB, and this machine has {total / 1e9:,.1f} GB "
            "of memory; give smaller sizes"
        )
