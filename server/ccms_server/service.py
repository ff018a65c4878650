"""The facade every front end uses: writes go to the writer, queries to the store, limits are kept on the way."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

from ccms_server.config import Config, LimitsConfig
from ccms_server.errors import LimitExceededError, NotReadyError
from ccms_server.ingest.writer import IngestCounters, Writer
from ccms_server.model import QueryRequest, SampleColumn, SeriesAnswer, SeriesQuery, WriteReport
from ccms_server.query import Plan, answers, plan
from ccms_server.store.store import Store
from ccms_server.warm_up import warm_up

logger = logging.getLogger(__name__)

CHUNK_POINTS: Final = 1 << 17
"""Values read before they are handed on: a megabyte."""

CHUNK_SERIES: Final = 512

SLOW_START_SECONDS: Final = 1.0
"""A start that takes longer says why."""

CGROUP_MEMORY_MAX: Final = Path("/sys/fs/cgroup/memory.max")

QUICK_SERIES: Final = 4
QUICK_SAMPLES: Final = 4096
"""Requests up to this size are answered at once: a thread would take longer to wake up than to read them."""


class MetricService:
    """One store with everything around it that is the same for every protocol.

    Attributes:
        store: The store; for reading.
        limits: What requests may ask for.
    """

    def __init__(self, store: Store, writer: Writer, limits: LimitsConfig) -> None:
        self.store = store
        self.limits = limits
        self._writer = writer
        self._readers = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="reader")
        # Waiting here rather than for a thread, a query that is given up leaves the line.
        self._large_reads = asyncio.Semaphore(os.cpu_count() or 1)
        self._state = "starting"

    @classmethod
    def create(cls, config: Config, clock: Callable[[], float] = time.time) -> "MetricService":
        """Makes an empty, stopped service.

        Args:
            config: The configuration.
            clock: Seconds since the epoch.
        """
        limits = config.limits
        store = Store(
            config.metrics,
            series_max=limits.series,
            open_window_bytes=limits.open_window_bytes or _memory_bytes() // 4,
        )
        writer = Writer(
            store,
            clock=clock,
            retention_seconds=config.retention_in_memory,
            future_seconds=limits.future_seconds,
            queue_bytes=limits.queue_bytes,
            line_bytes=limits.line_bytes,
        )
        return cls(store, writer, limits)

    @property
    def ready(self) -> bool:
        """Whether requests are served."""
        return self._state == "serving"

    @property
    def counters(self) -> IngestCounters:
        """What came in since the start."""
        return self._writer.counters

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves requests while the context lasts; at its end, what was taken in is written first.

        Raises:
            ExceptionGroup: The writer failed.
        """
        loop = asyncio.get_running_loop()
        slow = loop.call_later(SLOW_START_SECONDS, logger.info, "compiling, which only the first start has to do")
        failure: Exception | None = None
        try:
            await loop.run_in_executor(self._readers, warm_up)
            slow.cancel()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._writer.run(), name="writer")
                self._state = "serving"
                try:
                    yield
                except Exception as error:  # raised below as it is, rather than in a group
                    failure = error
                finally:
                    self._state = "stopping"
                    self._writer.close()
        finally:
            slow.cancel()
            self._readers.shutdown(wait=False)
        if failure is not None:
            raise failure

    async def write_lines(self, payload: bytes, default_cluster: str) -> WriteReport:
        """Stores a batch of line protocol.

        Returns:
            What became of it, once all of it is stored.

        Raises:
            LimitExceededError: The batch is larger than allowed.
            QueueFullError: The server is behind.
            NotReadyError: The server is starting or stopping.
        """
        self._check(len(payload))
        return await self._writer.write_lines(payload, default_cluster)

    async def admit_lines(self, payload: bytes, default_cluster: str) -> None:
        """Queues a batch of line protocol as soon as there is room; what becomes of it is only counted.

        Raises:
            LimitExceededError: The batch is larger than allowed.
            NotReadyError: The server is starting or stopping.
        """
        self._check(len(payload))
        await self._writer.admit_lines(payload, default_cluster)

    async def write_columns(self, columns: Sequence[SampleColumn]) -> WriteReport:
        """Stores columns of samples; see `write_lines`."""
        self._check(sum(8 * len(column.values) for column in columns))
        return await self._writer.write_columns(columns)

    async def query(self, request: QueryRequest) -> AsyncGenerator[list[SeriesAnswer], None]:
        """Answers a query in chunks of bounded size, in order.

        Raises:
            LimitExceededError: The answer would be larger than allowed; nothing was read.
            NotReadyError: The server is starting or stopping.
        """
        planned = await self.plan(request)
        async with aclosing(self.answers(planned)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def plan(self, request: QueryRequest) -> Plan:
        """Finds out what a query would be answered with; see `query` for the errors."""
        self._check(0)
        quick = not request.for_all_hosts and len(request.queries) <= QUICK_SERIES
        if quick and sum(map(_series_asked, request.queries)) <= QUICK_SERIES:
            return self._plan(request)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._plan, request)

    async def answers(self, planned: Plan) -> AsyncGenerator[list[SeriesAnswer], None]:
        """Reads what was planned, chunk by chunk."""
        chunks = answers(self.store.reader(), planned, chunk_points=CHUNK_POINTS, chunk_series=CHUNK_SERIES)
        if len(planned.series) <= QUICK_SERIES and planned.n_samples <= QUICK_SAMPLES:
            for chunk in chunks:
                yield chunk
            return
        loop = asyncio.get_running_loop()
        while True:
            async with self._large_reads:
                part = await loop.run_in_executor(self._readers, _next, chunks)
            if part is None:
                return
            yield part

    def _plan(self, request: QueryRequest) -> Plan:
        limits = self.limits
        return plan(
            self.store,
            self.store.reader(),
            request,
            points_max=limits.query_points,
            series_max=limits.query_series,
        )

    def _check(self, request_bytes: int) -> None:
        if not self.ready:
            raise NotReadyError(self._state)
        if request_bytes > self.limits.request_bytes:
            raise LimitExceededError(
                "bytes in one request", request_bytes, self.limits.request_bytes, "send smaller batches"
            )


def _series_asked(query: SeriesQuery) -> int:
    return max(1, len(query.type_ids)) * max(1, len(query.subtype_ids))


def _next(chunks: Iterator[list[SeriesAnswer]]) -> list[SeriesAnswer] | None:
    return next(chunks, None)


def _memory_bytes() -> int:
    """Memory this process may use: that of the machine, or of its control group."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = CGROUP_MEMORY_MAX.read_text().strip()
    except OSError:  # no control groups
        return machine
    return min(machine, int(limit)) if limit.isdigit() else machine
