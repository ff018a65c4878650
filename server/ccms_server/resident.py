"""Gives the pages of libraries back to the operating system that only the start has read.

A start goes through much of what it loads, and most of all through the compiler, whose library is larger than all
others together; a server that is up calls it no more. The pages hold what their files hold: those that are needed after
all are read again, from the operating system's cache, when they are.

While other threads run, one of them may be loading a library, whose mappings are not yet what they will be. So only
what was mapped when this module was imported is looked at: the main thread does that, before there are others.
"""

import ctypes
import logging
import mmap
import os
import re
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

SMAPS: Final = Path("/proc/self/smaps")
"""What the kernel tells of the mappings of this process."""

_HEAD: Final = re.compile("[0-9a-f]+-[0-9a-f]+ ")
_FILE: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (?:r--p|r-xp) [0-9a-f]+ \S+ \d+ +/.*")
"""Head of a private, read-only mapping of a file; begin and end."""
_UNCHANGED: Final = re.compile("(Anonymous|Swap): +0 kB")
"""What is 0 where no page was changed. A changed page counts as one of them: the first, or once it is swapped out, the
second."""


def _lines(path: Path) -> list[str]:
    """Lines that the kernel tells; none if it does not know the file, or hides it."""
    try:
        # A path may be anything but a line break, which the kernel escapes.
        return path.read_bytes().decode(errors="replace").splitlines()
    except OSError as error:
        logger.debug("pages of libraries stay resident: %s", error.strerror)
        return []


LOADED: Final = frozenset(_lines(Path("/proc/self/maps")))
"""Heads of the mappings when this module was imported."""


def give_back_libraries() -> None:
    """Drops the unchanged pages of libraries from this process."""
    smaps = _lines(SMAPS)
    libc = ctypes.CDLL(None, use_errno=True)
    for begin, size in unchanged_mappings(smaps, LOADED):
        if libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), mmap.MADV_DONTNEED):
            logger.debug("pages of a library stay resident: %s", os.strerror(ctypes.get_errno()))


def unchanged_mappings(smaps: Iterable[str], loaded: Container[str]) -> Iterator[tuple[int, int]]:
    """Finds mappings whose pages all hold what their files hold, and cannot be written to.

    A private page that was changed, by a relocation or a debugger, would be lost when it is dropped: what it held in
    memory, and what of it lies on disk.

    Args:
        smaps: Lines of `SMAPS`.
        loaded: Heads of the mappings to look at.

    Yields:
        Address and size in bytes.
    """
    library: re.Match[str] | None = None
    unchanged: set[str] = set()
    for line in smaps:
        if _HEAD.match(line):
            library = _FILE.fullmatch(line) if line in loaded else None
            unchanged = set()
        elif library is not None and (found := _UNCHANGED.fullmatch(line)):
            unchanged.add(found[1])
            if len(unchanged) == 2:
                begin, end = (int(address, 16) for address in library.groups())
                yield begin, end - begin
