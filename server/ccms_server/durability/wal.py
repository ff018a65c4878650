"""The write-ahead log: what was committed and is not in blocks yet.

A directory of segments, `<first number, 20 digits>.wal`: files of records (`records`; magic `CCMSWAL` and a line feed,
version 2) whose numbers count up by one, through all segments. A segment's name is the number of its first record.
The log is written at the end of the last segment, and shortened by deleting whole segments at its beginning.

What replay makes of what it finds:

- Records that do not hold, and numbers that are missing, are damage. All other records are given.
- What follows the last good record of the last segment is zeros, space that was reserved, or the rest of a write that
  the process did not live to finish. It is cut off.
- The same at the end of an earlier segment is what a failed write left behind, unless numbers are missing behind it.
- A commit that failed gives its number to the next one, which begins a new segment. So a record that a failed commit
  left behind, because the disk did not let it be cut off either, has a number that is also the name of a later segment:
  it is passed over. Only when the process ends before another commit succeeds is such a record given: it is one that
  was whole, but not acknowledged, as after a power failure.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from ccms_server.durability.damage import Damage, DamageLog
from ccms_server.durability.directory import fsync_directory
from ccms_server.durability.records import (
    HEADER_BYTES,
    Buffer,
    Record,
    Scan,
    check_header,
    file_header,
    frame,
    write_all,
)

logger = logging.getLogger(__name__)

MAGIC: Final = b"CCMSWAL\n"
VERSION: Final = 2
"""Version 1 has no records of identified samples."""
RESERVED_BYTES: Final = 1 << 20
"""Bytes of a segment that are written ahead at a time."""
SYNC_ALWAYS: Final = 0.0
"""Every commit is durable when it returns."""

_NAME: Final = re.compile(r"\d{20}\.wal")


@dataclass(slots=True)
class Segment:
    """A file of the log."""

    path: Path
    first: int
    """Number of its first record."""
    bytes: int
    """Up to the end of its last record; 0 before the first one was committed."""


class Wal:
    """The log in a directory.

    First `replay` it to the end, then `open` it, then `commit`. One thread does all this; another one may `sync`.

    Attributes:
        last_number: Number of the last record that was replayed or committed, or is known to have been in a segment
            that is there; 0 if there is none.
        sync_seconds: As given.
    """

    def __init__(self, directory: Path, damage: DamageLog, *, segment_bytes: int, sync_seconds: float | None) -> None:
        """Looks at the directory, which need not exist.

        Args:
            directory: Of the segments.
            damage: Takes what is damaged.
            segment_bytes: A segment that is as large is followed by a new one.
            sync_seconds: Seconds of commits that a power failure may cost: SYNC_ALWAYS for none; None leaves it to the
                system. (A crash of the process alone never costs any.)
        """
        self.last_number = 0
        self._directory = directory
        self._damage = damage
        self._segment_bytes = segment_bytes
        self.sync_seconds = sync_seconds
        # (`Path.glob` would take a directory that cannot be read for an empty one.)
        paths = sorted(directory.iterdir()) if directory.exists() else []
        paths = [path for path in paths if _NAME.fullmatch(path.name)]
        self._segments = [Segment(path, int(path.stem), path.stat().st_size) for path in paths]
        self._fd: int | None = None  # of the last segment, if it is being written
        self._abandoned: set[Path] = set()  # files of segments whose first commit failed, and perhaps their deletion
        self._reserved = 0  # up to where that segment is written ahead
        self._is_doubtful = False  # a sync of it failed: the system may have dropped what it holds
        self._lock = Lock()  # of the descriptors: one is not closed while it is being copied
        self._sync_lock = Lock()  # a sync that finds nothing to do must not return before one that does it
        self._unsynced: list[int] = []  # descriptors of full segments
        self._synced_number = 0
        self._sync_time = float("-inf")

    # --- reading

    def check_versions(self) -> None:
        """Looks at the headers of all segments.

        Raises:
            NewerFormatError: A later release wrote one.
        """
        for segment in self._segments:
            with segment.path.open("rb") as file:
                check_header(segment.path, MAGIC, VERSION, file.read(HEADER_BYTES), None)

    def replay(self) -> Iterator[Record]:
        """All records in order of their numbers; a segment at a time is read into memory.

        At the end, what a crash left behind the last record is cut off.

        Raises:
            NewerFormatError: A later release wrote a segment.
            OSError: A segment cannot be read or cut.
        """
        for segment, following in zip(list(self._segments), [*self._segments, None][1:], strict=True):
            path = segment.path
            with path.open("rb") as file:
                data = file.read()
                os.fdatasync(file.fileno())  # the last process may have left it to the system; blocks build on it
            check_header(path, MAGIC, VERSION, data[:HEADER_BYTES], self._damage)
            scan = Scan(path, data, self._damage, after=segment.first - 1)
            self.last_number, end = segment.first - 1, scan.end
            for record in scan:
                if following is not None and record.number >= following.first:
                    break
                missing = _numbers(self.last_number + 1, record.number)
                if missing and record.offset == end:  # else it was reported by the scan
                    self._damage.add(Damage(path, end, 0, missing))
                self.last_number, end = record.number, scan.end
                yield record
            if following is None:
                self._cut(segment, data, end)
            elif missing := _numbers(self.last_number + 1, following.first):
                self._damage.add(Damage(path, end, len(data) - end, missing))

    def _cut(self, segment: Segment, data: bytes, end: int) -> None:
        """Removes what follows the last record of the last segment."""
        if end < len(data):
            if left := len(data[end:].rstrip(b"\0")):  # what was reserved is zeros
                logger.info("%s: cut off %d bytes of a write that was not finished", segment.path, left)
            os.truncate(segment.path, end)
        segment.bytes = end
        if end <= HEADER_BYTES:
            segment.path.unlink()
            self._segments.remove(segment)

    # --- writing

    def open(self, next_number: int) -> None:
        """Makes the log ready to write; the first commit begins a new segment.

        Args:
            next_number: Number of the next record, more than `last_number`. Replay will take numbers that are left out
                for damage, unless no segment is there.
        """
        assert next_number > self.last_number, (next_number, self.last_number)
        self.last_number = self._synced_number = next_number - 1

    def commit(self, kind: int, parts: Sequence[Buffer]) -> int:
        """Appends a record.

        Args:
            kind: Its kind, 0..255.
            parts: Its payload, in pieces of bytes; less than 4 GiB in all.

        Returns:
            Its number.

        Raises:
            OSError: It is not in the log. The next commit, of this or another record, gets its number.
        """
        number = self.last_number + 1
        buffers = frame(number, kind, parts)
        if self._fd is not None and (self._is_doubtful or self._segments[-1].bytes >= self._segment_bytes):
            self._leave_segment(self._segments[-1])
        fd = self._begin_segment(number) if self._fd is None else self._fd
        segment = self._segments[-1]
        is_new = segment.bytes == 0
        if is_new:
            buffers.insert(0, file_header(MAGIC, VERSION, number))
        try:
            self._reserve(fd, segment.bytes + sum(map(len, buffers)))
            size = write_all(fd, buffers)
            if is_new:
                fsync_directory(self._directory)
            if self.sync_seconds == SYNC_ALWAYS:
                os.fdatasync(fd)
        except BaseException:
            self._abandon_commit(fd, segment)
            raise
        segment.bytes += size
        self.last_number = number
        if self.sync_seconds == SYNC_ALWAYS:
            self._synced_number = number
        return number

    def _begin_segment(self, number: int) -> int:
        path = self._directory / f"{number:020}.wal"
        # Any other file of this name would hold what was acknowledged.
        overwriting = os.O_TRUNC if path in self._abandoned else os.O_EXCL
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | overwriting, 0o640)
        self._segments.append(Segment(path, number, 0))
        self._reserved = 0
        return self._fd

    def _reserve(self, fd: int, end: int) -> None:
        """Sees to it that a file that is synced with every commit need not grow for most of them.

        A sync that finds nothing but data to write takes two thirds of the time. (Space that was only set aside does
        not help: that it is used now is written, too.) Where zeros are refused, the file grows.

        Args:
            fd: Of the file.
            end: Where the record that is about to be written will end; zeros go behind it, never where records are.
        """
        if self.sync_seconds == SYNC_ALWAYS and end > self._reserved:
            zeros = min(RESERVED_BYTES, self._segment_bytes)
            with suppress(OSError):
                os.pwrite(fd, bytes(zeros), end)
            self._reserved = end + zeros

    def _leave_segment(self, segment: Segment) -> None:
        """Ends the segment that is being written; its descriptor is kept until it has been synced."""
        with self._lock:
            fd, self._fd = self._fd, None
            assert fd is not None, "there is one"
            self._is_doubtful = False
            if segment.bytes and os.fstat(fd).st_size > segment.bytes:
                with suppress(OSError):  # the rest of what was reserved; replay knows what to make of it
                    os.ftruncate(fd, segment.bytes)
            if not segment.bytes or self._synced_number >= self.last_number:
                os.close(fd)
            else:
                self._unsynced.append(fd)

    def end_only_segment(self) -> None:
        """Ends the segment that is being written if there is no other: the one being written is never deleted."""
        if self._fd is not None and len(self._segments) == 1:
            self._leave_segment(self._segments[0])

    def end_segment(self) -> None:
        """Ends the segment that is being written, so that it can be deleted when it is no longer needed."""
        if self._fd is not None:
            self._leave_segment(self._segments[-1])

    def _abandon_commit(self, fd: int, segment: Segment) -> None:
        """Removes what a failed commit wrote, and ends the segment."""
        try:
            if segment.bytes:
                os.ftruncate(fd, segment.bytes)
            else:
                self._segments.pop()
                self._abandoned.add(segment.path)
                segment.path.unlink()
        except OSError as error:
            logger.warning("%s: what a failed commit left stays there, to be passed over: %s", segment.path, error)
        self._leave_segment(segment)

    def sync(self) -> None:
        """Makes all commits so far durable; any thread may call it.

        Raises:
            OSError: Commits since the last sync may be lost by a power failure, even if a later sync succeeds.
        """
        with self._sync_lock:
            with self._lock:
                number = self.last_number
                if self._synced_number >= number:
                    return
                descriptors, self._unsynced = self._unsynced, []
                if self._fd is not None:
                    descriptors.append(os.dup(self._fd))
            try:
                for fd in descriptors:
                    os.fdatasync(fd)
            except OSError:
                self._is_doubtful = True
                raise
            finally:
                for fd in descriptors:
                    os.close(fd)
            self._synced_number = number

    def is_sync_due(self, now: float) -> bool:
        """Whether `sync_if_due` has something to do; any thread may ask."""
        if not self.sync_seconds or now - self._sync_time < self.sync_seconds:
            return False
        return self._synced_number < self.last_number

    def sync_if_due(self, now: float) -> None:
        """Syncs when there is something to sync, and the interval of syncs has passed.

        Args:
            now: A monotonic time, seconds.

        Raises:
            OSError: As `sync`.
        """
        if self.is_sync_due(now):
            self._sync_time = now
            self.sync()

    def can_delete_before(self, number: int) -> bool:
        """Whether `delete_before` would delete something."""
        if not self._segments:
            return False
        if len(self._segments) > 1:
            return self._segments[1].first <= number
        return self._fd is None and self.last_number < number

    def delete_before(self, number: int) -> int:
        """Deletes segments that hold no record from a number on, but not the one that is being written.

        Returns:
            How many.

        Raises:
            OSError: One could not be deleted, or not durably.
        """
        deleted = 0
        while self.can_delete_before(number):
            self._segments[0].path.unlink(missing_ok=True)
            del self._segments[0]
            deleted += 1
        if deleted:
            fsync_directory(self._directory)
        return deleted

    def close(self) -> None:
        """Makes all commits durable and closes the files. A later commit would begin a new segment.

        Raises:
            OSError: As `sync`.
        """
        try:
            self.sync()
        finally:
            if self._fd is not None:
                self._leave_segment(self._segments[-1])
            with self._lock:
                for fd in self._unsynced:
                    os.close(fd)
                self._unsynced = []

    # --- what there is

    @property
    def bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.bytes for segment in self._segments)

    @property
    def segments(self) -> int:
        """Number of segments."""
        return len(self._segments)

    @property
    def first_number(self) -> int | None:
        """Number of the oldest record there may be; None without segments."""
        return self._segments[0].first if self._segments else None

    @property
    def middle(self) -> int:
        """Number of a record where a segment begins, or the log ends; at least half of its bytes lie before."""
        half, before = self.bytes / 2, 0
        for segment in self._segments:
            if before >= half:
                return segment.first
            before += segment.bytes
        return self.last_number + 1


def _numbers(first: int, end: int) -> str:
    """Names the records from one number up to another; empty if there are none."""
    if first >= end:
        return ""
    return f"record {first}" if first + 1 == end else f"records {first} to {end - 1}"
