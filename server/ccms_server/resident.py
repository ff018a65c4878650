"""Gives pages of the compiler's library back to the operating system, which only the start has read.

It is larger than all other libraries together, and a server that is up calls it no more. These pages hold what their
file holds: those that are needed after all are read again, from the operating system's cache, when they are.
"""

import ctypes
import logging
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

SMAPS: Final = Path("/proc/self/smaps")
"""What Linux tells of the mappings of this process."""

_LIBRARY: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (?:r--p|r-xp) [0-9a-f]+ \S+ \d+ +/.*libllvmlite[^/]*")
"""Head of a private, read-only mapping of the compiler; begin and end."""
_HEAD: Final = re.compile("[0-9a-f]+-[0-9a-f]+ ")
_UNCHANGED: Final = frozenset({"Anonymous: 0 kB", "Swap: 0 kB"})
"""What is said of a mapping without pages of its own, be they in memory or on disk."""


def give_back_compiler() -> None:
    """Drops the unchanged pages of the compiler from this process; does nothing where there is no Linux."""
    if not SMAPS.exists():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    # A path may be anything but a line break, which Linux escapes.
    for begin, size in unchanged_mappings(SMAPS.read_bytes().decode(errors="replace").splitlines()):
        if libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), mmap.MADV_DONTNEED):
            logger.debug("pages of the compiler stay resident: %s", os.strerror(ctypes.get_errno()))


def unchanged_mappings(smaps: list[str]) -> Iterator[tuple[int, int]]:
    """Finds the compiler's mappings whose pages all hold what its file holds, and cannot be written to.

    A private page that was changed, by a relocation or a debugger, would be lost when it is dropped: what it held in
    memory, and what of it lies on disk.

    Args:
        smaps: Lines of `SMAPS`.

    Yields:
        Address and size in bytes.
    """
    found: re.Match[str] | None = None
    missing: set[str] = set()
    for line in smaps:
        if _HEAD.match(line):
            found, missing = _LIBRARY.fullmatch(line), set(_UNCHANGED)
        elif found is not None:
            missing.discard(" ".join(line.split()))
            if not missing:
                begin, end = (int(address, 16) for address in found.groups())
                yield begin, end - begin
                found = None
