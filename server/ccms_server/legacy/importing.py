"""The import: everything that the predecessor left behind becomes part of the store, once, before anything is served.

Samples go the way of all writes: placed, logged, put. Files are taken in order of their time across all hosts, so that
windows fill up, are sealed and stored one after another, and the WAL stays short. The ledger takes note of files whose
samples are durable; a process that is killed goes on from there, and what it does twice changes nothing.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.durability.damage import Damage
from ccms_server.durability.disk_keeper import DiskKeeper
from ccms_server.errors import DiskUnavailableError, RejectReason, reason_of
from ccms_server.legacy.content import Block, Series, blocks
from ccms_server.legacy.files import Found, Kind, LegacyFile, find_files, next_times
from ccms_server.legacy.json_checkpoint import read_json
from ccms_server.legacy.ledger import Entry, Ledger, State
from ccms_server.legacy.progress import Progress
from ccms_server.legacy.snapshot import read_snapshot
from ccms_server.legacy.wal import WalReader
from ccms_server.names import broken_name_rule
from ccms_server.store.append import NO_SAMPLE, STORED, Placement
from ccms_server.store.store import Store

logger = logging.getLogger(__name__)

FILE_BYTES_MAX: Final = 1 << 30
"""Size of a file that is read as a whole. The largest hosts have some ten megabytes a day."""
RECORD_SAMPLES: Final = 1 << 17
"""Samples that are logged as one record, or a few more: each may cost a sync."""
MAINTENANCE_SECONDS: Final = 1.0
SAVE_SECONDS: Final = 10.0
"""Time between two notes of what is done, of which the last one may be lost by a crash."""
PATIENCE_SECONDS: Final = 60.0
"""How long a disk that takes nothing is waited for."""
PAUSE_SECONDS: Final = 0.05
DAMAGE_REPORTS_MAX: Final = 8
"""Damaged places of a file that are reported one by one."""
UNKNOWN_NAMES_MAX: Final = 10
"""Metrics that are named in the summary."""

ALWAYS: Final = 1 << 61
"""A time before or after every sample, in seconds."""

_LEVELS_MAX: Final = 2
_TOO_DEEP: Final = 254
"""Beside the numbers of `RejectReason`: the sample is of a level that the store does not have."""
_REASONS: Final = {
    RejectReason.UNKNOWN_METRIC: "of metrics that are not configured",
    RejectReason.TOO_OLD: "older than the retention",
    RejectReason.TOO_NEW: "beyond `limits.future`",
    RejectReason.FREED: "freed on request",
    RejectReason.INVALID_NUMBER: "that are not finite",
    RejectReason.INVALID_NAME: "with names that break the rules",
    RejectReason.SERIES_LIMIT: "of series beyond `limits.series`",
    _TOO_DEEP: f"more than {_LEVELS_MAX} levels below their host",
}


class _StuckError(Exception):
    """The disk has taken nothing for a long time."""


class LegacyImport:
    """Imports what is not in the ledger.

    Attributes:
        samples: Samples stored so far.
        skipped: Samples that were not, by a number of `_REASONS`.
    """

    def __init__(
        self,
        store: Store,
        keeper: DiskKeeper,
        directory: Path,
        ledger: Ledger,
        *,
        clock: Callable[[], float],
        retention_seconds: int,
        future_seconds: int,
    ) -> None:
        """Touches nothing yet.

        Args:
            store: The store, recovered when `run` begins; nobody else may write to it meanwhile.
            keeper: Keeps its samples.
            directory: `checkpoints.directory`.
            ledger: Of the same directory.
            clock: Seconds since the epoch.
            retention_seconds: Older samples are skipped; 0: none is too old.
            future_seconds: Samples further ahead of the clock are skipped.
        """
        self.samples = 0
        self.skipped: Counter[int] = Counter()
        self._store = store
        self._keeper = keeper
        self._directory = directory
        self._ledger = ledger
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._future_seconds = future_seconds
        self._oldest, self._newest = 0, 0
        self._waiting: list[Placement] = []
        self._n_waiting = 0
        self._done: list[tuple[LegacyFile, Entry]] = []  # whose samples may not be durable yet
        self._next_maintenance = 0.0
        self._next_save = 0.0
        self._unknown: Counter[str] = Counter()
        self._intervals_told: set[str] = set()
        self._is_filled = np.zeros(0, np.bool_)  # by series: whether it got samples
        self._hosts: set[tuple[str, str]] = set()
        self._n_damaged = 0
        self._n_expired = 0
        self._unreadable: list[str] = []

    def run(self) -> Iterator[None]:
        """Does the work; yields after every piece of some milliseconds."""
        found = find_files(self._directory)
        yield
        if found.n_avro:
            logger.warning("%s Avro checkpoints of the predecessor are not imported", f"{found.n_avro:,}")
        self._ledger.prune({file.key for file in found.files}, found.unreadable)
        todo = [file for file in found.files if not self._ledger.has(file)]
        if todo:
            yield from self._import(todo, found)
        else:
            self._ledger.save()

    def _import(self, todo: list[LegacyFile], found: Found) -> Iterator[None]:
        now = int(self._clock())
        if self._retention_seconds:
            self._oldest = max(0, now - self._retention_seconds)
        self._newest = now + self._future_seconds
        ends, n_bytes, n_bytes_done = next_times(found.files), sum(file.size for file in todo), 0
        logger.info("importing %s files of the predecessor, %s bytes", f"{len(todo):,}", f"{n_bytes:,}")
        self._next_save = monotonic() + SAVE_SECONDS
        with Progress(len(todo), n_bytes) as progress:
            try:
                for n_files, file in enumerate(todo):
                    for _ in self._import_file(file, ends.get(file.key)):
                        progress.show(n_files, n_bytes_done, self.samples)
                        yield
                    n_bytes_done += file.size
                    if monotonic() >= self._next_save:
                        yield from self._save()
                yield from self._save()
            except _StuckError as error:
                logger.error("the import is given up: %s; it is taken up again at the next start", error)
                return
        self._summarise(len(todo), progress.seconds, found)

    # --- files

    def _import_file(self, file: LegacyFile, before: int | None) -> Iterator[None]:
        """Imports one file, whose samples are older than `before` if that is known."""
        if before is not None and before <= self._oldest:  # all of it is: not worth to be read
            self._done.append((file, Entry(file.size, file.mtime_ns, State.IMPORTED, file.time, before)))
            self._n_expired += 1
            return
        reading = _Reading(self._directory / file.key, file.kind, self._keeper)
        ids: dict[Series, int] = {}
        end = 0
        for block in reading.blocks():
            # An absurd time must not be taken for the end: checkpoints go on from there.
            end = max(end, int(block.timestamps[block.timestamps <= self._newest].max(initial=-1)) + 1)
            self._place(file, block, ids)
            if self._n_waiting >= RECORD_SAMPLES:
                yield from self._put()
            yield
        if reading.failure:
            logger.error("%s is not imported: %s; it is tried again at the next start", file.key, reading.failure)
            self._unreadable.append(file.key)
            return
        self._n_damaged += bool(reading.n_damaged)
        state = State.DAMAGED if reading.n_damaged else State.IMPORTED
        self._done.append((file, Entry(file.size, file.mtime_ns, state, file.time, end)))

    # --- samples

    def _place(self, file: LegacyFile, block: Block, ids: dict[Series, int]) -> None:
        """Finds places for samples; those that have none are counted."""
        for series in block.series:
            if series not in ids:
                ids[series] = self._id_of(file, series)
        series_ids = np.array([ids[series] for series in block.series], np.int32)[block.numbers]
        timestamps, values = block.timestamps, block.values
        is_known = series_ids >= 0
        if not is_known.all():
            self._count_skipped(block, -1 - series_ids, ~is_known & ~np.isnan(values))
            series_ids, timestamps, values = series_ids[is_known], timestamps[is_known], values[is_known]
        placed, outcome = self._store.place(series_ids, timestamps, values, oldest=self._oldest, newest=self._newest)
        for reason, count in enumerate(np.bincount(outcome).tolist()):
            if count and reason not in (STORED, NO_SAMPLE):
                self.skipped[reason] += count
        if len(placed.series):
            if self._store.n_series > len(self._is_filled):
                self._is_filled = np.concatenate([self._is_filled, np.zeros(2 * self._store.n_series, np.bool_)])
            self._is_filled[placed.series] = True
            self._hosts.add((file.cluster, file.host))
            self._waiting.append(placed)
            self._n_waiting += len(placed.series)

    def _count_skipped(self, block: Block, reasons: NDArray[np.int32], is_skipped: NDArray[np.bool_]) -> None:
        for reason, count in enumerate(np.bincount(reasons[is_skipped]).tolist()):
            self.skipped[reason] += count
        unknown = block.numbers[is_skipped & (reasons == RejectReason.UNKNOWN_METRIC)]
        for number, count in enumerate(np.bincount(unknown).tolist()):
            metric = block.series[number].metric
            if count and (metric in self._unknown or len(self._unknown) < UNKNOWN_NAMES_MAX):
                self._unknown[metric] += count

    def _id_of(self, file: LegacyFile, series: Series) -> int:
        """The id of a series; -1 - the reason if it has none."""
        metric_id = self._store.metric_id(series.metric)
        if metric_id is None:
            return -1 - RejectReason.UNKNOWN_METRIC
        if len(series.path) > _LEVELS_MAX:
            return -1 - _TOO_DEEP
        if any(broken_name_rule(name, is_directory=False) for name in series.path):
            return -1 - RejectReason.INVALID_NAME
        configured = self._store.tables[metric_id].metric.interval
        if series.interval not in (None, configured) and series.metric not in self._intervals_told:
            self._intervals_told.add(series.metric)
            logger.warning(
                "metric %s: its frequency is %s s in %s, and %s s in the configuration; samples go by their times",
                series.metric,
                series.interval,
                file.key,
                configured,
            )
        found = self._store.series_id(metric_id, (file.cluster, file.host, *series.path))
        return -1 - RejectReason.SERIES_LIMIT if found is None else found

    def _put(self) -> Iterator[None]:
        """Puts what waits, as soon as the disk takes it.

        Raises:
            _StuckError: It does not.
        """
        until = 0.0
        while self._waiting:
            try:
                self._keeper.put(self._waiting)
            except DiskUnavailableError as error:
                if not until:
                    until = monotonic() + PATIENCE_SECONDS
                    logger.warning("the import waits for the disk, and requests with it: %s", error.reason)
                if monotonic() >= until and self._keeper.is_idle:
                    raise _StuckError(error.reason) from error
                yield from self._keeper.maintain(-ALWAYS)  # which may be what makes room
                if self._keeper.is_idle:
                    sleep(PAUSE_SECONDS)
                else:
                    self._keeper.wait()
                yield
            else:
                self.samples += self._n_waiting
                self._waiting, self._n_waiting = [], 0
        if monotonic() >= self._next_maintenance:
            yield from self._keeper.maintain(-ALWAYS)
            self._next_maintenance = monotonic() + MAINTENANCE_SECONDS

    def _save(self) -> Iterator[None]:
        """Makes all samples durable, and takes note of their files."""
        yield from self._put()
        done, self._done = self._done, []
        self._next_save = monotonic() + SAVE_SECONDS
        try:
            self._keeper.sync()
        except OSError as error:
            logger.error("imported samples cannot be synced: %s; they are imported again", reason_of(error))
            return
        for file, entry in done:
            self._ledger.note(file.key, entry)
        self._ledger.save()
        yield

    def _summarise(self, n_files: int, seconds: float, found: Found) -> None:
        skipped = [f"{count:,} {_REASONS[reason]}" for reason, count in sorted(self.skipped.items()) if count]
        logger.info(
            "imported %s files of %s hosts in %.1f s: %s samples of %s series%s",
            f"{n_files - len(self._unreadable):,}",
            f"{len(self._hosts):,}",
            seconds,
            f"{self.samples:,}",
            f"{int(self._is_filled.sum()):,}",
            f"; skipped samples: {', '.join(skipped)}" if skipped else "",
        )
        if self._unreadable or found.unreadable:
            logger.warning(
                "%s files and %s folders could not be read; they are imported at a later start",
                f"{len(self._unreadable):,}",
                f"{len(found.unreadable):,}",
            )
        if self._unknown:
            names = ", ".join(f"{name[:64]!r} {count:,}" for name, count in self._unknown.most_common())
            logger.warning("samples of metrics that are not configured were skipped: %s", names)
        if self._n_expired:
            logger.info("%s of the files are older than the retention, and were not read", f"{self._n_expired:,}")
        if self._n_damaged:
            logger.warning("%s of the files are damaged: what could be read of them is stored", f"{self._n_damaged:,}")
        logger.info("the files are kept as they were; `-cleanup-checkpoints` removes those that were imported")


class _Reading:
    """One file that is being read.

    Attributes:
        failure: Why it cannot be read to its end; empty: it can.
        n_damaged: Damaged places in it.
    """

    def __init__(self, path: Path, kind: Kind, keeper: DiskKeeper) -> None:
        self.failure = ""
        self.n_damaged = 0
        self._path = path
        self._kind = kind
        self._keeper = keeper

    def blocks(self) -> Iterator[Block]:
        """What can be read of it."""
        try:
            with self._path.open("rb") as file:
                if self._kind is Kind.WAL:
                    reader = WalReader(file, self._report)
                    yield from reader.read()
                    if reader.torn_bytes:
                        logger.info("%s ends within a record, which is left out", self._path)
                    return
                n_bytes = os.fstat(file.fileno()).st_size
                if n_bytes > FILE_BYTES_MAX:
                    self._report(0, n_bytes, f"the file is larger than {FILE_BYTES_MAX:,} bytes")
                    return
                content = file.read(n_bytes)
        except OSError as error:
            self.failure = reason_of(error)
            return
        read = read_json if self._kind is Kind.JSON else read_snapshot
        yield from blocks(read(content, self._report))
        if self.n_damaged > DAMAGE_REPORTS_MAX:
            logger.warning("%s is damaged in %s places", self._path, f"{self.n_damaged:,}")

    def _report(self, offset: int, length: int, what: str) -> None:
        self.n_damaged += 1
        if self.n_damaged <= DAMAGE_REPORTS_MAX:
            self._keeper.damage.add(Damage(self._path, offset, length, what))
