"""Gives pages of libraries back to the operating system that only the start has read.

A start goes through much of what it loads, and most of all through the compiler, whose library is larger than all
others together; a server that is up calls it no more. These pages hold what their files hold: those that are needed
after all are read again, from the operating system's cache, when they are.
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

_FILE: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (?:r--p|r-xp) [0-9a-f]+ \S+ \d+ +/.*")
"""Head of a private, read-only mapping of a file; begin and end."""
_HEAD: Final = re.compile("[0-9a-f]+-[0-9a-f]+ ")
_UNCHANGED: Final = re.compile(r"Anonymous: +0 kB")


def give_back_libraries() -> None:
    """Drops the unchanged pages of all libraries from this process; does nothing where there is no Linux."""
    if not SMAPS.exists():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    # A path may be anything but a line break, which Linux escapes.
    for begin, size in unchanged_mappings(SMAPS.read_bytes().decode(errors="replace").splitlines()):
        if libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), mmap.MADV_DONTNEED):
            logger.debug("pages of a library stay resident: %s", os.strerror(ctypes.get_errno()))


def unchanged_mappings(smaps: list[str]) -> Iterator[tuple[int, int]]:
    """Finds the mappings whose pages all hold what their files hold, and cannot be written to.

    A private page that was changed, by a relocation or a debugger, would be lost when it is dropped.

    Args:
        smaps: Lines of `SMAPS`.

    Yields:
        Address and size in bytes.
    """
    found: re.Match[str] | None = None
    for line in smaps:
        if _HEAD.match(line):
            found = _FILE.fullmatch(line)
        elif found is not None and _UNCHANGED.fullmatch(line):
            begin, end = (int(address, 16) for address in found.groups())
            yield begin, end - begin
