"""`ccms.v1.MetricStoreService` over the store of this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Final

from ccms.v1.metric_store_service_pb2 import (
    QueryRequest,
    WatchRequest,
    WatchResponse,
    WriteLineProtocolRequest,
    WriteLineProtocolResponse,
    WriteRequest,
    WriteResponse,
    WriteStreamRequest,
    WriteStreamResponse,
)
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceServicer
from ccms_server.rpc.answers import answer_messages
from ccms_server.rpc.errors import Context
from ccms_server.rpc.query import is_small, read_query
from ccms_server.rpc.watch import watch
from ccms_server.rpc.write import read_columns, write_summary
from ccms_server.rpc.write_stream import write_stream
from ccms_server.service import MetricService

INLINE_COLUMNS_MAX: Final = 128
"""Columns that are read on the event loop, in about a millisecond; more are left to a thread."""


class MetricStoreServicer(MetricStoreServiceServicer):
    """Translates between messages and the service; a cancelled call cancels the work it waits for."""

    def __init__(self, service: MetricService) -> None:
        self._service = service

    async def Write(self, request: WriteRequest, context: Context) -> WriteResponse:  # noqa: N802  name of the contract
        """Stores columns of samples."""
        if len(request.columns) > INLINE_COLUMNS_MAX:
            columns = await asyncio.to_thread(read_columns, request.columns)
        else:
            columns = read_columns(request.columns)
        report = await self._service.write_columns(columns, request.request_id)
        return WriteResponse(summary=write_summary(report), already_stored=report.already_stored)

    async def WriteLineProtocol(  # noqa: N802  name of the contract
        self, request: WriteLineProtocolRequest, context: Context
    ) -> WriteLineProtocolResponse:
        """Stores a batch of line protocol."""
        report = await self._service.write_lines(request.payload, request.default_cluster, request.request_id)
        return WriteLineProtocolResponse(summary=write_summary(report), already_stored=report.already_stored)

    async def WriteStream(  # noqa: N802  name of the contract
        self, requests: AsyncIterator[WriteStreamRequest], context: Context
    ) -> AsyncIterator[WriteStreamResponse]:
        """Stores batch after batch."""
        async with aclosing(write_stream(self._service, requests)) as responses:
            async for response in responses:
                yield response

    async def Watch(  # noqa: N802  name of the contract
        self, request: WatchRequest, context: Context
    ) -> AsyncIterator[WatchResponse]:
        """Streams samples as they are stored."""
        async with aclosing(watch(self._service, request)) as responses:
            async for response in responses:
                yield response

    async def Query(  # type: ignore[override]  # noqa: N802  name of the contract
        self, request: QueryRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Streams the series that were asked for, in messages that are serialized already."""
        series_max = self._service.limits.query_series
        if is_small(request):
            asked = read_query(request, series_max)
        else:
            asked = await asyncio.to_thread(read_query, request, series_max)
        encode = partial(answer_messages, bundled=request.bundle_parts)
        async with aclosing(self._service.encoded_query(asked, encode)) as chunks:
            async for messages in chunks:
                for pieces in messages:
                    yield b"".join(pieces)
