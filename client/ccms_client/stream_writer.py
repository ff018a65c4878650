"""Writing at full speed: batches over one call, sent again when the connection is lost, stored once."""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from typing import Final, Self

import numpy as np
from grpc import StatusCode, aio
from numpy.typing import ArrayLike, NDArray

from ccms.v1.metric_store_service_pb2 import (
    ColumnBatch,
    LineBatch,
    WriteStreamOpened,
    WriteStreamOpening,
    WriteStreamRequest,
    WriteStreamResponse,
)
from ccms_client.connection import Connection, errors_mapped
from ccms_client.errors import ClientError, InvalidRequestError, ServerBusyError, ServerUnavailableError
from ccms_client.keys import SeriesKey
from ccms_client.messages import column_message, write_result
from ccms_client.outbox import Outbox
from ccms_client.samples import BatchResult, Sample, SampleColumn, WriteResult
from ccms_client.series_numbers import DefinedNumbers, SeriesNumbers
from ccms_client.times import Time, Times, seconds_array

logger = logging.getLogger(__name__)

BATCH_SAMPLES: Final = 10_000
"""Samples of a batch: large enough to be cheap, small enough to be on its way soon."""
BATCH_SAMPLES_MAX: Final = 100_000
"""Larger ones would reach the limit of the server on the size of a batch."""
LINGER_SECONDS: Final = 0.2
"""How long samples wait for a batch to become full."""
UNACKNOWLEDGED_BYTES_MAX: Final = 32 << 20
"""Bytes of batches that are kept until they are acknowledged."""

BACKOFF_SECONDS: Final = 0.1
"""Time until the first attempt to connect again; it doubles with each, up to the following."""
BACKOFF_SECONDS_MAX: Final = 10.0

_COLUMNS_MAX: Final = 65_536
_TRANSIENT_CODES: Final = frozenset(
    {StatusCode.ABORTED, StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED}  # by what lies between
)

_Call = aio.StreamStreamCall[bytes, WriteStreamResponse]


