"""The facade every front end uses: writes go to the writer, queries to the store, limits are kept on the way."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from ccms_server.catalog import LevelEntry, MetricEntry, Page, SeriesEntry, list_levels, list_metrics, list_series
from ccms_server.config import Config, LimitsConfig
from ccms_server.durability.disk_keeper import resident_bytes
from ccms_server.durability.keeper import DiskStatus, Keeper, MemoryKeeper
from ccms_server.durability.known_writes import NameKind, WriteId
from ccms_server.durability.recovery import Recovery
from ccms_server.errors import InvalidRequestError, LimitExceededError, NotReadyError
from ccms_server.extents import series_extents
from ccms_server.health import host_health
from ccms_server.ingest.batches import Batch, ColumnBatch, LineBatch
from ccms_server.ingest.writer import IngestCounters, Writer
from ccms_server.legacy.predecessor import LegacyFiles
from ccms_server.matcher import SeriesMatcher, matching_chunks
from ccms_server.model import (
    HostHealth,
    QueryRequest,
    SampleColumn,
    SeriesAnswers,
    SeriesExtent,
    SeriesName,
    WriteReport,
)
from ccms_server.opening import open_disk
from ccms_server.query import Plan, answers, plan
from ccms_server.reader_threads import ReaderThreads
from ccms_server.status import ServerStatus, version
from ccms_server.store.cancellation import Cancellation
from ccms_server.store.metric import Metric
from ccms_server.store.quick_read import NotQuickError
from ccms_server.store.read import Reader
from ccms_server.store.store import Store
from ccms_server.warm_up import warm_up
from ccms_server.watches import Watch, Watches

logger = logging.getLogger(__name__)

_Chunk = TypeVar("_Chunk")

CHUNK_POINTS: Final = 1 << 18
"""Values read before they are handed on: two megabytes."""

CHUNK_SERIES: Final = 512

WRITE_NAME_BYTES_MAX: Final = 64
"""Length of what a write or a stream is called."""

CLUSTER_CHARACTERS_MAX: Final = 255

CGROUP_MEMORY_MAX: Final = Path("/sys/fs/cgroup/memory.max")

_LONG_AGO: Final = -(1 << 62)
"""A time before all samples, in seconds."""

QUICK_SERIES: Final = 4
QUICK_SAMPLES: Final = 4096
"""Requests up to this size are answered at once if they are quick otherwise (see `quick_read`): a thread would take
longer to wake up than to read them."""


class MetricService:
    """One store with everything around it that is the same for every protocol.

    Attributes:
        store: The store; for reading.
        limits: What requests may ask for.
        draining: Set when the end is near: calls that go on and on are to end.
    """

    def __init__(
        self,
        store: Store,
        keeper: Keeper,
        writer: Writer,
        watches: Watches,
        limits: LimitsConfig,
        recovery: Recovery | None,
        legacy: LegacyFiles | None,
        *,
        workers: int,
        clock: Callable[[], float],
        memory_seconds: int,
    ) -> None:
        """Makes a stopped service.

        Args:
            store: The store.
            keeper: Keeps its samples.
            writer: Writes to it.
            watches: Are told by the writer what is stored.
            limits: What requests may ask for.
            recovery: Fills the store before anything is served; None: there is nothing to fill it with.
            legacy: Files of the predecessor in the same directory; None: there is none.
            workers: Threads that answer queries.
            clock: Seconds since the epoch.
            memory_seconds: Series that ended longer ago do not count for the health of hosts; 0: all do.
        """
        self.store = store
        self.limits = limits
        self._clock = clock
        self._memory_seconds = memory_seconds
        self._keeper = keeper
        self._writer = writer
        self._began = time.monotonic()
        self._watches = watches
        self.draining = asyncio.Event()
        self._recovery = recovery
        self._legacy = legacy
        self._threads = ReaderThreads(workers)
        self._state = "starting"
        self._up = asyncio.Event()

    @classmethod
    @contextmanager
    def create(
        cls,
        config: Config,
        clock: Callable[[], float] = time.time,
        kept_from: Callable[[int], int] = lambda oldest: oldest,
    ) -> Iterator["MetricService"]:
        """Makes a stopped service, and holds its directory, if it has one, while the context lasts.

        Args:
            config: The configuration.
            clock: Seconds since the epoch.
            kept_from: See `Writer`.

        Raises:
            DirectoryError: The directory cannot be used; nothing in it was changed.
            OSError: The same, as the operating system puts it.
        """
        with ExitStack() as stack:
            store, keeper, recovery, legacy = _open_store(config, clock, stack)
            watches = Watches(store)
            writer = Writer(
                store,
                keeper,
                watches,
                clock=clock,
                retention_seconds=config.retention_seconds,
                kept_from=kept_from,
                future_seconds=config.limits.future_seconds,
                queue_bytes=config.limits.queue_bytes,
                line_bytes=config.limits.line_bytes,
            )
            workers = config.num_workers or os.cpu_count() or 1
            yield cls(
                store,
                keeper,
                writer,
                watches,
                config.limits,
                recovery,
                legacy,
                workers=workers,
                clock=clock,
                memory_seconds=config.retention_in_memory,
            )

    @property
    def ready(self) -> bool:
        """Whether requests are served."""
        return self._state == "serving"

    @property
    def was_up(self) -> bool:
        """Whether requests are served, or were until the end began."""
        return self._up.is_set()

    @property
    def counters(self) -> IngestCounters:
        """What came in since the start."""
        return self._writer.counters

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Gets ready while the context lasts (`wait_until_up`), then serves; at its end, what was taken in is written.

        Raises:
            ExceptionGroup: The writer failed, or what is on disk cannot be read.
        """
        failure: Exception | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                warming = tasks.create_task(warm_up(), name="kernels")
                tasks.create_task(self._run(warming), name="writer")
                writing = tasks.create_task(self._write_legacy(), name="legacy")
                try:
                    yield
                except Exception as error:  # raised below as it is, rather than in a group
                    failure = error
                finally:
                    self._state = "stopping"
                    warming.cancel()
                    writing.cancel()
                    self._writer.close()
        finally:
            self._threads.close()
        if failure is not None:
            raise failure

    async def wait_until_up(self) -> None:
        """Returns once requests are served."""
        await self._up.wait()

    async def _run(self, warming: asyncio.Task[None]) -> None:
        await asyncio.wait({warming})
        if self._recovery is not None:
            recovery, self._recovery = self._recovery, None
            await self._writer.prepare(recovery.run())
        if self._legacy is not None:
            await self._writer.prepare(self._legacy.import_all())
        if self._state == "starting":
            self._state = "serving"
            self._up.set()
        await self._writer.run()
        if self._legacy is not None and self._up.is_set():
            await asyncio.to_thread(self._legacy.write)

    async def _write_legacy(self) -> None:
        """Writes files for the predecessor now and then; those of the end come when the writer has ended."""
        await self._up.wait()
        while self._legacy is not None and self._legacy.write_interval:
            await asyncio.sleep(self._legacy.write_interval)
            await asyncio.to_thread(self._legacy.write)

    def drain(self) -> None:
        """The end is near: calls that go on and on are to end, all others may still be made."""
        self.draining.set()

    async def write_lines(self, payload: bytes, default_cluster: str, request_id: str = "") -> WriteReport:
        """Stores a batch of line protocol.

        Args:
            payload: UTF-8 text, one sample a line.
            default_cluster: Cluster of lines without a `cluster` tag; empty: such lines are rejected.
            request_id: What the write is called when it is sent again; empty: it is stored again then.

        Returns:
            What became of it, once all of it is stored.

        Raises:
            LimitExceededError: The batch is larger than allowed.
            InvalidRequestError: The id is too long.
            QueueFullError: The server is behind.
            DiskUnavailableError: The samples cannot be made durable.
            NotReadyError: The server is starting or stopping.
        """
        self._check(len(payload))
        _check_cluster(default_cluster)
        return await self._writer.write(LineBatch(payload, default_cluster), _request_id(request_id))

    async def admit_lines(self, payload: bytes, default_cluster: str) -> None:
        """Queues a batch of line protocol as soon as there is room; what becomes of it is only counted.

        Raises:
            LimitExceededError: The batch is larger than allowed.
            NotReadyError: The server is starting or stopping.
        """
        self._check(len(payload))
        await self._writer.admit_lines(payload, default_cluster)

    async def write_columns(self, columns: Sequence[SampleColumn], request_id: str = "") -> WriteReport:
        """Stores columns of samples; see `write_lines`."""
        self._check(sum(8 * len(column.values) for column in columns))
        return await self._writer.write(ColumnBatch(columns), _request_id(request_id))

    async def resume_stream(self, name: str, first_number: int) -> int:
        """Gets ready for the batches of a stream.

        Args:
            name: What the stream is called.
            first_number: Number of the first batch that its sender does not know to be stored, from 1.

        Returns:
            Number of the last batch that is stored, at least the one before `first_number`. See `write_lines` for the
            errors.
        """
        self._check(0)
        if not name:
            raise InvalidRequestError(
                "opening.stream_id", "is required: any text that no other stream has, such as a UUID"
            )
        check_write_name("opening.stream_id", name)
        return await self._writer.resume(name, first_number)

    async def write_to_stream(self, batch: Batch, name: str, number: int) -> asyncio.Future[WriteReport]:
        """Queues a batch of a stream as soon as there is room.

        Args:
            batch: The batch.
            name: What the stream is called.
            number: Of the batch.

        Returns:
            What `write_lines` would return or raise, later. SequenceGapError: The batch before it is not stored.

        Raises:
            NotReadyError: The server is starting or stopping.
        """
        self._check(0)
        if isinstance(batch, LineBatch):
            _check_cluster(batch.default_cluster)
        return await self._writer.admit(batch, WriteId(NameKind.STREAM, name, number))

    @asynccontextmanager
    async def watching(self, matcher: SeriesMatcher, arrived: asyncio.Event) -> AsyncIterator[Watch]:
        """Keeps samples of series that are stored from now on, while the context lasts.

        Args:
            matcher: Selects the series; those that appear later are watched as well.
            arrived: Is set when there is something to take.

        Raises:
            LimitExceededError: These are more series than one query may have.
            NotReadyError: The server is starting or stopping.
        """
        self._check(0)
        with self._watches.opened(matcher, self.limits.query_series, arrived) as watch:
            found = _added_to(watch, self.store, matcher)
            async with aclosing(self._threads.read(found)) as parts:
                async for _ in parts:
                    watch.check()
            yield watch

    async def free(self, path: Sequence[str], before: int) -> int:
        """Drops the samples of a subtree that are older than a time.

        Args:
            path: Cluster, host, component and sub-component, or the beginning of these; empty for everything.
            before: Seconds.

        Returns:
            Number of series that lost samples. See `write_lines` for the errors.
        """
        self._check(0)
        return await self._writer.free(path, before)

    async def configure(self, metrics: Sequence[Metric]) -> None:
        """Serves metrics from now on, or other rules to aggregate them by; a name keeps its interval.

        Raises:
            QueueFullError: The server is behind.
            NotReadyError: The server is starting or stopping.
        """
        self._check(0)
        await self._writer.configure(metrics)

    async def encoded_query(
        self, request: QueryRequest, encode: Callable[[Iterator[SeriesAnswers]], Iterator[_Chunk]]
    ) -> AsyncGenerator[_Chunk, None]:
        """Answers a query with what is made of it, on the thread that reads.

        Reading ends, wherever it is, when nobody waits any more.

        Args:
            request: What to answer.
            encode: Makes something of the chunks of the answer, one after another: they are of bounded size, and
                ordered by query and by series within the query.

        Raises:
            LimitExceededError: The answer would be larger than allowed; nothing was read.
            NotReadyError: The server is starting or stopping.
        """
        self._check(0)
        cancellation = Cancellation()
        try:
            quick = self._quick_answers(request, cancellation)
            if quick is not None:
                for chunk in encode(quick):
                    yield chunk
                return
            chunks = encode(self._planned_answers(self.store.reader(cancellation), request))
            async with aclosing(self._threads.read(chunks)) as parts:
                async for part in parts:
                    yield part
        finally:
            cancellation.is_set = True

    async def series_extents(self, path: Sequence[str]) -> AsyncGenerator[list[SeriesExtent], None]:
        """The series at a level and below it that have samples, depth first, in chunks of bounded size.

        Args:
            path: Cluster, host, component and sub-component, or the beginning of these; empty for everything.

        Raises:
            NotFoundError: Before the first chunk: there is no such level.
            NotReadyError: Before the first chunk: the server is starting or stopping.
        """
        self._check(0)
        async with aclosing(self._threads.read(series_extents(self.store, path))) as parts:
            async for part in parts:
                yield part

    async def host_health(self, cluster: str, hosts: Sequence[str], metrics: Sequence[str]) -> list[HostHealth]:
        """Which metrics of hosts arrive, in the order of `hosts`; see `health` for the rules.

        Raises:
            NotReadyError: The server is starting or stopping.
        """
        self._check(0)
        now = int(self._clock())
        oldest = now - self._memory_seconds if self._memory_seconds else _LONG_AGO
        chunks = host_health(self.store, cluster, hosts, metrics, now=now, oldest=oldest)
        async with aclosing(self._threads.read(chunks)) as parts:
            return [health async for part in parts for health in part]

    async def list_levels(self, path: Sequence[str], after: str, size: int, *, with_samples: bool) -> Page[LevelEntry]:
        """A page of the levels right below one; see `catalog.list_levels`.

        Raises:
            NotFoundError: There is no such level.
            NotReadyError: The server is starting or stopping.
        """
        self._check(0)
        return await self._threads.make(list_levels(self.store, path, after, size, with_samples=with_samples))

    async def list_metrics(self, path: Sequence[str], after: str, size: int) -> Page[MetricEntry]:
        """A page of metrics; see `catalog.list_metrics`, and `list_levels` for the errors."""
        self._check(0)
        return await self._threads.make(list_metrics(self.store, path, after, size))

    async def list_series(self, matcher: SeriesMatcher, after: SeriesName | None, size: int) -> Page[SeriesEntry]:
        """A page of series; see `catalog.list_series`, and `list_levels` for the errors."""
        self._check(0)
        return await self._threads.make(list_series(self.store, matcher, after, size))

    async def checkpoint(self) -> DiskStatus | None:
        """Has everything that is stored now sealed, put into blocks, and the WAL cut.

        Returns:
            What is on disk then; None: nothing is kept there.

        Raises:
            QueueFullError: The server is behind.
            DiskUnavailableError: The disk refuses.
            NotReadyError: The server is starting or stopping.
        """
        self._check(0)
        await self._writer.checkpoint()
        return self._keeper.disk_status()

    async def status(self) -> ServerStatus:
        """How the server is.

        Raises:
            NotReadyError: The server is starting or stopping.
        """
        self._check(0)
        size = await self._threads.call(self.store.size)
        return ServerStatus(
            version=version(),
            uptime_seconds=time.monotonic() - self._began,
            clock=int(self._clock()),
            resident_bytes=resident_bytes(),
            size=size,
            series_max=self.limits.series,
            counters=self._writer.counters,
            queued_bytes=self._writer.queued_bytes,
            watches=self._watches.count,
            missed_samples=self._watches.missed,
            disk=self._keeper.disk_status(),
        )

    def _quick_answers(self, request: QueryRequest, cancellation: Cancellation) -> Iterator[SeriesAnswers] | None:
        """The answers of a request that holds up nobody else; None: it may."""
        if not _is_small(request):
            return None
        reader = self.store.quick_reader(cancellation)
        try:
            planned = self._plan(reader, request)
            if max(planned.n_samples, planned.n_points) > QUICK_SAMPLES:
                return None
            for part in planned.parts:
                reader.check(part.sources)
        except NotQuickError:
            return None
        return self._answers(reader, planned)

    def _planned_answers(self, reader: Reader, request: QueryRequest) -> Iterator[SeriesAnswers]:
        yield from self._answers(reader, self._plan(reader, request))

    def _plan(self, reader: Reader, request: QueryRequest) -> Plan:
        limits = self.limits
        return plan(self.store, reader, request, points_max=limits.query_points, series_max=limits.query_series)

    def _answers(self, reader: Reader, planned: Plan) -> Iterator[SeriesAnswers]:
        return answers(reader, planned, chunk_points=CHUNK_POINTS, chunk_series=CHUNK_SERIES)

    def _check(self, request_bytes: int) -> None:
        if not self.ready:
            raise NotReadyError(self._state)
        if request_bytes > self.limits.request_bytes:
            raise LimitExceededError(
                "bytes in one request", request_bytes, self.limits.request_bytes, "send smaller batches"
            )


