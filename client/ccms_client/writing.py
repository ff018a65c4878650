"""Calls that store samples, one answer for each."""

import uuid
from collections.abc import Callable, Iterable

from ccms.v1.metric_store_service_pb2 import WriteLineProtocolRequest, WriteRequest
from ccms_client.connection import Connection
from ccms_client.messages import column_message, write_result
from ccms_client.samples import BatchResult, SampleColumn, WriteResult
from ccms_client.stream_writer import BATCH_SAMPLES, LINGER_SECONDS, UNACKNOWLEDGED_BYTES_MAX, StreamWriter


class WritingCalls:
    """Calls that store samples."""

    _connection: Connection

    async def write(
        self, columns: Iterable[SampleColumn], *, request_id: str | None = None, deadline_seconds: float | None = None
    ) -> WriteResult:
        """Stores columns of samples; a later sample of the same time replaces an earlier one.

        For more than a few calls, `writer` is faster.

        Args:
            columns: Runs of samples, at most 65,536.
            request_id: What the write is called when it is sent again; None: a new name, which is kept while gRPC tries
                again by itself. Callers who give it a name may send the same write again without storing it twice.
            deadline_seconds: Time for the call; None: that of the client.

        Returns:
            What became of it; everything that was stored is visible to queries.

        Raises:
            ClientError: Nothing was stored, or it is not known.
            ValueError: A column has no times.

        >>> from ccms_client import SampleColumn
        >>> column = SampleColumn(metric="cpu_load", cluster="alex", host="n1", start=1700000000, values=[1.0, 2.0])
        >>> result = await client.write([column])
        >>> result.stored
        2
        """
        request = WriteRequest(
            columns=[column_message(column) for column in columns], request_id=request_id or str(uuid.uuid4())
        )
        response = await self._connection.call(self._connection.store.Write, request, deadline_seconds)
        return write_result(response.summary, already_stored=response.already_stored)

    async def write_lines(
        self,
        payload: bytes,
        default_cluster: str = "",
        *,
        request_id: str | None = None,
        deadline_seconds: float | None = None,
    ) -> WriteResult:
        r"""Stores a batch of InfluxDB line protocol.

        Args:
            payload: UTF-8 text, one sample a line.
            default_cluster: Cluster of lines without a `cluster` tag; empty: such lines are rejected.
            request_id: See `write`.
            deadline_seconds: See `write`.

        Returns:
            What became of it; everything that was stored is visible to queries.

        Raises:
            ClientError: Nothing was stored, or it is not known.

        >>> result = await client.write_lines(b"cpu_load,hostname=n2 value=0.5 1700000000\ncpu_load value=0.5", "alex")
        >>> result.stored, result.rejected
        (1, {'MISSING_HOST': 1})
        """
        request = WriteLineProtocolRequest(
            payload=payload, default_cluster=default_cluster, request_id=request_id or str(uuid.uuid4())
        )
        response = await self._connection.call(self._connection.store.WriteLineProtocol, request, deadline_seconds)
        return write_result(response.summary, already_stored=response.already_stored)

    def writer(
        self,
        *,
        stream_id: str | None = None,
        batch_samples: int = BATCH_SAMPLES,
        linger_seconds: float = LINGER_SECONDS,
        unacknowledged_bytes_max: int = UNACKNOWLEDGED_BYTES_MAX,
        give_up_seconds: float | None = None,
        on_acknowledged: Callable[[BatchResult], None] | None = None,
    ) -> StreamWriter:
        """Makes a writer for many samples: it sends them in batches, and again when the connection was lost.

        Args:
            stream_id: What the stream is called; None: a new name. One stream has one writer.
            batch_samples: Samples of a batch, at most 100,000.
            linger_seconds: How long samples wait for a batch to become full.
            unacknowledged_bytes_max: Bytes of batches that are kept until they are acknowledged; writing waits when
                there are more, as it does when the server allows no more batches on their way.
            give_up_seconds: How long to try to reach the server; None: for ever, with a warning in the log each time.
            on_acknowledged: Is called for each batch, in order, when it is stored.

        Returns:
            An async context manager. Leaving it waits for all acknowledgements.

        Raises:
            ValueError: `batch_samples` is out of range.

        >>> from ccms_client import SeriesKey
        >>> keys = [SeriesKey("cpu_load", "alex", f"n{number}") for number in range(100)]
        >>> async with client.writer() as writer:
        ...     numbers = writer.define(keys)
        ...     for cycle in range(10):
        ...         await writer.write_numbers(numbers, 1700000000 + 60 * cycle, np.full(100, 0.5))
        >>> writer.result.stored
        1000
        """
        return StreamWriter(
            self._connection,
            stream_id=stream_id,
            batch_samples=batch_samples,
            linger_seconds=linger_seconds,
            unacknowledged_bytes_max=unacknowledged_bytes_max,
            give_up_seconds=give_up_seconds,
            on_acknowledged=on_acknowledged,
        )
