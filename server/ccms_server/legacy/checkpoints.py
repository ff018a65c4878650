"""Writes the predecessor's JSON checkpoints, so that it can be returned to: `<directory>/<cluster>/<host>/<time>.json`.

The predecessor loads the files of a host in order of the times they are named after, and each metric must begin in a
file no earlier than in the one before; where they overlap, it reads the later one. So each host has a chain of files
that each cover a span of time, beginning with the first sample in it, and do not overlap: neither with each other nor
with those that the predecessor has left behind.

    [first sample, + span) [first sample from there on, + span) ... [.. now ..)

A sample goes by the time of its slot. Until one span after the end of its span, a file is written again with what has
come in since; so samples are in these files unless they are later than that. (They are in the store all the same.) A
new version takes the place of the one before as a whole. The ledger knows of every file: what was written here is not
imported at the next start, and tells where the next span begins.

Checkpoints that the predecessor would not load any more are deleted. The archive has its own way, see `zip_archive`.
"""

import logging
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.durability.directory import TEMPORARY_SUFFIX, make_directories, replacing
from ccms_server.errors import reason_of
from ccms_server.legacy.document import Document, Samples, document, encode, on_grid
from ccms_server.legacy.files import Kind
from ccms_server.legacy.ledger import Entry, Ledger, State
from ccms_server.legacy.progress import EXTENDED_MICROSECONDS, LOG_SECONDS
from ccms_server.notify import notify
from ccms_server.store.layout import WINDOW_BITS
from ccms_server.store.span import Span
from ccms_server.store.store import Store
from ccms_server.store.table import MetricTable
from ccms_server.store.tree import Level

logger = logging.getLogger(__name__)

SPAN_SECONDS_MIN: Final = 3600
SHUTDOWN_SPAN_SECONDS: Final = 12 * 3600
"""Span of files that are only written at the end."""
_COLUMNS: Final = ("phase", "rephased", "first_slot", "last_slot", "floor_slot")

_Range = tuple[int, int]
"""Seconds: from, to (exclusive)."""


class JsonCheckpoints:
    """Writes the checkpoints of all hosts into a directory."""

    def __init__(
        self, store: Store, directory: Path, ledger: Ledger, *, interval_seconds: int, kept_seconds: int
    ) -> None:
        """Touches nothing yet.

        Args:
            store: The store; for reading.
            directory: `checkpoints.directory`.
            ledger: Of the same directory; nobody else uses it from now on.
            interval_seconds: Time between two calls of `write`, and span of a file, if that is longer than an hour; 0:
                it is only called at the end.
            kept_seconds: How far back checkpoints reach; 0: as far as the store.
        """
        self._store = store
        self._directory = directory
        self._ledger = ledger
        self._span = max(interval_seconds or SHUTDOWN_SPAN_SECONDS, SPAN_SECONDS_MIN)
        self._kept_seconds = kept_seconds
        self._lock = Lock()
        self._trouble = ""

    def write(self, now: int) -> None:
        """Writes what is new; it takes a while, and may be called on any thread. A disk that refuses is logged.

        Args:
            now: Seconds since the epoch.
        """
        with self._lock:
            begin = next_notice = monotonic()
            oldest = now - self._kept_seconds if self._kept_seconds else 0
            n_files = 0
            failures: list[str] = []
            for host in self._hosts():
                try:
                    n_files += self._write_host(host, min(self._ledger.written, now), oldest)
                except OSError as error:
                    failures.append(reason_of(error))
                if monotonic() >= next_notice:
                    next_notice = monotonic() + LOG_SECONDS
                    notify(f"EXTEND_TIMEOUT_USEC={EXTENDED_MICROSECONDS}")
            failures += self._delete_before(oldest)
            self._tell(failures)
            self._ledger.note_written(now)
            self._ledger.save()
            logger.info("wrote %s JSON checkpoints in %.1f s", f"{n_files:,}", monotonic() - begin)

    def _tell(self, failures: list[str]) -> None:
        """Logs what the disk refused, unless it did so last time."""
        trouble = failures[0] if failures else ""
        if trouble and trouble != self._trouble:
            others = f" ({len(failures) - 1:,} more such errors)" if len(failures) > 1 else ""
            logger.error("JSON checkpoints cannot be written: %s%s; the next ones try again", trouble, others)
        self._trouble = trouble

    def _hosts(self) -> Iterator["_Host"]:
        """All hosts, one by one."""
        entries: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        for key, entry in self._ledger.entries.items():
            entries[key.rpartition("/")[0]][key] = entry
        columns = dict(self._store.series_columns(_COLUMNS)[1])
        for cluster, hosts in list(self._store.tree.root.children.items()):
            for name, level in list(hosts.children.items()):
                key = f"{cluster}/{name}"
                yield _Host(self._store, key, level, entries.get(key, {}), columns)

    def _write_host(self, host: "_Host", since: int, oldest: int) -> int:
        """Writes the files of one host that have changed; returns how many.

        Args:
            host: The host.
            since: When that was done last, seconds.
            oldest: Samples before this time are of no use, seconds.

        Raises:
            OSError: The disk refuses.
        """
        n_files = 0
        # What only release 1.5 can read, its snapshots and WAL, is written all the same.
        end = max([oldest, *(entry.end for key, entry in host.entries.items() if key.endswith(Kind.JSON))])
        for key, entry in host.entries.items():
            # The newest one always: it may have been written when its span was not over.
            may_have_news = entry.end > since - self._span or entry.end == end
            if entry.state is State.WRITTEN and may_have_news and self._is_ours(key, entry):
                n_files += self._write_file(host, key, (entry.start, entry.end), entry.crc)
        while (start := host.first_time(end)) is not None:
            end = start + self._span
            n_files += self._write_file(host, self._new_key(host, start), (start, end), crc=0)
        return n_files

    def _is_ours(self, key: str, entry: Entry) -> bool:
        """Whether a file is what it was when it was written."""
        try:
            status = (self._directory / key).stat()
        except FileNotFoundError:
            return False
        return (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)

    def _new_key(self, host: "_Host", start: int) -> str:
        """Name of a new file: no other one is written over."""
        while (self._directory / (key := f"{host.key}/{start}{Kind.JSON}")).exists():
            start += 1
        return key

    def _write_file(self, host: "_Host", key: str, span: _Range, crc: int) -> bool:
        """Writes a file unless it is there with the same content; whether it did."""
        found = host.document(*span)
        if found is None:
            return False
        content = encode(found)
        if crc == zlib.crc32(content):
            return False
        path = self._directory / key
        make_directories(path.parent)
        with replacing(path) as file:
            file.write(content)
        status = path.stat()
        entry = Entry(status.st_size, status.st_mtime_ns, State.WRITTEN, *span, zlib.crc32(content))
        self._ledger.note(key, entry)
        return True

    def _delete_before(self, oldest: int) -> list[str]:
        """Deletes files that end before a time, and what a crash has left; returns what the disk refused."""
        failures: list[str] = []
        for key, entry in list(self._ledger.entries.items()):
            if entry.state is not State.WRITTEN:
                continue
            path = self._directory / key
            try:
                path.with_name(path.name + TEMPORARY_SUFFIX).unlink(missing_ok=True)
                if entry.end <= oldest and self._is_ours(key, entry):
                    path.unlink()
                    self._ledger.forget(key)
            except OSError as error:
                failures.append(reason_of(error))
        return failures