class StreamWriter:
    """Takes samples, and sends them in numbered batches over one call; see `AsyncClient.writer`.

    Samples that were written are on their way; they are stored when `flush` returns, or the context has been left. When
    the connection is lost, the writer makes another one, and sends again what is not acknowledged. The server knows the
    batches by their numbers: each is stored once.

    A context that is left because of an exception waits for nothing: samples without acknowledgement may be stored or
    not, and the log says how many there were.

    Attributes:
        stream_id: What the stream is called.
        result: What became of the samples that are acknowledged.
        unreported_samples: Samples that are stored as far as they could be, while the answer that said so was lost with
            a connection: what became of each is not in `result`.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        stream_id: str | None,
        batch_samples: int,
        linger_seconds: float,
        unacknowledged_bytes_max: int,
        give_up_seconds: float | None,
        on_acknowledged: Callable[[BatchResult], None] | None,
    ) -> None:
        if not 1 <= batch_samples <= BATCH_SAMPLES_MAX:
            raise ValueError(f"`batch_samples` is {batch_samples:,}, but has to be 1 to {BATCH_SAMPLES_MAX:,}")
        self.stream_id = stream_id or str(uuid.uuid4())
        self.result = WriteResult()
        self.unreported_samples = 0
        self._connection = connection
        self._numbers = SeriesNumbers()
        self._batch_samples = batch_samples
        self._linger_seconds = linger_seconds
        self._outbox = Outbox(
            batch_samples=batch_samples, linger_seconds=linger_seconds, bytes_max=unacknowledged_bytes_max
        )
        self._give_up_seconds = give_up_seconds
        self._on_acknowledged = on_acknowledged
        self._sending: asyncio.Task[None] | None = None
        self._reached_at = 0.0  # on the clock of the loop: when the server last answered

    async def __aenter__(self) -> Self:
        if self._sending is not None:
            raise RuntimeError("this writer was used already: make another one")
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, error_class: type[BaseException] | None, *_: object) -> None:
        assert self._sending is not None
        try:
            if error_class is None:
                await self._outbox.flush()
            elif self._outbox.sample_count:
                logger.warning(
                    "stream %s is given up, %d samples are not acknowledged", self.stream_id, self._outbox.sample_count
                )
        finally:
            self._sending.cancel()
            await asyncio.wait((self._sending,))

    def define(self, keys: Sequence[SeriesKey]) -> NDArray[np.uint32]:
        """Numbers that stand for series in `write_numbers`, for as long as the writer lasts.

        Returns:
            uint32 array of shape (n_keys,).
        """
        return self._numbers.numbers(keys)

    async def write_numbers(self, numbers: ArrayLike, timestamps: Time | Times, values: ArrayLike) -> None:
        """Writes samples of series that have numbers: the fastest way, no Python is run for a sample.

        Args:
            numbers: Number of each sample's series, from `define`; or one for all.
            timestamps: Time of each sample, or one for all: seconds since the epoch, or datetimes.
            values: Value of each sample; NaN: no sample at that time.

        Raises:
            StreamBrokenError: The stream has ended, because of these or earlier samples.
            ValueError: The arrays do not fit together, or a number was not defined.
        """
        given = np.asarray(numbers)
        if given.size and not (given.dtype.kind in "iu" and given.min() >= 0 and given.max() < len(self._numbers)):
            raise ValueError(f"series are numbered from 0 to {len(self._numbers) - 1:,} here: use those of `define`")
        await self._write(given.astype(np.uint32, copy=False), timestamps, values)

    async def write(self, series: SeriesKey | Sequence[SeriesKey], timestamps: Time | Times, values: ArrayLike) -> None:
        """Writes samples of one series, or of several; see `write_numbers`.

        Args:
            series: Series of each sample, or one for all.
            timestamps: Time of each sample, or one for all: seconds since the epoch, or datetimes.
            values: Value of each sample; NaN: no sample at that time.

        Raises:
            StreamBrokenError: The stream has ended, because of these or earlier samples.
            ValueError: The arrays do not fit together.
        """
        if isinstance(series, SeriesKey):
            await self._write(np.uint32(self._numbers.number(series)), timestamps, values)
        else:
            await self._write(self._numbers.numbers(series), timestamps, values)

    async def write_all(self, samples: Iterable[Sample] | AsyncIterable[Sample]) -> None:
        """Writes samples one after another, as they come. An iterable that waits holds up the event loop.

        Raises:
            StreamBrokenError: The stream has ended, because of these or earlier samples.
        """
        if isinstance(samples, AsyncIterable):
            async for sample in samples:
                await self.write(*sample)
            return
        for chunk in self.chunks(samples):
            await self.write(*chunk)

    def chunks(self, samples: Iterable[Sample]) -> Iterator[tuple[list[SeriesKey], list[float], list[float]]]:
        """Samples as arguments of `write`: as many as make a batch, or come while one may wait."""
        chunk: list[Sample] = []
        ends_at = 0.0
        for sample in samples:
            if not chunk:
                ends_at = time.monotonic() + self._linger_seconds
            chunk.append(sample)
            if len(chunk) == self._batch_samples or time.monotonic() >= ends_at:
                yield _columns_of(chunk)
                chunk = []
        if chunk:
            yield _columns_of(chunk)

    async def write_columns(self, columns: Iterable[SampleColumn]) -> None:
        """Writes columns, which are put together to batches of about the size of others.

        Raises:
            StreamBrokenError: The stream has ended, because of these or earlier samples.
            ValueError: A column has no times.
        """
        batch, sample_count = ColumnBatch(), 0
        for column in columns:
            batch.columns.append(column_message(column))
            sample_count += len(column.values)
            if sample_count >= self._batch_samples or len(batch.columns) == _COLUMNS_MAX:
                await self._write_message(WriteStreamRequest.COLUMNS_FIELD_NUMBER, batch, sample_count)
                batch, sample_count = ColumnBatch(), 0
        if batch.columns:
            await self._write_message(WriteStreamRequest.COLUMNS_FIELD_NUMBER, batch, sample_count)

    async def write_lines(self, payload: bytes, default_cluster: str = "") -> None:
        """Writes line protocol, as one batch: a line without a timestamp has that of the line before it.

        Args:
            payload: UTF-8 text, one sample a line.
            default_cluster: Cluster of lines without a `cluster` tag; empty: such lines are rejected.

        Raises:
            StreamBrokenError: The stream has ended, because of these or earlier samples.
        """
        batch = LineBatch(payload=payload, default_cluster=default_cluster)
        line_count = payload.count(b"\n") + (not payload.endswith(b"\n"))
        await self._write_message(WriteStreamRequest.LINES_FIELD_NUMBER, batch, line_count)

    async def flush(self) -> None:
        """Waits until all samples that were written are acknowledged: durable, and visible to queries.

        Raises:
            StreamBrokenError: The stream has ended before.
        """
        self._check_entered()
        await self._outbox.flush()

    async def _write(
        self, numbers: NDArray[np.uint32] | np.uint32, timestamps: Time | Times, values: ArrayLike
    ) -> None:
        self._check_entered()
        numbers, seconds = np.atleast_1d(numbers, seconds_array(timestamps))
        column = np.atleast_1d(np.asarray(values, np.float64))
        for name, given in (("series", numbers), ("timestamps", seconds), ("values", column)):
            if given.ndim != 1 or given.size not in (1, column.size):
                raise ValueError(
                    f"`{name}` has the shape {given.shape}, for {column.size:,} values: one for each, or one"
                )
        n_samples = column.size
        await self._outbox.add_samples(np.broadcast_to(numbers, n_samples), np.broadcast_to(seconds, n_samples), column)

    async def _write_message(self, field: int, message: ColumnBatch | LineBatch, sample_count: int) -> None:
        self._check_entered()
        await self._outbox.add_message(field, message.SerializeToString(), sample_count)

    def _check_entered(self) -> None:
        if self._sending is None:
            raise RuntimeError("a writer is a context manager: `async with client.writer() as writer`")

    async def _send(self) -> None:
        """Sends until it is cancelled, or the stream fails for good."""
        try:
            await self._send_over_calls()
        except asyncio.CancelledError:
            await self._outbox.fail(ClientError("the writer or its client was closed"))
            raise
        except Exception as error:  # is raised where samples are written or flushed
            await self._outbox.fail(error)

    async def _send_over_calls(self) -> None:
        loop = asyncio.get_running_loop()
        self._reached_at = loop.time()
        attempt = 0
        while True:
            called_at = loop.time()
            try:
                await self._send_over_call()
            except ClientError as error:
                given_up = self._give_up_seconds is not None and loop.time() - self._reached_at > self._give_up_seconds
                if given_up or not _is_transient(error):
                    raise
                attempt = 0 if self._reached_at > called_at else attempt + 1
                seconds = _backoff_seconds(attempt, error.retry_after_seconds)
                logger.warning(
                    "stream %s to %s is interrupted, %d samples are not acknowledged; next attempt in %.1f s: %s",
                    self.stream_id,
                    self._connection.address,
                    self._outbox.sample_count,
                    seconds,
                    error,
                )
                await asyncio.sleep(seconds)

    async def _send_over_call(self) -> None:
        """Makes a call, and sends what is not acknowledged, until the call ends.

        Raises:
            ClientError: Always: it says why the call has ended.
        """
        self._outbox.rewind()
        call = self._connection.write_stream(metadata=self._connection.metadata())
        try:
            opening = WriteStreamOpening(stream_id=self.stream_id, first_sequence=self._outbox.first_sequence)
            with errors_mapped():
                await call.write(WriteStreamRequest(opening=opening).SerializeToString())
            opened = (await self._read(call)).opened
            await self._skip_stored(opened)
            tasks = (
                asyncio.create_task(self._send_batches(call, opened.batch_bytes_max)),
                asyncio.create_task(self._read_acknowledgements(call, opened.unacknowledged_batches_max)),
            )
            try:
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            for task in ended:
                task.result()
        finally:
            call.cancel()

    async def _send_batches(self, call: _Call, batch_bytes_max: int) -> None:
        """Sends batch after batch, until the call has ended; why, is told to the one who reads."""
        defined = DefinedNumbers()
        while True:
            batch = await self._outbox.next_unsent()
            request = batch.request(self._numbers.definitions(defined.add(batch.numbers)))
            if len(request) > batch_bytes_max:
                raise InvalidRequestError(
                    f"a batch of {batch.sample_count:,} samples has {len(request):,} bytes, the server takes at most "
                    f"{batch_bytes_max:,}: write less at a time, or with a smaller `batch_samples`"
                )
            try:
                with errors_mapped():
                    await call.write(request)
            except (ClientError, asyncio.InvalidStateError):
                return

    async def _read_acknowledgements(self, call: _Call, window: int) -> None:
        while True:
            response = await self._read(call)
            results = {result.sequence: result for result in response.results}
            for batch in await self._outbox.acknowledge(response.acknowledged_sequence, window=window):
                told = results.get(batch.sequence)
                result = told and write_result(told.summary, already_stored=told.already_stored)
                self._acknowledged(BatchResult(batch.sequence, batch.sample_count, result))

    async def _skip_stored(self, opened: WriteStreamOpened) -> None:
        """Takes batches for acknowledged that the server has, while the connection was lost before it could say so.

        The next batch goes alone: if it is the one that ended the last call, no other that is on its way hides why.
        """
        for batch in await self._outbox.acknowledge(opened.last_sequence, window=1):
            self._acknowledged(BatchResult(batch.sequence, batch.sample_count, None))

    def _acknowledged(self, batch: BatchResult) -> None:
        if batch.result is None:
            self.unreported_samples += batch.sample_count
        else:
            self.result += batch.result
        if self._on_acknowledged is not None:
            self._on_acknowledged(batch)

    async def _read(self, call: _Call) -> WriteStreamResponse:
        with errors_mapped():
            response = await call.read()
        self._reached_at = asyncio.get_running_loop().time()
        if not isinstance(response, WriteStreamResponse):
            raise ServerUnavailableError("the server has ended the stream")
        return response


def _columns_of(samples: list[Sample]) -> tuple[list[SeriesKey], list[float], list[float]]:
    return (
        [sample.series for sample in samples],
        [sample.timestamp for sample in samples],
        [sample.value for sample in samples],
    )


def _is_transient(error: ClientError) -> bool:
    """Whether the same may work later."""
    return isinstance(error, ServerBusyError | ServerUnavailableError) or error.code in _TRANSIENT_CODES


def _backoff_seconds(attempt: int, retry_after_seconds: float | None) -> float:
    """Time until the next attempt: longer with each, at random so that clients do not come all at once."""
    backoff = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * 2.0 ** min(attempt, 20))
    return max(backoff * random.uniform(0.5, 1.0), retry_after_seconds or 0.0)
