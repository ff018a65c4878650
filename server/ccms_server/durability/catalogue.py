"""The catalogue: all metrics and series there ever were, with the numbers they have in the WAL and in blocks.

Everything else refers to series by these numbers, so it is kept twice: two files with the same content, each of which
mends the other. Both are only ever appended to, and synced before any sample of a new series is.

Both are files of records (`records`): magic `CCMSCAT` and a line feed, version 1. Payloads, little endian:

    kind 1, metrics    utf-8 JSON: [[number, name, interval in seconds], ...]; the numbers go up from 0

    kind 2, series     0  u32  id of the first series; the others follow
                       4  u32  n_series
                       8  u32[n_series]  metric
                          u32[n_series]  band
                          u8[n_series]   lane: row within the band, and within its tiles
                          utf-8: paths, separated by line feeds; their elements are separated by unit separators (31)

    kind 3, reserved   0  u32  n_series, u32  n_bands: ids and bands that were given away, to series that are lost among
                               others; all rows of these bands are
"""

import json
import logging
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from ccms_server.durability.damage import Damage, DamageLog
from ccms_server.durability.directory import write_durably
from ccms_server.durability.records import HEADER_BYTES, Buffer, Scan, check_header, file_header, frame
from ccms_server.errors import DirectoryError
from ccms_server.store.registry import NewSeries, Reserved, SeriesRow

logger = logging.getLogger(__name__)

MAGIC: Final = b"CCMSCAT\n"
VERSION: Final = 1
METRICS: Final = 1
SERIES: Final = 2
RESERVED: Final = 3
HEAD: Final = struct.Struct("<II")
DAMAGED_SUFFIX: Final = ".damaged"
ROWS_MAX: Final = 8192
"""Series in one record."""
ELEMENT_SEPARATOR: Final = "\x1f"
"""Names hold no control characters."""


class StoredMetric(NamedTuple):
    """A metric that has samples on disk; with another interval, it is another one."""

    name: str
    interval: int
    """Seconds."""


class Catalogue:
    """The numbers of metrics and series, and the files they are kept in.

    Attributes:
        metrics: All metrics, by number.
        is_whole: Whether no record is known to be lost in both copies.
        exists: Whether any copy was there.
    """

    def __init__(self, copies: Sequence[Path], damage: DamageLog) -> None:
        """Reads both copies, and touches neither.

        Args:
            copies: The files; they need not exist.
            damage: Is told of damaged records, also of those that the other copy still has.

        Raises:
            DirectoryError: Both copies have lost the metrics.
            NewerFormatError: A later release wrote them.
            OSError: They cannot be read.
        """
        self.metrics: list[StoredMetric] = []
        self._copies = copies
        self._damage = damage
        self._records: dict[int, tuple[int, bytes]] | None = {}  # by number: kind, payload; until they are restored
        self._added_metrics: list[StoredMetric] = []
        self._added: list[NewSeries] = []
        self._size = 0
        self._unmended: bytes | None = None  # content of both copies, if one of them may have another one
        self._reserved: Reserved | None = None
        ends: list[tuple[int, int]] = []  # of the records and of the file, of copies that are there
        for path in copies:
            records, found = _read(path, damage)
            self._records.update(records)
            if found is not None:
                ends.append(found)
        self.exists = bool(ends)
        self._last = max(self._records, default=0)
        for number in sorted(self._records):
            kind, payload = self._records[number]
            if kind == METRICS:
                for position, name, interval in json.loads(payload):
                    if position != len(self.metrics):
                        raise self._metrics_lost()
                    self.metrics.append(StoredMetric(name, interval))
            elif kind == SERIES and max(_series_metrics(payload)) >= len(self.metrics):
                raise self._metrics_lost()
        missing = self._last - len(self._records)
        if missing:
            what = f"{missing} records are lost in both copies: their series are not known"
            damage.add(Damage(copies[0], 0, 0, what))
        # One copy is synced before the other is written: a crash leaves half a record in one of them at most.
        is_tail_lost = bool(ends) and all(end < size for end, size in ends)
        if is_tail_lost:
            end, size = ends[0]
            damage.add(Damage(copies[0], end, size - end, "the last records, also in the other copy"))
        self.is_whole = not missing and not is_tail_lost

    def _metrics_lost(self) -> DirectoryError:
        return DirectoryError(
            f"{self._copies[0]} and {self._copies[1].name} are both damaged: which metrics there are is lost; "
            "restore one of them, or set another `checkpoints.directory`"
        )

    def number_of(self, metric: StoredMetric) -> int:
        """The number of a metric; adds it if it is new."""
        if metric not in self.metrics:
            self.metrics.append(metric)
            self._added_metrics.append(metric)
        return self.metrics.index(metric)

    def restore(self) -> Iterator[SeriesRow | Reserved]:
        """All series, by id, and what was reserved before the next one. Once only: they are forgotten here."""
        records, self._records = self._records, None
        assert records is not None, "series are restored once"
        for number in sorted(records):
            kind, payload = records[number]
            if kind == SERIES:
                yield from _series_rows(payload)
            elif kind == RESERVED:
                yield Reserved(*HEAD.unpack(payload))

    def mend(self) -> None:
        """Writes both copies anew if they differ from what is known, so that they can be appended to.

        What the disk refuses is tried again by `save`: a full disk can still be read.
        """
        assert self._records is not None, "copies are mended before series are restored"
        parts: list[Buffer] = [file_header(MAGIC, VERSION, 1)]
        for number in sorted(self._records):
            kind, payload = self._records[number]
            parts += frame(number, kind, [payload])
        content = b"".join(parts)
        self._size, self._unmended = len(content), content
        try:
            self._write_unmended()
        except OSError as error:
            logger.error("the catalogue cannot be mended: %s; until it can, no new series are taken", error)

    def _write_unmended(self) -> None:
        if self._unmended is not None:
            for path in self._copies:
                old = path.read_bytes() if path.exists() else None
                if old == self._unmended:
                    continue
                if not self.is_whole and old is not None:
                    write_durably(path.with_name(path.name + DAMAGED_SUFFIX), [old])  # there may be a way to save it
                write_durably(path, [self._unmended])
                if self.exists:
                    logger.warning("%s was missing or not as it should be: mended from the other copy", path)
            self._unmended = None

    def add(self, new: NewSeries) -> None:
        """Takes note of new series; `save` makes them durable."""
        self._added.append(new)

    def reserve(self, reserved: Reserved) -> None:
        """Takes note of ids and bands that series must not get; `save` makes it durable. No series are new yet."""
        assert not self._added, "reserved before"
        self._reserved = reserved

    def save(self) -> None:
        """Makes new metrics and series durable.

        Raises:
            OSError: The disk refuses; the next call tries again.
        """
        if not self._added and not self._added_metrics and self._reserved is None:
            return
        self._write_unmended()
        parts: list[Buffer] = []
        number = self._last
        if self._added_metrics:
            number += 1
            first = len(self.metrics) - len(self._added_metrics)
            numbered = [(first + offset, *metric) for offset, metric in enumerate(self._added_metrics)]
            parts += frame(number, METRICS, [json.dumps(numbered).encode()])
        if self._reserved is not None:
            number += 1
            parts += frame(number, RESERVED, [HEAD.pack(*self._reserved)])
        for payload in _series_payloads(self._added):
            number += 1
            parts += frame(number, SERIES, [payload])
        content = b"".join(parts)
        for path in self._copies:
            with path.open("r+b") as file:
                file.seek(self._size)
                file.truncate()  # what an earlier call could not finish
                file.write(content)
                file.flush()
                os.fdatasync(file.fileno())
        self._size += len(content)
        self._last = number
        self._added, self._added_metrics, self._reserved = [], [], None


