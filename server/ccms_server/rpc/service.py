"""`ccms.v1.MetricStoreService` over the store of this process."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from ccms.v1.metric_store_service_pb2 import (
    QueryRequest,
    QueryResponse,
    WriteLineProtocolRequest,
    WriteLineProtocolResponse,
    WriteRequest,
    WriteResponse,
)
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceServicer
from ccms_server.rpc.errors import Context, errors_as_status
from ccms_server.rpc.query import answer_parts, read_query
from ccms_server.rpc.write import read_columns, write_summary
from ccms_server.service import MetricService

INLINE_COLUMNS_MAX: Final = 128
"""Columns that are read on the event loop, in about a millisecond; more are left to a thread."""


class MetricStoreServicer(MetricStoreServiceServicer):
    """Translates between messages and the service; a cancelled call cancels the work it waits for."""

    def __init__(self, service: MetricService) -> None:
        self._service = service

    async def Write(self, request: WriteRequest, context: Context) -> WriteResponse:  # noqa: N802  name of the contract
        """Stores columns of samples."""
        async with errors_as_status(context):
            if len(request.columns) > INLINE_COLUMNS_MAX:
                columns = await asyncio.to_thread(read_columns, request)
            else:
                columns = read_columns(request)
            report = await self._service.write_columns(columns)
        return WriteResponse(summary=write_summary(report))

    async def WriteLineProtocol(  # noqa: N802  name of the contract
        self, request: WriteLineProtocolRequest, context: Context
    ) -> WriteLineProtocolResponse:
        """Stores a batch of line protocol."""
        async with errors_as_status(context):
            report = await self._service.write_lines(request.payload, request.default_cluster)
        return WriteLineProtocolResponse(summary=write_summary(report))

    async def Query(self, request: QueryRequest, context: Context) -> AsyncIterator[QueryResponse]:  # noqa: N802  as above
        """Streams the series that were asked for."""
        async with errors_as_status(context):
            async for answers in self._service.query(read_query(request)):
                for answer in answers:
                    for part in answer_parts(answer):
                        yield part