class _Host:
    """Reads the samples of one host.

    Attributes:
        key: Cluster and name, as a path.
        entries: What the ledger has of its files.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        level: Level,
        entries: dict[str, Entry],
        columns: dict[str, NDArray[np.generic]],
    ) -> None:
        self.key = key
        self.entries = entries
        self._store = store
        self._level = level
        self._columns = columns
        self._reader = store.reader()

    def document(self, start: int, end: int) -> Document | None:
        """The checkpoint for [start, end), in seconds; None without samples."""

        def read(metric_id: int, series: int) -> Samples | None:
            return self._read(metric_id, series, start, end)

        return document(self._level, read, start, end)

    def first_time(self, start: int) -> int | None:
        """Time of the first sample at `start` or later, or a little before it; None: there is none.

        All in seconds.
        """
        times = [
            max(start, first)
            for level in self._level.walk()
            for metric_id, series in list(level.series.items())
            for first, last in [self._extent(metric_id, series)]
            if last >= start and first <= last
        ]
        return min(times, default=None)

    def _extent(self, metric_id: int, series: int) -> _Range:
        """Times between which the samples of a series are."""
        table = self._table(metric_id, series)
        if table is None:
            return 0, -1
        first, last, phase = self._slots(series)
        off = table.metric.interval if self._columns["rephased"][series] else 0  # the phase is that of now
        return phase + first * table.metric.interval - off, phase + last * table.metric.interval + off

    def _table(self, metric_id: int, series: int) -> MetricTable | None:
        """The table of a series; None when it is none of a metric that is configured, or a very new one."""
        table = self._store.tables[metric_id]
        is_served = self._store.metric_id(table.metric.name) == metric_id
        return table if is_served and series < len(self._columns["phase"]) else None

    def _slots(self, series: int) -> tuple[int, int, int]:
        """First and last slot of a series, and its phase in seconds."""
        columns = self._columns
        first = max(int(columns["first_slot"][series]), int(columns["floor_slot"][series]))
        return first, int(columns["last_slot"][series]), int(columns["phase"][series])

    def _read(self, metric_id: int, series: int, start: int, end: int) -> Samples | None:
        table = self._table(metric_id, series)
        if table is None:
            return None
        if self._columns["rephased"][series]:
            return self._read_rephased(table, series, start, end)
        interval = table.metric.interval
        first, last, phase = self._slots(series)
        first = max(first, -((phase - start) // interval))
        last = min(last, -((phase - end) // interval) - 1)
        if first > last:
            return None
        members = np.array([series], np.int32)
        span = Span(phase + first * interval, last + 1 - first, members, np.array([first], np.int64))
        values = self._reader.values(table, span, None)
        filled = np.flatnonzero(~np.isnan(values))
        if not len(filled):
            return None
        values = np.ascontiguousarray(values[filled[0] : filled[-1] + 1])
        return Samples(table.metric.name, interval, span.start + int(filled[0]) * interval, values)

    def _read_rephased(self, table: MetricTable, series: int, start: int, end: int) -> Samples | None:
        """What `_read` returns, of a series whose windows differ in their phase."""
        interval = table.metric.interval
        first, last = ((start // interval - 2) >> WINDOW_BITS), ((end // interval + 2) >> WINDOW_BITS)
        numbers = sorted(number for number in list(table.windows) if first <= number <= last)
        found = [self._reader.window_samples(table, series, number) for number in numbers]
        if not found:
            return None
        timestamps = np.concatenate([times for times, _ in found])
        values = np.concatenate([samples for _, samples in found])
        chosen = (timestamps >= start) & (timestamps < end)
        if not chosen.any():
            return None
        return Samples(table.metric.name, interval, *on_grid(timestamps[chosen], values[chosen], interval))
