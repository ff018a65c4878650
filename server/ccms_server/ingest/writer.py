"""The writer: everything that is stored goes through here, one batch after another.

    senders -> bounded queue -> one thread: decode, place, make durable, put -> senders are told

The writer takes all that waits, in order, and works on it in one go on its own thread, so batches grow by themselves
under load while the event loop goes on reading; they share one record of the log. Between batches it maintains the
store. A full queue is the senders' problem to handle: requests are refused (`QueueFullError`), subscriptions wait
(`admit_lines`).
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ccms_server.durability.keeper import Keeper
from ccms_server.errors import DiskUnavailableError, NotReadyError, QueueFullError, RejectReason
from ccms_server.ingest.decoder import KEYS_MAX, LineDecoder
from ccms_server.ingest.line_protocol import shown
from ccms_server.model import REJECTIONS_KEPT_MAX, Rejection, SampleColumn, WriteReport
from ccms_server.names import broken_name_rule
from ccms_server.store.append import NO_SAMPLE, STORED, Placement
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store

logger = logging.getLogger(__name__)

BATCH_BYTES_MAX: Final = 16 << 20
"""Payload taken from the queue in one go: bounds how long a sender waits for those who came with it."""

DECODERS_MAX: Final = 64
"""Default clusters whose decoders are kept."""

MAINTENANCE_INTERVAL_SECONDS: Final = 1.0
MAINTENANCE_SLICE_SECONDS: Final = 0.01
"""Maintenance stops after so long to let waiting writes through."""

PENDING_OVERHEAD_BYTES: Final = 256
"""What a waiting batch or column takes beside its payload."""

SUBSCRIPTION_RETRY_SECONDS: Final = 0.5
"""Pause before batches of subscriptions that the disk did not take are tried again."""

LOG_INTERVAL_SECONDS: Final = 10.0
"""Rejected lines of subscriptions are logged together, this often."""

_T = TypeVar("_T")

ALWAYS: Final = 1 << 62
"""A time before or after every timestamp, in seconds."""


@dataclass(slots=True)
class IngestCounters:
    """What came in since the start."""

    stored: int = 0
    """Samples stored."""
    ignored: int = 0
    """Lines of metrics that are not configured, and missing values."""
    rejected: dict[RejectReason, int] = field(default_factory=dict)
    """Samples not stored, by reason."""
    dropped: int = 0
    """Messages of subscriptions that were lost because the server was behind."""
    failed: int = 0
    """Batches that were lost because the server or its disk failed; the reason is logged."""

    def add(self, report: WriteReport) -> None:
        """Counts one write."""
        self.stored += report.stored
        self.ignored += report.ignored
        for reason, count in report.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count


@dataclass(slots=True)
class _Lines:
    """A batch of line protocol that waits to be written."""

    payload: bytes
    default_cluster: str
    done: asyncio.Future[WriteReport] | None

    @property
    def size(self) -> int:
        return len(self.payload) + PENDING_OVERHEAD_BYTES


@dataclass(slots=True)
class _Columns:
    """Columns that wait to be written."""

    columns: Sequence[SampleColumn]
    size: int
    done: asyncio.Future[WriteReport] | None


@dataclass(slots=True)
class _Call:
    """Something else that is to be done in its turn."""

    work: Callable[[], int]
    done: asyncio.Future[int]
    size: int = PENDING_OVERHEAD_BYTES


_Pending = _Lines | _Columns | _Call
_Outcome = WriteReport | int | Exception


class Writer:
    """Writes to a store on behalf of many senders.

    Attributes:
        counters: What came in since the start.
    """

    def __init__(
        self,
        store: Store,
        keeper: Keeper,
        *,
        clock: Callable[[], float],
        retention_seconds: int,
        kept_from: Callable[[int], int],
        future_seconds: int,
        queue_bytes: int,
        line_bytes: int,
    ) -> None:
        """Makes a writer; `run` starts it.

        Args:
            store: The store; nobody else may write to it.
            keeper: What becomes of its samples.
            clock: Seconds since the epoch.
            retention_seconds: Older samples are rejected and dropped; 0 keeps everything.
            kept_from: Told the time from which on samples are retained, says from when on they are not dropped, which
                may be earlier; both in seconds. Called on the event loop.
            future_seconds: Samples further ahead of the clock are rejected.
            queue_bytes: What may wait to be written.
            line_bytes: Length of a line at most.
        """
        self.counters = IngestCounters()
        self._store = store
        self._keeper = keeper
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._kept_from = kept_from
        self._future_seconds = future_seconds
        self._queue_bytes_max = queue_bytes
        self._line_bytes_max = line_bytes
        self._decoders: OrderedDict[str, LineDecoder] = OrderedDict()
        self._queue: deque[_Pending] = deque()
        self._batch: list[_Pending] = []  # taken from the queue, and being written
        self._queued_bytes = 0
        self._unheard = WriteReport()  # of batches with rejected lines that nobody was told of
        self._next_log = 0.0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")

    async def write_lines(self, payload: bytes, default_cluster: str) -> WriteReport:
        """Stores a batch of line protocol.

        Returns:
            What became of it, once all of it is stored.

        Raises:
            QueueFullError: The server is behind.
            DiskUnavailableError: The samples cannot be made durable.
            NotReadyError: The server is stopping.
        """
        done: asyncio.Future[WriteReport] = asyncio.get_running_loop().create_future()
        return await self._submit(_Lines(payload, default_cluster, done), done)

    async def write_columns(self, columns: Sequence[SampleColumn]) -> WriteReport:
        """Stores columns of samples; see `write_lines`."""
        size = sum(16 * _n_samples(column) + PENDING_OVERHEAD_BYTES for column in columns)
        done: asyncio.Future[WriteReport] = asyncio.get_running_loop().create_future()
        return await self._submit(_Columns(columns, size, done), done)

    async def free(self, path: Sequence[str], before: int) -> int:
        """Drops the samples of a subtree that are older than a time in seconds; see `write_lines` for the errors.

        Returns:
            Number of series that lost samples.
        """
        return await self._call(lambda: self._keeper.free(path, before))

    async def configure(self, metrics: Sequence[Metric]) -> None:
        """Serves metrics from now on, or other rules to aggregate them by; a name keeps its interval.

        Raises:
            QueueFullError: The server is behind.
            NotReadyError: The server is stopping.
        """

        def work() -> int:
            self._keeper.configure(metrics)
            self._decoders.clear()  # they remember lines to ignore
            return 0

        await self._call(work)

    async def admit_lines(self, payload: bytes, default_cluster: str) -> None:
        """Queues a batch of line protocol, as soon as there is room; what becomes of it is only counted.

        Raises:
            NotReadyError: The server is stopping.
        """
        while self._queued_bytes >= self._queue_bytes_max and not self._closing:
            self._room.clear()
            await self._room.wait()
        self._push(_Lines(payload, default_cluster, None))

    async def prepare(self, work: Iterator[None]) -> None:
        """Works on the store before `run` does: to the end, or until `close` is called."""
        loop = asyncio.get_running_loop()
        while not self._closing:
            if await loop.run_in_executor(self._thread, _run_slice, work):
                return

    async def run(self) -> None:
        """Writes until `close` was called and the queue is empty."""
        loop = asyncio.get_running_loop()
        maintenance: Iterator[None] | None = None
        next_maintenance = loop.time() + MAINTENANCE_INTERVAL_SECONDS
        retry_at = 0.0
        try:
            while self._queue or not self._closing:
                is_waiting = loop.time() < retry_at and not self._closing
                self._batch = [] if is_waiting else self._take_batch()
                if self._batch:
                    outcomes = await loop.run_in_executor(self._thread, self._write, self._batch)
                    is_disk_unavailable = self._finish(self._batch, outcomes)
                    self._batch = []
                    if is_disk_unavailable:  # maintenance goes on: it may be what makes room
                        retry_at = loop.time() + SUBSCRIPTION_RETRY_SECONDS
                if self._keeper.is_sync_due:
                    await loop.run_in_executor(self._thread, self._keeper.sync_if_due)
                if maintenance is None and loop.time() >= next_maintenance:
                    self._forget_decoders()
                    self._log_unheard()
                    maintenance = self._keeper.maintain(self._kept_from(self._oldest(self._clock())))
                if maintenance is not None:
                    if await loop.run_in_executor(self._thread, _run_slice, maintenance):
                        maintenance = None
                        next_maintenance = loop.time() + MAINTENANCE_INTERVAL_SECONDS
                elif (not self._queue or loop.time() < retry_at) and not self._closing:
                    self._arrived.clear()
                    until = min(next_maintenance, loop.time() + self._keeper.tick)
                    timer = loop.call_at(min(until, retry_at) if self._queue else until, self._arrived.set)
                    await self._arrived.wait()
                    timer.cancel()
        finally:
            self._closing = True
            self._abandon()
            await loop.run_in_executor(self._thread, self._keeper.close)
            self._thread.shutdown(wait=True)

    def close(self) -> None:
        """Takes nothing more; `run` ends when what waits is written."""
        self._closing = True
        self._arrived.set()
        self._room.set()

    async def _call(self, work: Callable[[], int]) -> int:
        """Does something on the writer's thread, after all that was asked for before."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        return await self._submit(_Call(work, done), done)

    async def _submit(self, pending: _Pending, done: asyncio.Future[_T]) -> _T:
        if self._queued_bytes >= self._queue_bytes_max:
            raise QueueFullError(self._queued_bytes, self._queue_bytes_max)
        self._push(pending)
        return await done

    def _push(self, pending: _Pending) -> None:
        if self._closing:
            raise NotReadyError("stopping")
        self._queue.append(pending)
        self._queued_bytes += pending.size
        self._arrived.set()

    def _take_batch(self) -> list[_Pending]:
        batch: list[_Pending] = []
        size = 0
        while self._queue and size < BATCH_BYTES_MAX:
            pending = self._queue.popleft()
            batch.append(pending)
            size += pending.size
        return batch

    def _finish(self, batch: Sequence[_Pending], outcomes: Sequence[_Outcome]) -> bool:
        """Tells senders what became of their batches; whether those of subscriptions wait for the disk."""
        kept: list[_Pending] = []
        for pending, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, DiskUnavailableError) and pending.done is None and not self._closing:
                kept.append(pending)  # nobody would send it again
                continue
            self._queued_bytes -= pending.size
            if isinstance(outcome, WriteReport):
                self.counters.add(outcome)
                if pending.done is None and outcome.rejected:
                    self._unheard.merge(outcome)
            elif isinstance(outcome, Exception):
                self.counters.failed += 1
                if isinstance(outcome, DiskUnavailableError) and pending.done is None:
                    logger.error("a batch of a subscription is lost: %s", outcome.reason)
            if pending.done is None or pending.done.done():  # nobody waits, or the sender went away
                continue
            if isinstance(outcome, Exception):
                pending.done.set_exception(outcome)
            else:
                pending.done.set_result(outcome)  # type: ignore[arg-type]  # each pending gets an outcome of its kind
        self._queue.extendleft(reversed(kept))
        if self._queued_bytes < self._queue_bytes_max:
            self._room.set()
        self._log_unheard()
        return bool(kept)

    def _log_unheard(self) -> None:
        """Logs what was rejected of batches whose senders are told nothing, together and now and then."""
        now = asyncio.get_running_loop().time()
        if not self._unheard.rejected or now < self._next_log:
            return
        unheard, self._unheard = self._unheard, WriteReport()
        self._next_log = now + LOG_INTERVAL_SECONDS
        by_reason = ", ".join(f"{reason.name} {count:,}" for reason, count in sorted(unheard.rejected.items()))
        example = unheard.first_rejected[0]
        logger.warning(
            "%s lines of subscriptions rejected (%s), %s stored; for example line %d of a message: %s",
            f"{unheard.rejected_total:,}",
            by_reason,
            f"{unheard.stored:,}",
            example.index,
            example.message,
        )

    def _abandon(self) -> None:
        """Tells those who still wait that the writer is gone; only after it failed or was cancelled."""
        left = [*self._batch, *self._queue]
        for pending in left:
            if pending.done is not None and not pending.done.done():
                pending.done.set_exception(NotReadyError("stopping"))
        if left:
            self.counters.failed += len(left)
            logger.error("%d batches were not written", len(left))
        self._queue.clear()
        self._room.set()

    # --- on the writer's thread

    def _write(self, batch: Sequence[_Pending]) -> list[_Outcome]:
        """Stores a batch; what was asked for first is done first.

        Returns:
            What became of each part.
        """
        now = self._clock()
        outcomes: list[_Outcome] = []
        placements: dict[int, Placement] = {}  # by position in the batch
        for position, pending in enumerate(batch):
            try:
                if isinstance(pending, _Call):
                    self._put(placements, outcomes)
                    outcomes.append(pending.work())
                    continue
                if isinstance(pending, _Lines):
                    report, placed = self._place_lines(pending, now)
                else:
                    report, placed = self._place_columns(pending, now)
                outcomes.append(report)
                if placed is not None and len(placed.series):
                    placements[position] = placed
            except DiskUnavailableError as error:
                outcomes.append(error)
            except Exception as error:  # a defect, or no memory: it costs this part, and no other
                logger.exception("a batch of %d bytes could not be written", pending.size)
                outcomes.append(error)
        self._put(placements, outcomes)
        return outcomes

    def _put(self, placements: dict[int, Placement], outcomes: list[_Outcome]) -> None:
        """Stores what was placed, all of it together; afterwards nothing is left in `placements`."""
        failure: Exception | None = None
        try:
            if placements:
                self._keeper.put(list(placements.values()))
        except DiskUnavailableError as error:
            failure = error
        except Exception as error:
            logger.exception("%d batches could not be written", len(placements))
            failure = error
        if failure is not None:
            for position in placements:
                outcomes[position] = failure
        placements.clear()

    def _place_lines(self, pending: _Lines, now: float) -> tuple[WriteReport, Placement | None]:
        decoded = self._decoder(pending.default_cluster).decode(pending.payload, int(now))
        return self._place(decoded.series, decoded.timestamps, decoded.values, decoded.lines, decoded.report, now)

    def _place_columns(self, pending: _Columns, now: float) -> tuple[WriteReport, Placement | None]:
        report = WriteReport()
        series, timestamps, values, indexes = [], [], [], []
        first = 0
        for column in pending.columns:
            n_samples = _n_samples(column)
            if not n_samples:  # nor is its series registered
                continue
            found = self._series_of(column)
            if isinstance(found, int):
                times = column.timestamps
                if times is None:
                    interval = column.interval or self._interval_of(column.metric)
                    times = column.start + np.arange(n_samples, dtype=np.int64) * interval
                series.append(np.full(n_samples, found, np.int32))
                timestamps.append(times)
                values.append(column.values)
                indexes.append(np.arange(first, first + n_samples, dtype=np.int64))
            else:
                reason, message = found
                for index in range(first, first + min(n_samples, REJECTIONS_KEPT_MAX)):
                    report.reject(index, reason, message)
                if n_samples > REJECTIONS_KEPT_MAX:
                    report.rejected[reason] += n_samples - REJECTIONS_KEPT_MAX
            first += n_samples
        if not series:
            return report, None
        return self._place(
            np.concatenate(series),
            np.concatenate(timestamps),
            np.concatenate(values),
            np.concatenate(indexes),
            report,
            now,
        )

    def _series_of(self, column: SampleColumn) -> int | tuple[RejectReason, str]:
        """The series of a column, or why it has none."""
        metric_id = self._store.metric_id(column.metric)
        if metric_id is None:
            return RejectReason.UNKNOWN_METRIC, f"metric {column.metric[:64]!r} is not configured"
        if column.timestamps is not None and len(column.timestamps) != len(column.values):
            n_times, n_values = len(column.timestamps), len(column.values)
            return RejectReason.LENGTH_MISMATCH, f"{column.metric}: {n_times} times, but {n_values} values"
        if not column.cluster:
            return RejectReason.MISSING_CLUSTER, f"{column.metric}: the selector names no cluster"
        if not column.host:
            return RejectReason.MISSING_HOST, f"{column.metric}: the selector names no host"
        if column.timestamps is None:
            last = column.start + (len(column.values) - 1) * (column.interval or self._interval_of(column.metric))
            if not -ALWAYS <= min(column.start, last) <= max(column.start, last) <= ALWAYS:
                return (
                    RejectReason.INVALID_TIMESTAMP,
                    f"{column.metric}: the times reach from {column.start} to {last} s",
                )
        path = tuple(name for name in (column.cluster, column.host, column.component, column.subcomponent) if name)
        for what, name in zip(("cluster", "host", "component", "sub-component"), path, strict=False):
            if rule := broken_name_rule(name, is_directory=what in ("cluster", "host")):
                return RejectReason.INVALID_NAME, f"{column.metric}: {what} {shown(name)} {rule}"
        series = self._store.series_id(metric_id, path)
        if series is None:
            return RejectReason.SERIES_LIMIT, f"{'/'.join(path)}: the server holds as many series as it may"
        return series

    def _interval_of(self, metric: str) -> int:
        metric_id = self._store.metric_id(metric)
        assert metric_id is not None, metric
        return self._store.tables[metric_id].metric.interval

    def _place(
        self,
        series: NDArray[np.int32],
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        indexes: NDArray[np.integer],
        report: WriteReport,
        now: float,
    ) -> tuple[WriteReport, Placement]:
        """Finds places for decoded samples, and completes the report of their decoding."""
        oldest, newest = self._oldest(now), int(now) + self._future_seconds
        placed, outcome = self._store.place(series, timestamps, values, oldest=oldest, newest=newest)
        stored = len(placed.series)
        if stored == len(series):
            report.stored += stored
            return report, placed
        applied = WriteReport(stored=stored, ignored=int((outcome == NO_SAMPLE).sum()))
        rejected = np.flatnonzero((outcome != STORED) & (outcome != NO_SAMPLE))
        for position in rejected[:REJECTIONS_KEPT_MAX].tolist():
            reason = RejectReason(int(outcome[position]))
            message = _explain(reason, int(timestamps[position]), float(values[position]), oldest, newest)
            applied.first_rejected.append(Rejection(int(indexes[position]), reason, message))
        counts = np.bincount(outcome[rejected])
        applied.rejected = {RejectReason(reason): int(counts[reason]) for reason in np.flatnonzero(counts).tolist()}
        report.merge(applied)
        return report, placed

    def _oldest(self, now: float) -> int:
        return int(now) - self._retention_seconds if self._retention_seconds else -ALWAYS

    def _decoder(self, default_cluster: str) -> LineDecoder:
        decoder = self._decoders.get(default_cluster)
        if decoder is None:
            decoder = LineDecoder(self._store, default_cluster, self._line_bytes_max)
            self._decoders[default_cluster] = decoder
            self._forget_decoders()
        self._decoders.move_to_end(default_cluster)
        return decoder

    def _forget_decoders(self) -> None:
        """Forgets those that were used longest ago when they are too many, or know too much together."""
        known = sum(decoder.known_keys for decoder in self._decoders.values())
        while len(self._decoders) > 1 and (len(self._decoders) > DECODERS_MAX or known > KEYS_MAX):
            _, forgotten = self._decoders.popitem(last=False)
            known -= forgotten.known_keys


