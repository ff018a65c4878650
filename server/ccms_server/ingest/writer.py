"""The writer: everything that is stored goes through here, one batch after another.

    senders -> bounded queue -> thread (`writer_thread`) -> senders and watches are told

Here is its side on the event loop: what is queued, within bounds, and who is told what became of it. A full queue is
the senders' problem to handle: requests are refused (`QueueFullError`), streams and subscriptions wait (`admit`,
`admit_lines`).

A write with an id is stored once: if it is known already, its sender is told what became of it then. Writes of a name
are stored in the order of their numbers, and one does not get ahead of another that failed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from ccms_server.durability.keeper import Keeper
from ccms_server.durability.known_writes import KnownWrite, NameKind, WriteId
from ccms_server.errors import DiskUnavailableError, NotReadyError, QueueFullError, RejectReason, RequestError
from ccms_server.ingest.batches import Batch, LineBatch
from ccms_server.ingest.pending import Outcome, Pending, PendingCall, PendingCheckpoint, PendingWrite
from ccms_server.ingest.placing import Placer
from ccms_server.ingest.writer_thread import WriterThread, run_slice
from ccms_server.model import WriteReport
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.watches import Watches

logger = logging.getLogger(__name__)

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
                may be earlier; both in seconds. Called on the writer's thread.
            future_seconds: Samples further ahead of the clock are rejected.
            queue_bytes: What may wait to be written.
            line_bytes: Length of a line at most.
        """
        self.counters = IngestCounters()
        self._keeper = keeper
        self._placer = Placer(
            store, retention_seconds=retention_seconds, future_seconds=future_seconds, line_bytes=line_bytes
        )
        self._thread = WriterThread(keeper, watches, self._placer, tell=self._tell, clock=clock, kept_from=kept_from)
        self._queue_bytes_max = queue_bytes
        self._queued_bytes = 0
        self._unfinished: set[Pending] = set()  # queued, or being written
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._loop: asyncio.AbstractEventLoop  # set by `run`
        self._failed: asyncio.Future[None]

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
        return await self._submit(PendingWrite(batch, write_id, done), done)

    async def admit(self, batch: Batch, write_id: WriteId | None) -> asyncio.Future[WriteReport]:
        """Queues a batch, as soon as there is room.

        Returns:
            What `write` would return or raise, later.

        Raises:
            NotReadyError: The server is stopping.
        """
        await self._has_room()
        done: asyncio.Future[WriteReport] = asyncio.get_running_loop().create_future()
        self._push(PendingWrite(batch, write_id, done))
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
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await self._submit(PendingCheckpoint(done), done)

    async def admit_lines(self, payload: bytes, default_cluster: str) -> None:
        """Queues a batch of line protocol, as soon as there is room; what becomes of it is only counted.

        Raises:
            NotReadyError: The server is stopping.
        """
        await self._has_room()
        self._push(PendingWrite(LineBatch(payload, default_cluster), None, None))

    async def prepare(self, work: Iterator[None]) -> None:
        """Works on the store before `run` does: to the end, or until `close` is called."""
        loop = asyncio.get_running_loop()
        while not self._closing:
            if await loop.run_in_executor(self._executor, run_slice, work):
                return

    async def run(self) -> None:
        """Writes until `close` was called and all is written."""
        loop = self._loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        work = loop.run_in_executor(self._executor, self._thread.run)
        try:
            await asyncio.wait({work, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            await (self._failed if self._failed.done() else work)
        finally:
            self._closing = True
            self._thread.give_up()
            await asyncio.wait({work})
            self._abandon()
            await loop.run_in_executor(self._executor, self._keeper.close)
            self._executor.shutdown(wait=True)

    def close(self) -> None:
        """Takes nothing more; `run` ends when what waits is written."""
        self._closing = True
        self._thread.close()
        self._room.set()

    async def _call(self, work: Callable[[], int]) -> int:
        """Does something on the writer's thread, after all that was asked for before."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        return await self._submit(PendingCall(work, done), done)

    async def _submit(self, pending: Pending, done: asyncio.Future[_T]) -> _T:
        if self._queued_bytes >= self._queue_bytes_max:
            raise QueueFullError(self._queued_bytes, self._queue_bytes_max)
        self._push(pending)
        return await done

    async def _has_room(self) -> None:
        """Waits until there is room in the queue, or the server is stopping."""
        while self._queued_bytes >= self._queue_bytes_max and not self._closing:
            self._room.clear()
            await self._room.wait()

    def _push(self, pending: Pending) -> None:
        if self._closing:
            raise NotReadyError("stopping")
        self._unfinished.add(pending)
        self._queued_bytes += pending.size
        self._thread.queue.put(pending)

    def _tell(self, told: Sequence[tuple[Pending, Outcome]]) -> None:
        """Passes on what the thread tells; called there."""
        self._loop.call_soon_threadsafe(self._hear, told)

    def _hear(self, told: Sequence[tuple[Pending, Outcome]]) -> None:
        try:
            for pending, outcome in told:
                self._finish(pending, outcome)
        except Exception as error:  # a defect: `run` raises it
            if not self._failed.done():
                self._failed.set_exception(error)
        if self._queued_bytes < self._queue_bytes_max:
            self._room.set()

    def _finish(self, pending: Pending, outcome: Outcome) -> None:
        """Counts what became of something, and tells its sender."""
        self._unfinished.discard(pending)
        self._queued_bytes -= pending.size
        if isinstance(outcome, WriteReport):
            if not outcome.already_stored:
                self.counters.add(outcome)
        elif isinstance(outcome, Exception) and not isinstance(outcome, RequestError):  # else it is told what to mend
            self.counters.failed += 1
            if isinstance(outcome, DiskUnavailableError) and pending.done is None:
                logger.error("a batch of a subscription is lost: %s", outcome.reason)
        if pending.done is None or pending.done.done():  # nobody waits, or the sender went away
            return
        if isinstance(outcome, Exception):
            pending.done.set_exception(outcome)
        else:
            pending.done.set_result(outcome)  # type: ignore[arg-type]  # each pending gets an outcome of its kind

    def _abandon(self) -> None:
        """Tells those who still wait that the writer is gone; only after it failed or was cancelled."""
        left, self._unfinished = self._unfinished, set()
        for pending in left:
            if pending.done is not None and not pending.done.done():
                pending.done.set_exception(NotReadyError("stopping"))
        writes = sum(not isinstance(pending, PendingCheckpoint) for pending in left)
        if writes:
            self.counters.failed += writes
            logger.error("%d batches were not written", writes)
        self._room.set()