def check_write_name(field: str, name: str) -> None:
    """Checks what a write or a stream is called.

    Raises:
        InvalidRequestError: It is too long.
    """
    if len(name.encode()) > WRITE_NAME_BYTES_MAX:
        raise InvalidRequestError(field, f"is longer than {WRITE_NAME_BYTES_MAX} bytes; use a UUID, for example")


def _check_cluster(name: str) -> None:
    if len(name) > CLUSTER_CHARACTERS_MAX:
        raise InvalidRequestError("default_cluster", f"is longer than {CLUSTER_CHARACTERS_MAX} characters: no name is")


def _request_id(name: str) -> WriteId | None:
    """What a write is known by; None: by nothing."""
    check_write_name("request_id", name)
    return WriteId(NameKind.REQUEST, name, 1) if name else None


def _added_to(watch: Watch, store: Store, matcher: SeriesMatcher) -> Iterator[int]:
    """Adds the series there are to a watch, some at a time; yields how many."""
    for chunk in matching_chunks(store, matcher):
        for each in chunk:
            watch.add(each.series, store.tables[each.metric_id].metric.name, each.path)
        yield len(chunk)


def _open_store(
    config: Config, clock: Callable[[], float], stack: ExitStack
) -> tuple[Store, Keeper, Recovery | None, LegacyFiles | None]:
    """An empty store, what keeps its samples, and what fills it with those of the last time, and of the predecessor."""
    open_window_bytes = _open_window_bytes(config)
    if config.checkpoints is None or not config.checkpoints.directory:
        store = Store(config.metrics, series_max=config.limits.series, open_window_bytes=open_window_bytes)
        return store, MemoryKeeper(store), None, None
    store, keeper, recovery = open_disk(config, config.checkpoints, open_window_bytes, stack)
    return store, keeper, recovery, LegacyFiles(config, config.checkpoints, store, keeper, clock)


def _open_window_bytes(config: Config) -> int:
    """Memory for samples that are not compressed yet."""
    bounds = [config.limits.open_window_bytes or _memory_bytes() // 4]
    if config.memory_cap_bytes:
        bounds.append(config.memory_cap_bytes // 2)
    return min(bounds)


def _is_small(request: QueryRequest) -> bool:
    """Whether a request names so few series that they are found at once."""
    queries = request.queries
    return (
        not request.for_all_hosts
        and len(queries) <= QUICK_SERIES
        and sum(max(1, len(query.type_ids)) * max(1, len(query.subtype_ids)) for query in queries) <= QUICK_SERIES
    )


def _memory_bytes() -> int:
    """Memory this process may use: that of the machine, or of its control group."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = CGROUP_MEMORY_MAX.read_text().strip()
    except OSError:  # no control groups
        return machine
    return min(machine, int(limit)) if limit.isdigit() else machine