def _read(path: Path, damage: DamageLog) -> tuple[dict[int, tuple[int, bytes]], tuple[int, int] | None]:
    """The records of a copy, by number; and where they end, and where the copy does, if it is there."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}, None
    check_header(path, MAGIC, VERSION, content[:HEADER_BYTES], damage)
    scan = Scan(path, content, damage)
    records = {record.number: (record.kind, bytes(record.payload)) for record in scan}
    return records, (scan.end, len(content))


def _series_payloads(added: Sequence[NewSeries]) -> Iterator[bytes]:
    """Payloads of bounded size for series whose ids follow one another."""
    if not added:
        return
    metric_ids = np.concatenate([new.metric_ids for new in added]).astype("<u4")
    bands = np.concatenate([new.bands for new in added]).astype("<u4")
    lanes = np.concatenate([new.lanes for new in added])
    paths = [ELEMENT_SEPARATOR.join(path) for new in added for path in new.paths]
    for begin in range(0, len(paths), ROWS_MAX):
        rows = slice(begin, begin + ROWS_MAX)
        text = "\n".join(paths[rows]).encode()
        head = HEAD.pack(added[0].first + begin, len(lanes[rows]))
        yield b"".join([head, metric_ids[rows].tobytes(), bands[rows].tobytes(), lanes[rows].tobytes(), text])


def _series_metrics(payload: bytes) -> list[int]:
    metrics: list[int] = np.frombuffer(payload, "<u4", HEAD.unpack_from(payload)[1], HEAD.size).tolist()
    return metrics


def _series_rows(payload: bytes) -> Iterator[SeriesRow]:
    first, n_series = HEAD.unpack_from(payload)
    at = HEAD.size
    metrics, bands = np.frombuffer(payload, "<u4", 2 * n_series, at).reshape(2, n_series).tolist()
    lanes = payload[at + 8 * n_series : at + 9 * n_series]
    paths = payload[at + 9 * n_series :].decode().split("\n")
    for offset, (metric, band, lane, path) in enumerate(zip(metrics, bands, lanes, paths, strict=True)):
        yield SeriesRow(first + offset, metric, tuple(path.split(ELEMENT_SEPARATOR)), band, lane)
