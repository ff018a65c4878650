"""The ledger: which files of the predecessor are done with, `<checkpoints.directory>/cc-metric-store/imported`.

    {"version": 1, "written": seconds, "files": {"<cluster>/<host>/<name>":
        {"size": bytes, "mtime_ns": nanoseconds, "state": "imported", "start": seconds, "end": seconds, "crc": 0}}}

A file is not read again as long as it has the size and the time of its last change that are noted here. States:

    imported    its samples are in the store
    damaged     all of them but those that cannot be read
    written     this store wrote it, from samples it has

`start` is the time that the file is named after or, if it was written here, where its span begins; its samples are
before `end`, but for absurd ones. `crc` is the CRC-32 of what was written, and the outer `written` the time when that
was last done.

The ledger is written after the samples are durable, and as a whole or not at all. Without it everything is imported
again, which leads to the same samples in the same places.
"""

import logging
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from ccms_server.durability.directory import write_durably
from ccms_server.errors import NewerFormatError, reason_of
from ccms_server.legacy.files import LegacyFile

logger = logging.getLogger(__name__)

NAME: Final = "imported"
VERSION: Final = 1


class State(StrEnum):
    """What was done with a file."""

    IMPORTED = "imported"
    DAMAGED = "damaged"
    WRITTEN = "written"


class Entry(msgspec.Struct, frozen=True):
    """What is known of a file."""

    size: int
    """Bytes."""
    mtime_ns: int
    """When it was last written, nanoseconds."""
    state: State
    start: int
    """Where its span begins, or the time that it is named after; seconds."""
    end: int
    """Its samples are before this time, seconds."""
    crc: int = 0
    """CRC-32 of a file that this store wrote."""

    def is_of(self, file: LegacyFile) -> bool:
        """Whether a file is still what it was."""
        return (self.size, self.mtime_ns) == (file.size, file.mtime_ns)


class _Version(msgspec.Struct):
    version: int


class _Content(msgspec.Struct):
    files: dict[str, Entry]
    written: int = 0
    version: int = VERSION


class Ledger:
    """The ledger of one directory; used by one thread at a time.

    Attributes:
        entries: What is known of each file, by its `LegacyFile.key`.
        written: When files were last written, seconds since the epoch.
    """

    def __init__(self, directory: Path) -> None:
        """Reads it; one that is damaged is reported, and taken for an empty one.

        Args:
            directory: `checkpoints.directory/cc-metric-store`.

        Raises:
            NewerFormatError: A later release wrote it.
            OSError: It cannot be read.
        """
        self._path = directory / NAME
        self._is_changed = False
        self.entries: dict[str, Entry] = {}
        self.written = 0
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            version = msgspec.json.decode(content, type=_Version).version
            if version > VERSION:
                raise NewerFormatError(self._path, version, VERSION)
            decoded = msgspec.json.decode(content, type=_Content)
            self.entries, self.written = decoded.files, decoded.written
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            logger.warning("%s is damaged (%s): files of the predecessor are imported again", self._path, error)
            self._is_changed = True

    def has(self, file: LegacyFile) -> bool:
        """Whether a file was dealt with, and is what it was then."""
        entry = self.entries.get(file.key)
        return entry is not None and entry.is_of(file)

    def note(self, key: str, entry: Entry) -> None:
        """Takes note of a file."""
        self.entries[key] = entry
        self._is_changed = True

    def note_written(self, now: int) -> None:
        """Takes note of the time when files were written, in seconds."""
        self.written = now
        self._is_changed = True

    def forget(self, key: str) -> None:
        """Knows nothing of a file any more."""
        if self.entries.pop(key, None) is not None:
            self._is_changed = True

    def prune(self, existing: Collection[str], unreadable: Collection[str]) -> None:
        """Forgets files that are gone.

        Args:
            existing: Keys of those that are there.
            unreadable: Folders of which nobody knows; see `Found`.
        """
        if "" in unreadable:
            return
        hidden = tuple(f"{folder}/" for folder in unreadable)
        for key in [key for key in self.entries if key not in existing and not key.startswith(hidden)]:
            self.forget(key)

    def save(self) -> bool:
        """Writes it if it has changed; whether it is on disk. A failure is logged."""
        if not self._is_changed:
            return True
        try:
            write_durably(self._path, [msgspec.json.encode(_Content(self.entries, self.written)), b"\n"])
        except OSError as error:
            logger.error("%s cannot be written: %s; files may be imported again", self._path, reason_of(error))
            return False
        self._is_changed = False
        return True
