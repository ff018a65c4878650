"""The asyncio client."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from grpc import aio

from ccms.v1 import metric_store_service_pb2 as service_pb
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms_client.errors import client_error
from ccms_client.messages import assemble, query_request, write_request, write_result
from ccms_client.model import SampleColumn, Series, SeriesQuery, WriteResult
from ccms_client.tls import Tls

if TYPE_CHECKING:  # the generated module has this name for type checkers only
    from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceAsyncStub

MESSAGE_BYTES_MAX: Final = 64 << 20
"""Largest message sent or taken; what the server takes may be less."""


class AsyncClient:
    r"""Writes samples to a server and queries it, over one gRPC connection that is made when needed and kept.

    ```python
    async with AsyncClient("localhost:8083") as client:
        await client.write_lines(b"cpu_load,hostname=n1 value=0.5 1700000000\n", default_cluster="alex")
        [series] = await client.query("alex", 1700000000, 1700003600, [SeriesQuery(metric="cpu_load", host="n1")])
    ```

    Every method takes the time allowed for the whole call, `deadline_seconds`. Calls are independent of each
    other and may run at the same time.
    """

    def __init__(self, address: str, *, token: str | None = None, tls: Tls | None = None) -> None:
        """Makes a client; nothing is connected before the first call, in whose event loop the client then lives.

        Args:
            address: `host:port`. Whether a server is there is found out by the first call.
            token: JSON Web Token to send with every call; None: none is.
            tls: Encrypts the connection; None: it is not encrypted, and neither is the token.
        """
        self._address = address
        self._tls = tls
        # Credentials of a call would do the same, but are not sent without TLS.
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel: aio.Channel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels the calls that run, and closes the connection; a later call would open another one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    @property
    def _stub(self) -> "MetricStoreServiceAsyncStub":
        if self._channel is None:
            self._channel = self._open_channel()
        return MetricStoreServiceStub(self._channel)

    def _open_channel(self) -> aio.Channel:
        options = [
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ]
        if self._tls is None:
            return aio.insecure_channel(self._address, options=options)
        return aio.secure_channel(self._address, self._tls.credentials(), options=options)

    async def write_lines(
        self, payload: bytes, default_cluster: str = "", *, deadline_seconds: float | None = None
    ) -> WriteResult:
        """Stores a batch of InfluxDB line protocol.

        Args:
            payload: UTF-8 text, one sample a line.
            default_cluster: Cluster of lines without a `cluster` tag; empty: such lines are rejected.
            deadline_seconds: Time for the call; None: no limit.

        Returns:
            What became of it; everything that was stored is visible to queries.

        Raises:
            ClientError: Nothing was stored, or it is not known.
        """
        request = service_pb.WriteLineProtocolRequest(payload=payload, default_cluster=default_cluster)
        with _errors_mapped():
            response = await self._stub.WriteLineProtocol(request, timeout=deadline_seconds, metadata=self._metadata)
        return write_result(response.summary)

    async def write(self, columns: Iterable[SampleColumn], *, deadline_seconds: float | None = None) -> WriteResult:
        """Stores columns of samples; a later sample of the same time replaces an earlier one. See `write_lines`."""
        with _errors_mapped():
            response = await self._stub.Write(write_request(columns), timeout=deadline_seconds, metadata=self._metadata)
        return write_result(response.summary)

    async def query(
        self,
        cluster: str,
        start: int,
        end: int,
        queries: Sequence[SeriesQuery] = (),
        *,
        all_hosts_metrics: Sequence[str] = (),
        with_values: bool = True,
        with_statistics: bool = True,
        deadline_seconds: float | None = None,
    ) -> list[Series]:
        """Reads series of one cluster, all into memory; see `stream` for the arguments and errors."""
        series = self.stream(
            cluster,
            start,
            end,
            queries,
            all_hosts_metrics=all_hosts_metrics,
            with_values=with_values,
            with_statistics=with_statistics,
            deadline_seconds=deadline_seconds,
        )
        return [each async for each in series]

    async def stream(
        self,
        cluster: str,
        start: int,
        end: int,
        queries: Sequence[SeriesQuery] = (),
        *,
        all_hosts_metrics: Sequence[str] = (),
        with_values: bool = True,
        with_statistics: bool = True,
        deadline_seconds: float | None = None,
    ) -> AsyncIterator[Series]:
        """Reads series of one cluster, one after another, in the order asked for.

        Args:
            cluster: Name of the cluster.
            start: Start of the range, inclusive, in seconds since the epoch.
            end: End of the range, exclusive, in seconds since the epoch.
            queries: The series asked for.
            all_hosts_metrics: Metrics to read of every host of the cluster, behind `queries`.
            with_values: False: headers only.
            with_statistics: False: no statistics.
            deadline_seconds: Time for the call; None: no limit.

        Yields:
            The series; one that cannot be answered has an `error`.

        Raises:
            ClientError: The request as a whole cannot be answered.
        """
        request = query_request(
            cluster,
            start,
            end,
            queries,
            all_hosts_metrics=all_hosts_metrics,
            with_values=with_values,
            with_statistics=with_statistics,
        )
        call = self._stub.Query(request, timeout=deadline_seconds, metadata=self._metadata)
        try:
            with _errors_mapped():
                async for series in assemble(call):
                    yield series
        finally:
            call.cancel()  # a caller that has seen enough; without effect on a call that has ended


@contextmanager
def _errors_mapped() -> Iterator[None]:
    try:
        yield
    except aio.AioRpcError as error:
        raise client_error(error) from error
