"""The connection of a client: made when needed, shared by all calls."""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from grpc import aio

from ccms.v1.admin_service_pb2_grpc import AdminServiceStub
from ccms.v1.catalog_service_pb2_grpc import CatalogServiceStub
from ccms.v1.metric_store_service_pb2 import WriteStreamResponse
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms_client.channel import STORE, open_channel
from ccms_client.errors import ClientError, client_error
from ccms_client.tls import Tls
from ccms_client.tokens import FixedToken, TokenFile

if TYPE_CHECKING:  # the generated modules have these names for type checkers only
    from ccms.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from ccms.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_COMPRESSION_WISH: Final = ("ccms-response-compression", "gzip")


@dataclass(frozen=True, slots=True)
class _Opened:
    """A channel, with the methods of all services."""

    loop: asyncio.AbstractEventLoop
    channel: aio.Channel
    store: "MetricStoreServiceAsyncStub"
    catalog: "CatalogServiceAsyncStub"
    admin: "AdminServiceAsyncStub"
    write_stream: aio.StreamStreamMultiCallable[bytes, WriteStreamResponse]
    """Takes messages that are encoded already."""


class Connection:
    """One channel to a server, and what every call over it shows."""

    def __init__(
        self,
        address: str,
        *,
        token: FixedToken | TokenFile | None,
        tls: Tls | None,
        compression: bool,
        retries: bool,
        deadline_seconds: float | None,
    ) -> None:
        self.address = address
        self._token = token
        self._tls = tls
        self._compression = compression
        self._retries = retries
        self._deadline_seconds = deadline_seconds
        self._opened: _Opened | None = None
        self._closed = False

    @property
    def store(self) -> "MetricStoreServiceAsyncStub":
        """Methods of `MetricStoreService`."""
        return self._open().store

    @property
    def catalog(self) -> "CatalogServiceAsyncStub":
        """Methods of `CatalogService`."""
        return self._open().catalog

    @property
    def admin(self) -> "AdminServiceAsyncStub":
        """Methods of `AdminService`."""
        return self._open().admin

    @property
    def write_stream(self) -> aio.StreamStreamMultiCallable[bytes, WriteStreamResponse]:
        """`WriteStream`, for messages that are encoded already."""
        return self._open().write_stream

    def _open(self) -> _Opened:
        if self._closed:
            raise RuntimeError(f"the client of {self.address} is closed: make another one")
        loop = asyncio.get_running_loop()
        if self._opened is None:
            channel = open_channel(self.address, self._tls, compression=self._compression, retries=self._retries)
            self._opened = _Opened(
                loop=loop,
                channel=channel,
                store=MetricStoreServiceStub(channel),
                catalog=CatalogServiceStub(channel),
                admin=AdminServiceStub(channel),
                write_stream=channel.stream_stream(
                    f"/{STORE}/WriteStream", response_deserializer=WriteStreamResponse.FromString
                ),
            )
        if self._opened.loop is not loop:
            raise RuntimeError(
                f"the client of {self.address} belongs to the event loop of its first call: make one for each loop"
            )
        return self._opened

    async def close(self) -> None:
        """Cancels the calls that run, and closes the channel; closing again does nothing."""
        self._closed = True
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.channel.close()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call shows.

        Raises:
            TokenFileError: There is a token file that cannot be read.
        """
        shown = (_COMPRESSION_WISH,) if self._compression else ()
        if self._token is None:
            return shown
        # Credentials of a call would do the same, but are not sent without TLS.
        return (("authorization", f"Bearer {self._token.read()}"), *shown)

    async def call(
        self,
        method: aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        deadline_seconds: float | None,
    ) -> _Response:
        """Makes a call with one answer.

        Raises:
            ClientError: It failed.
        """
        with errors_mapped():
            return await method(request, timeout=self._timeout(deadline_seconds), metadata=self.metadata())

    async def stream(
        self,
        method: aio.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        deadline_seconds: float | None,
    ) -> AsyncGenerator[_Response, None]:
        """Makes a call with many answers, which is cancelled when the generator is closed.

        Raises:
            ClientError: It failed.
        """
        call = method(request, timeout=self._timeout(deadline_seconds), metadata=self.metadata())
        try:
            with errors_mapped():
                async for response in call:
                    yield response
        finally:
            call.cancel()  # a caller that has seen enough; without effect on a call that has ended

    def _timeout(self, deadline_seconds: float | None) -> float | None:
        """Time for a call; None: as long as it takes."""
        timeout = self._deadline_seconds if deadline_seconds is None else deadline_seconds
        return None if timeout is None or math.isinf(timeout) else timeout


@contextmanager
def errors_mapped() -> Iterator[None]:
    """Turns a status of gRPC into the exception that fits, as it does a call that nobody but `close` has cancelled.

    Raises:
        ClientError: A call failed.
    """
    try:
        yield
    except aio.AioRpcError as error:
        raise client_error(error) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ClientError("the client was closed while a call ran") from None
