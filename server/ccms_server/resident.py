"""Gives the pages of the compiler's library back to the operating system.

A start goes through much of it, and it is larger than all other libraries together; a server that is up calls it no
more. The pages hold what the file holds: those that are needed after all are read again, from the operating system's
cache, when they are.

Other libraries are left alone. While other threads run, one of them may be loading a library, whose mappings are not
yet what they will be; the compiler's have been complete since it was imported, and are never replaced.
"""

import ctypes
import logging
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

SMAPS: Final = Path("/proc/self/smaps")
"""What the kernel tells of the mappings of this process."""

_HEAD: Final = re.compile("[0-9a-f]+-[0-9a-f]+ ")
_LIBRARY: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (?:r--p|r-xp) [0-9a-f]+ \S+ \d+ +/.*/libllvmlite[^/]*")
"""Head of a private, read-only mapping of the compiler's library; begin and end."""
_UNCHANGED: Final = re.compile("(Anonymous|Swap): +0 kB")
"""What is 0 where no page was changed. A changed page counts as one of them: the first, or once it is swapped out, the
second."""


def give_back_compiler() -> None:
    """Drops the unchanged pages of the compiler's library from this process."""
    try:
        # A path may be anything but a line break, which the kernel escapes.
        smaps = SMAPS.read_bytes().decode(errors="replace").splitlines()
    except OSError as error:  # a kernel without this file, or one that hides it
        logger.debug("pages of the compiler stay resident: %s", error.strerror)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for begin, size in unchanged_mappings(smaps):
        if libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), mmap.MADV_DONTNEED):
            logger.debug("pages of the compiler stay resident: %s", os.strerror(ctypes.get_errno()))


def unchanged_mappings(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Finds the compiler's mappings whose pages all hold what their file holds, and cannot be written to.

    A private page that was changed, by a relocation or a debugger, would be lost when it is dropped: what it held in
    memory, and what of it lies on disk.

    Args:
        smaps: Lines of `SMAPS`.

    Yields:
        Address and size in bytes.
    """
    library: re.Match[str] | None = None
    unchanged: set[str] = set()
    for line in smaps:
        if _HEAD.match(line):
            library = _LIBRARY.fullmatch(line)
            unchanged = set()
        elif library is not None and (found := _UNCHANGED.fullmatch(line)):
            unchanged.add(found[1])
            if len(unchanged) == 2:
                begin, end = (int(address, 16) for address in library.groups())
                yield begin, end - begin
