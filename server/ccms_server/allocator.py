"""What the C library's allocator does with memory that is freed.

Left alone it gives memory back to the system as soon as a megabyte or so at the end of a heap is free. An answer of a
megabyte then takes longer to get its pages from the system, 2 ms, than to be read and written.
"""

import ctypes
from typing import Final

KEPT_BYTES: Final = 16 << 20
"""Free memory at the end of a heap that is kept for the next request: a few chunks of an answer, and their text."""

MAPPED_BYTES_MIN: Final = 4 << 20
"""Larger pieces are mapped for themselves, and are the system's again at once."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> bool:
    """Lets the process keep some memory; returns whether its allocator can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # other C libraries than glibc
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN))
