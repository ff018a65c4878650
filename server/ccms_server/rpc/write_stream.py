"""`WriteStream`: batches come in while those before them are being made durable.

A task reads batches and queues them with the writer, as far as the window allows; the call answers with what became of
them, in order. When a batch fails, the call ends with its status, after those before it are acknowledged.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeVar

from ccms.v1.metric_store_service_pb2 import BatchResult, WriteStreamOpened, WriteStreamRequest, WriteStreamResponse
from ccms_server.errors import InvalidRequestError, LimitExceededError, NotReadyError
from ccms_server.ingest.batches import Batch, ColumnBatch, LineBatch, NumberedBatch
from ccms_server.ingest.numbered_series import NumberedSeries
from ccms_server.model import WriteReport
from ccms_server.rpc.write import read_columns, read_definitions, read_samples, write_summary
from ccms_server.service import MetricService

_Message = TypeVar("_Message")
_Read = TypeVar("_Read")

UNACKNOWLEDGED_BATCHES_MAX: Final = 64
"""Batches of a stream that are read before the first of them is acknowledged."""
BATCH_BYTES_MAX: Final = 4 << 20
"""Largest batch: 200,000 samples. Parsing it keeps the event loop busy for some milliseconds."""
INLINE_MESSAGES_MAX: Final = 128
"""Columns or definitions that are read on the event loop, in about a millisecond; more are left to a thread."""


@dataclass(frozen=True, slots=True)
class _Queued:
    """A batch that was handed to the writer."""

    sequence: int
    report: asyncio.Future[WriteReport]

    def give_up(self) -> None:
        """Nobody waits for it any more; what became of it is of no interest."""
        if not self.report.cancel() and not self.report.cancelled():
            self.report.exception()


@dataclass(frozen=True, slots=True)
class _End:
    """Behind the last batch: why there are no more, unless the client has finished."""

    error: Exception | None = None


_Queue = asyncio.Queue[_Queued | _End]


async def write_stream(
    service: MetricService, requests: AsyncIterator[WriteStreamRequest]
) -> AsyncGenerator[WriteStreamResponse, None]:
    """Stores the batches of a stream, and acknowledges them.

    Args:
        service: Where to.
        requests: What the client sends.

    Raises:
        RequestError: A message breaks a rule; batches before it are stored.
        NotReadyError: The server is starting or stopping; what is acknowledged is stored.
        MetricStoreError: A batch could not be stored, nor were those behind it; see `MetricService.write_lines`.
    """
    first = await anext(requests, None)
    if first is None:
        return
    if not first.HasField("opening"):
        raise InvalidRequestError("opening", "is required in the first message of a call")
    name, first_sequence = first.opening.stream_id, first.opening.first_sequence
    if first_sequence < 1:
        raise InvalidRequestError("opening.first_sequence", "must be at least 1: the number of the first batch to come")
    last = await service.resume_stream(name, first_sequence)
    reader = _Reader(service, name, first_sequence, last)
    yield WriteStreamResponse(
        opened=WriteStreamOpened(
            last_sequence=last,
            unacknowledged_batches_max=UNACKNOWLEDGED_BATCHES_MAX,
            batch_bytes_max=reader.batch_bytes_max,
        )
    )
    queue: _Queue = asyncio.Queue()  # bounded by the window of the reader
    reading = asyncio.create_task(reader.read(first, requests, queue))
    draining = asyncio.create_task(service.draining.wait())
    draining.add_done_callback(lambda _: reading.cancel())
    try:
        async with aclosing(_acknowledgements(queue, reader.window)) as responses:
            async for response in responses:
                yield response
    finally:
        reading.cancel()
        draining.cancel()
        await asyncio.wait((reading, draining))
        while not queue.empty():
            left = queue.get_nowait()
            if isinstance(left, _Queued):
                left.give_up()


async def _acknowledgements(queue: _Queue, window: asyncio.Semaphore) -> AsyncGenerator[WriteStreamResponse, None]:
    """Answers for batches in order, as soon as they are done, and for several at once if they are."""
    following: _Queued | _End | None = await queue.get()
    try:
        while not isinstance(following, _End):
            response = WriteStreamResponse()
            while isinstance(following, _Queued) and (not response.results or _is_stored(following)):
                report = await following.report
                window.release()
                response.acknowledged_sequence = following.sequence
                response.results.append(
                    BatchResult(
                        sequence=following.sequence,
                        summary=write_summary(report),
                        already_stored=report.already_stored,
                    )
                )
                following = None if queue.empty() else queue.get_nowait()
            yield response
            if following is None:
                following = await queue.get()
        if following.error is not None:
            raise following.error
    finally:
        if isinstance(following, _Queued):
            following.give_up()


def _is_stored(queued: _Queued) -> bool:
    return queued.report.done() and not queued.report.cancelled() and queued.report.exception() is None


class _Reader:
    """Reads the batches of a call, and hands them to the writer.

    Attributes:
        batch_bytes_max: Size of a batch.
        window: Places for batches that are not acknowledged.
    """

    def __init__(self, service: MetricService, name: str, first_sequence: int, last_sequence: int) -> None:
        self.batch_bytes_max = min(BATCH_BYTES_MAX, service.limits.request_bytes)
        self.window = asyncio.Semaphore(UNACKNOWLEDGED_BATCHES_MAX)
        self._service = service
        self._name = name
        self._allowed = range(first_sequence, last_sequence + 2)  # numbers that the next batch may have
        self._known = NumberedSeries()

    async def read(self, first: WriteStreamRequest, requests: AsyncIterator[WriteStreamRequest], queue: _Queue) -> None:
        """Reads until the client has finished, something is wrong, or the server is about to stop."""
        try:
            if first.WhichOneof("batch") is not None:
                await self._queue_batch(first, queue)
            async for request in requests:
                if request.HasField("opening"):
                    raise InvalidRequestError("opening", "belongs into the first message of a call only")
                await self._queue_batch(request, queue)
        except asyncio.CancelledError:
            if not self._service.draining.is_set():
                raise
            queue.put_nowait(_End(NotReadyError("stopping")))
        except Exception as error:  # is raised where the call is answered
            queue.put_nowait(_End(error))
        else:
            queue.put_nowait(_End())

    async def _queue_batch(self, request: WriteStreamRequest, queue: _Queue) -> None:
        sequence = request.sequence
        if sequence not in self._allowed:
            expected = " to ".join(f"{number:,}" for number in sorted({self._allowed[0], self._allowed[-1]}))
            raise InvalidRequestError("sequence", f"is {sequence:,}, but this batch has to be {expected}")
        self._allowed = range(sequence + 1, sequence + 2)
        if request.ByteSize() > self.batch_bytes_max:
            raise LimitExceededError(
                "bytes in one batch", request.ByteSize(), self.batch_bytes_max, "send smaller batches"
            )
        batch = await self._batch(request)
        await self.window.acquire()
        report = await self._service.write_to_stream(batch, self._name, sequence)
        queue.put_nowait(_Queued(sequence, report))

    async def _batch(self, request: WriteStreamRequest) -> Batch:
        match request.WhichOneof("batch"):
            case "samples":
                definitions = await _read_many(read_definitions, request.samples.new_series)
                return NumberedBatch(self._known, definitions, *read_samples(request.samples))
            case "columns":
                return ColumnBatch(await _read_many(read_columns, request.columns.columns))
            case "lines":
                return LineBatch(request.lines.payload, request.lines.default_cluster)
            case _:
                raise InvalidRequestError("batch", "is required: `samples`, `columns` or `lines`")


async def _read_many(read: Callable[[Sequence[_Message]], list[_Read]], messages: Sequence[_Message]) -> list[_Read]:
    """Reads messages, on a thread if there are many."""
    return await asyncio.to_thread(read, messages) if len(messages) > INLINE_MESSAGES_MAX else read(messages)
