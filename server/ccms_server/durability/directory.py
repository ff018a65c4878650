"""The store's directory: who may work in it, what lies where, and how files come into being there.

    <checkpoints.directory>/cc-metric-store/
        lock                 locked (flock) by the process that works here; holds its id as text
        format               {"format": 1}: the layout of the directory; the files in it have versions of their own
        series.a, series.b   the catalogue, twice
        state                columns of the series, derived
        wal/                 segments
        blocks/              sealed windows
        imported             the files of the predecessor that are done with, which lie in the parent
        *.tmp                what a crash has left of a file that was being written; deleted at the next start

A file is written under a temporary name, synced and renamed, and the directory is synced: after a crash it is there as
a whole or not at all.
"""

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from ccms_server.errors import DirectoryError, DirectoryInUseError, NewerFormatError

logger = logging.getLogger(__name__)

NAME: Final = "cc-metric-store"
FORMAT: Final = 1
"""Layout that this release writes, and the latest one it knows."""
DIRECTORY_MODE: Final = 0o750
TEMPORARY_SUFFIX: Final = ".tmp"
_LOCK_BYTES_MAX: Final = 32


class StoreDirectory:
    """The directory of one store; as a context manager, it belongs to this process alone.

    Attributes:
        path: The directory itself.
        wal: Directory of the WAL; exists inside the context.
        blocks: Directory of the blocks; exists inside the context.
        catalogue: Both copies of the catalogue.
        state: File of the derived columns.
    """

    def __init__(self, parent: Path) -> None:
        """Names the paths, and touches nothing.

        Args:
            parent: `checkpoints.directory`; it is made if need be.
        """
        self.path: Final = parent / NAME
        self.wal: Final = self.path / "wal"
        self.blocks: Final = self.path / "blocks"
        self.catalogue: Final = (self.path / "series.a", self.path / "series.b")
        self.state: Final = self.path / "state"
        self._format: Final = self.path / "format"
        self._lock: Final = self.path / "lock"
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Makes the directory if need be, and takes hold of it.

        Raises:
            NewerFormatError: A later release made it; nothing was touched.
            DirectoryInUseError: Another process works in it.
            DirectoryError: It does not say what its format is.
            OSError: It cannot be made or used; the message names the path and the reason.
        """
        try:
            make_directories(self.path)
            self._read_format()  # before the lock, which would write to what may not be ours
            self._take_lock()
        except OSError as error:
            raise self._unusable(error) from error
        try:
            self._settle()
        except BaseException as error:
            self._release_lock()
            if isinstance(error, OSError):
                raise self._unusable(error) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Lets go of the directory."""
        self._release_lock()

    def _settle(self) -> None:
        """Makes what is missing and deletes what a crash has left; the lock is held."""
        if self._read_format() is None:
            write_durably(self._format, [json.dumps({"format": FORMAT}).encode() + b"\n"])
        make_directories(self.wal)
        make_directories(self.blocks)
        for pattern in (f"*{TEMPORARY_SUFFIX}", f"blocks/*/*{TEMPORARY_SUFFIX}"):
            for leftover in self.path.glob(pattern):
                logger.info("deleting %s, which was never finished", leftover)
                leftover.unlink()

    def _read_format(self) -> int | None:
        """The format of the directory; None if it is a new one."""
        try:
            content = self._format.read_bytes()
        except FileNotFoundError:
            return None
        try:
            version = json.loads(content)["format"]
        except (ValueError, TypeError, KeyError, RecursionError):
            version = None
        if type(version) is not int or version < 1:
            raise DirectoryError(
                f'{self._format} is damaged: it does not hold {{"format": {FORMAT}}}; nothing was changed: restore it, '
                "or set another `checkpoints.directory`"
            )
        if version > FORMAT:
            raise NewerFormatError(self._format, version, FORMAT)
        return version

    def _take_lock(self) -> None:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, _LOCK_BYTES_MAX, 0).strip()
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            name = f"process {int(holder)}" if holder.isdigit() else "another process"
            raise DirectoryInUseError(self.path, name) from None
        self._descriptor = descriptor
        try:
            process_id = f"{os.getpid()}\n".encode()
            os.pwrite(descriptor, process_id, 0)
            os.ftruncate(descriptor, len(process_id))
        except OSError as error:  # a full disk must still be readable, and the lock holds without the id
            logger.warning("%s does not say who holds it: %s", self._lock, error.strerror)

    def _release_lock(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _unusable(self, error: OSError) -> OSError:
        return OSError(error.errno, f"cannot use {error.filename or self.path}: {error.strerror}")


def make_directories(path: Path) -> None:
    """Makes a directory and those above it, as far as they are missing; they outlive a crash.

    Raises:
        OSError: One of them cannot be made.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_directories(path.parent)
    try:
        path.mkdir(DIRECTORY_MODE, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Forces to disk which files a directory holds.

    Raises:
        OSError: The disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Writes a file that takes another's place, or comes into being, when the context ends without an error.

    Yields:
        The new file, under a temporary name beside `path`. After an error it is gone, and `path` is as it was.

    Raises:
        OSError: The disk refuses. When it refuses to sync the directory, the last step, `path` is the new file, and
            after a crash either of the two.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_durably(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Writes a file as a whole or not at all, over another one if there is one.

    Args:
        path: The file.
        parts: Its content, piece by piece.

    Raises:
        OSError: The disk refuses, see `replacing`.
    """
    with replacing(path) as file:
        file.writelines(parts)