def _n_samples(column: SampleColumn) -> int:
    """Samples that a column stands for; when times and values differ in number, the greater one."""
    n_values = len(column.values)
    return n_values if column.timestamps is None else max(n_values, len(column.timestamps))


def _run_slice(maintenance: Iterator[None]) -> bool:
    """Runs maintenance for a while; whether it came to its end."""
    until = perf_counter() + MAINTENANCE_SLICE_SECONDS
    return all(perf_counter() < until for _ in maintenance)


def _explain(reason: RejectReason, timestamp: int, value: float, oldest: int, newest: int) -> str:
    """Says why the store rejected a sample, naming the times."""
    match reason:
        case RejectReason.TOO_OLD:
            return f"time {_readable(timestamp)} is older than the retention, which reaches back to {_readable(oldest)}"
        case RejectReason.TOO_NEW:
            return f"time {_readable(timestamp)} is too far in the future; samples are taken up to {_readable(newest)}"
        case RejectReason.FREED:
            return f"time {_readable(timestamp)} is older than what was freed on request"
        case RejectReason.INVALID_NUMBER:
            return f"value {value} is not finite"
        case _:
            raise AssertionError(reason)


def _readable(timestamp: int) -> str:
    """A time as people and programs write it: `1700000000 (2023-11-14T22:13:20Z)`."""
    try:
        return f"{timestamp} ({datetime.fromtimestamp(timestamp, UTC):%Y-%m-%dT%H:%M:%SZ})"
    except (OverflowError, ValueError, OSError):  # beyond the years datetime knows
        return str(timestamp)
