"""Finds the predecessor's files, `<checkpoints.directory>/<cluster>/<host>/<time>.json`, `.bin` and `current.wal`.

Our own directory lies beside those of the clusters. Other files are nobody's business; those of the Avro format, which
the predecessor had for some months of 2025, are counted, so that somebody learns that they are not read.
"""

import logging
import os
import stat
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from ccms_server.durability.directory import NAME
from ccms_server.errors import reason_of
from ccms_server.names import broken_name_rule

logger = logging.getLogger(__name__)

WAL_NAME: Final = "current.wal"
AVRO_SUFFIX: Final = ".avro"
_DIGITS_MAX: Final = 18


class Kind(StrEnum):
    """What a file is; its suffix."""

    JSON = ".json"
    SNAPSHOT = ".bin"
    WAL = ".wal"


class LegacyFile(NamedTuple):
    """A file of a host."""

    cluster: str
    host: str
    name: str
    kind: Kind
    time: int
    """That it is named after, in seconds: its samples are not older. 0 for a WAL."""
    size: int
    """Bytes."""
    mtime_ns: int
    """When it was last written, nanoseconds."""

    @property
    def key(self) -> str:
        """Its path below `checkpoints.directory`."""
        return f"{self.cluster}/{self.host}/{self.name}"


class Found(NamedTuple):
    """What lies in a directory."""

    files: list[LegacyFile]
    """In the order they are to be imported in: by time across all hosts, then the WALs."""
    unreadable: list[str]
    """Folders, by path below the directory, of which nobody knows what is in them."""
    n_avro: int
    """Files of a format that is not read."""


def find_files(directory: Path) -> Found:
    """Looks for files of the predecessor; what cannot be listed is logged.

    Args:
        directory: `checkpoints.directory`.
    """
    found = Found([], [], 0)
    n_avro = 0
    for cluster in _folders(directory, "", found.unreadable):
        if cluster == NAME:
            continue
        for host in _folders(directory / cluster, cluster, found.unreadable):
            for name, status in _files(directory / cluster / host, f"{cluster}/{host}", found.unreadable):
                kind, time = _kind_of(name)
                if kind is not None:
                    found.files.append(LegacyFile(cluster, host, name, kind, time, status.st_size, status.st_mtime_ns))
                n_avro += name.endswith(AVRO_SUFFIX)
    found.files.sort(key=lambda file: (file.kind is Kind.WAL, file.time, file.cluster, file.host, file.name))
    return found._replace(n_avro=n_avro)


def next_times(files: Iterable[LegacyFile]) -> dict[str, int]:
    """Where the host's next file begins, of each file that has one: its samples are all older.

    Args:
        files: In order of their time.

    Returns:
        Seconds, by key.
    """
    later: dict[str, int] = {}
    last: dict[tuple[str, str], LegacyFile] = {}
    for file in files:
        if file.kind is Kind.WAL:
            continue
        before = last.get((file.cluster, file.host))
        if before is not None:
            later[before.key] = file.time
        last[file.cluster, file.host] = file
    return later


def _kind_of(name: str) -> tuple[Kind | None, int]:
    """What a file is by its name, and the time it is named after."""
    if name == WAL_NAME:
        return Kind.WAL, 0
    stem, dot, suffix = name.rpartition(".")
    if not (stem.isascii() and stem.isdigit() and len(stem) <= _DIGITS_MAX):
        return None, 0
    for kind in (Kind.JSON, Kind.SNAPSHOT):
        if dot + suffix == kind:
            return kind, int(stem)
    return None, 0


def _folders(directory: Path, key: str, unreadable: list[str]) -> list[str]:
    """Names of the folders of a directory that are good names of clusters or hosts, sorted."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError as error:
        _note(key, error, unreadable)
        return []
    return sorted(name for name in names if broken_name_rule(name, is_directory=True) is None)


def _files(directory: Path, key: str, unreadable: list[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Names of the regular files of a directory, with what is known of them."""
    try:
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError as error:
        _note(key, error, unreadable)
        return
    yield from ((name, status) for name, status in found if stat.S_ISREG(status.st_mode))


def _note(key: str, error: OSError, unreadable: list[str]) -> None:
    logger.error("files of the predecessor cannot be looked for: %s", reason_of(error))
    unreadable.append(key)
