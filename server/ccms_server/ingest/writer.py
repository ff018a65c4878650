"""The writer: everything that is stored goes through here, one batch after another.

    senders -> bounded queue -> one thread: decode, place, make durable, put -> senders and watches are told

The writer takes all that waits, in order, and works on it in one go on its own thread, so batches grow by themselves
under load while the event loop goes on reading; they share one record of the log. Between batches it maintains the
store. A full queue is the senders' problem to handle: requests are refused (`QueueFullError`), streams and
subscriptions wait (`admit`, `admit_lines`).

A write with an id is stored once: if it is known already, its sender is told what became of it then. Writes of a name
are stored in the order of their numbers, and one does not get ahead of another that failed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final, TypeVar

from ccms_server.durability.keeper import Keeper
from ccms_server.durability.known_writes import KnownWrite, NameKind, WriteId
from ccms_server.errors import (
    DiskUnavailableError,
    NotReadyError,
    QueueFullError,
    RejectReason,
    RequestError,
    SequenceGapError,
)
from ccms_server.ingest.batches import OVERHEAD_BYTES, Batch, LineBatch
from ccms_server.ingest.placing import Placer
from ccms_server.model import WriteReport
from ccms_server.store.append import Placement
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.watches import Watches

logger = logging.getLogger(__name__)

BATCH_BYTES_MAX: Final = 16 << 20
"""Payload taken from the queue in one go: bounds how long a sender waits for those who came with it."""

MAINTENANCE_INTERVAL_SECONDS: Final = 1.0
CHECKPOINT_INTERVAL_SECONDS: Final = 0.02
"""The same while a checkpoint is waited for."""
MAINTENANCE_SLICE_SECONDS: Final = 0.01
"""Maintenance stops after so long to let waiting writes through."""

SUBSCRIPTION_RETRY_SECONDS: Final = 0.5
"""Pause before batches of subscriptions that the disk did not take are tried again."""

LOG_INTERVAL_SECONDS: Final = 10.0
"""Rejected lines of subscriptions are logged together, this often."""

_T = TypeVar("_T")


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
class _Write:
    """A batch that waits to be written."""

    batch: Batch
    id: WriteId | None
    """What it is told from other writes by; None: it is stored whenever it comes."""
    done: asyncio.Future[WriteReport] | None
    """None: nobody waits."""

    @property
    def size(self) -> int:
        return self.batch.size


@dataclass(slots=True)
class _Call:
    """Something else that is to be done in its turn."""

    work: Callable[[], int]
    done: asyncio.Future[int]
    size: int = OVERHEAD_BYTES


_Pending = _Write | _Call
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
        watches: Watches,
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
            watches: Are told of what is stored.
            clock: Seconds since the epoch.
            retention_seconds: Older samples are rejected and dropped; 0 keeps everything.
            kept_from: Told the time from which on samples are retained, says from when on they are not dropped, which
                may be earlier; both in seconds. Called on the event loop.
            future_seconds: Samples further ahead of the clock are rejected.
            queue_bytes: What may wait to be written.
            line_bytes: Length of a line at most.
        """
        self.counters = IngestCounters()
        self._keeper = keeper
        self._watches = watches
        self._placer = Placer(
            store, retention_seconds=retention_seconds, future_seconds=future_seconds, line_bytes=line_bytes
        )
        self._clock = clock
        self._kept_from = kept_from
        self._queue_bytes_max = queue_bytes
        self._queue: deque[_Pending] = deque()
        self._batch: list[_Pending] = []  # taken from the queue, and being written
        self._queued_bytes = 0
        self._unheard = WriteReport()  # of batches with rejected lines that nobody was told of
        self._next_log = 0.0
        self._checkpoints: list[tuple[int, asyncio.Future[None]]] = []  # those that are waited for
        self._next_maintenance = 0.0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")

    @property
    def queued_bytes(self) -> int:
        """What waits to be written."""
        return self._queued_bytes

    async def write(self, batch: Batch, write_id: WriteId | None = None) -> WriteReport:
        """Stores a batch.

        Args:
            batch: The batch.
            write_id: What it is told from other writes by; None: it is stored whenever it comes.

        Returns:
            What became of it, once all of it is stored.

        Raises:
            QueueFullError: The server is behind.
            DiskUnavailableError: The samples cannot be made durable.
            SequenceGapError: The write of this name before it is not stored.
            NotReadyError: The server is stopping.
        """
        done: asyncio.Future[WriteReport] = asyncio.get_running_loop().create_future()
        return await self._submit(_Write(batch, write_id, done), done)

    async def admit(self, batch: Batch, write_id: WriteId | None) -> asyncio.Future[WriteReport]:
        """Queues a batch, as soon as there is room.

        Returns:
            What `write` would return or raise, later.

        Raises:
            NotReadyError: The server is stopping.
        """
        await self._has_room()
        done: asyncio.Future[WriteReport] = asyncio.get_running_loop().create_future()
        self._push(_Write(batch, write_id, done))
        return done

    async def resume(self, name: str, first_number: int) -> int:
        """Gets ready for the batches of a stream; see `write` for the errors.

        Args:
            name: Of the stream.
            first_number: Number of the first batch that its sender does not know to be stored.

        Returns:
            Number of the last batch that is stored, at least the one before `first_number`.
        """

        def work() -> int:
            known = self._keeper.known_writes.last(NameKind.STREAM, name)
            if known is not None and known.id.number >= first_number:
                return known.id.number
            self._keeper.known_writes.note(
                [KnownWrite(WriteId(NameKind.STREAM, name, first_number - 1), WriteReport())]
            )
            return first_number - 1

        return await self._call(work)

    async def free(self, path: Sequence[str], before: int) -> int:
        """Drops the samples of a subtree that are older than a time in seconds; see `write` for the errors.

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
            self._placer.forget_metrics()
            return 0

        await self._call(work)

    async def checkpoint(self) -> None:
        """Has everything that is stored now sealed, and put into blocks; returns when it is.

        Raises:
            QueueFullError: The server is behind.
            DiskUnavailableError: The disk refuses.
            NotReadyError: The server is stopping.
        """
        begun = await self._call(self._keeper.begin_checkpoint)
        if self._closing:  # `run` may have ended meanwhile
            raise NotReadyError("stopping")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._checkpoints.append((begun, done))
        self._next_maintenance = 0.0
        self._arrived.set()
        await done

    async def admit_lines(self, payload: bytes, default_cluster: str) -> None:
        """Queues a batch of line protocol, as soon as there is room; what becomes of it is only counted.

        Raises:
            NotReadyError: The server is stopping.
        """
        await self._has_room()
        self._push(_Write(LineBatch(payload, default_cluster), None, None))

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
        self._next_maintenance = loop.time() + MAINTENANCE_INTERVAL_SECONDS
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
                if maintenance is None and loop.time() >= self._next_maintenance:
                    self._placer.forget_decoders()
                    self._log_unheard()
                    maintenance = self._keeper.maintain(self._kept_from(self._placer.oldest(self._clock())))
                if maintenance is not None:
                    if await loop.run_in_executor(self._thread, _run_slice, maintenance):
                        maintenance = None
                        await self._finish_checkpoints()
                        pause = CHECKPOINT_INTERVAL_SECONDS if self._checkpoints else MAINTENANCE_INTERVAL_SECONDS
                        self._next_maintenance = loop.time() + pause
                elif (not self._queue or loop.time() < retry_at) and not self._closing:
                    self._arrived.clear()
                    until = min(self._next_maintenance, loop.time() + self._keeper.tick)
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

    async def _has_room(self) -> None:
        """Waits until there is room in the queue, or the server is stopping."""
        while self._queued_bytes >= self._queue_bytes_max and not self._closing:
            self._room.clear()
            await self._room.wait()

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
                if not outcome.already_stored:
                    self.counters.add(outcome)
                if pending.done is None and outcome.rejected:
                    self._unheard.merge(outcome)
            elif isinstance(outcome, RequestError):
                pass  # its sender is told what to mend
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

    async def _finish_checkpoints(self) -> None:
        """Tells those who wait for checkpoints that they are done, or cannot be."""
        loop = asyncio.get_running_loop()
        for begun, done in list(self._checkpoints):
            if done.done():  # nobody waits any more
                continue
            try:
                is_finished = await loop.run_in_executor(self._thread, self._keeper.is_checkpointed, begun)
            except DiskUnavailableError as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if is_finished and not done.done():
                    done.set_result(None)
        self._checkpoints = [waiting for waiting in self._checkpoints if not waiting[1].done()]

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
        for _, done in self._checkpoints:
            if not done.done():
                done.set_exception(NotReadyError("stopping"))
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
        group = _Group()
        for position, pending in enumerate(batch):
            try:
                if isinstance(pending, _Call):
                    self._put(group, outcomes)
                    outcomes.append(pending.work())
                    continue
                self._placer.define(pending.batch)
                known = self._known(pending.id, group, outcomes)
                if known is not None:
                    outcomes.append(replace(known, already_stored=True))
                    continue
                report, placed = self._placer.place(pending.batch, now)
                outcomes.append(report)
                group.add(position, placed, pending.id, report)
            except (DiskUnavailableError, RequestError) as error:
                outcomes.append(error)
            except Exception as error:  # a defect, or no memory: it costs this part, and no other
                logger.exception("a batch of %d bytes could not be written", pending.size)
                outcomes.append(error)
        self._put(group, outcomes)
        return outcomes

    def _known(self, write_id: WriteId | None, group: "_Group", outcomes: list[_Outcome]) -> WriteReport | None:
        """What became of a write if it is stored already; None: it is its turn to be stored.

        Raises:
            SequenceGapError: It is not its turn.
        """
        if write_id is None:
            return None
        last = group.last_number(write_id)
        if last is not None and write_id.number <= last:
            self._put(group, outcomes)  # only then is it known whether the one that came first is stored
            last = None
        if last is None:
            known = self._keeper.known_writes.last(write_id.kind, write_id.name)
            last = 0 if known is None else known.id.number
            if known is not None and write_id.number <= last:
                return known.report if write_id.number == last else WriteReport()
        if write_id.number > last + 1:
            raise SequenceGapError(write_id.number, last)
        return None

    def _put(self, group: "_Group", outcomes: list[_Outcome]) -> None:
        """Stores what was placed, all of it together; afterwards nothing is left in the group."""
        failure: Exception | None = None
        placements = list(group.placements.values())
        try:
            if placements or group.writes:
                self._keeper.put(placements, list(group.writes.values()))
        except DiskUnavailableError as error:
            failure = error
        except Exception as error:
            logger.exception("%d batches could not be written", len(placements))
            failure = error
        if failure is not None:
            for position in group.placements.keys() | group.writes.keys():
                outcomes[position] = failure
        group.clear()
        if failure is None and placements:
            try:
                self._watches.publish(placements)
            except Exception:  # the samples are stored, whatever those who watch make of them
                logger.exception("samples could not be shown to those who watch")


class _Group:
    """Batches that are placed, to be stored together.

    Attributes:
        placements: Samples of each batch that has some, by its position.
        writes: What batches will be known by, by their position.
    """

    def __init__(self) -> None:
        self.placements: dict[int, Placement] = {}
        self.writes: dict[int, KnownWrite] = {}
        self._last: dict[tuple[NameKind, str], int] = {}

    def add(self, position: int, placed: Placement | None, write_id: WriteId | None, report: WriteReport) -> None:
        if placed is not None:
            self.placements[position] = placed
        if write_id is not None:
            # Not all of the explanations: there may be many writes to remember, and each may have been all wrong.
            self.writes[position] = KnownWrite(write_id, replace(report, first_rejected=report.first_rejected[:1]))
            self._last[write_id.kind, write_id.name] = write_id.number

    def last_number(self, write_id: WriteId) -> int | None:
        """The last number of a name in this group."""
        return self._last.get((write_id.kind, write_id.name))

    def clear(self) -> None:
        self.placements.clear()
        self.writes.clear()
        self._last.clear()


def _run_slice(maintenance: Iterator[None]) -> bool:
    """Runs maintenance for a while; whether it came to its end."""
    until = perf_counter() + MAINTENANCE_SLICE_SECONDS
    return all(perf_counter() < until for _ in maintenance)
