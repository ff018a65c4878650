"""A server that answers as a test wants it to."""

import asyncio
from contextlib import asynccontextmanager

from grpc import StatusCode, aio

from ccms.v1 import metric_store_service_pb2 as service_pb
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceServicer, add_MetricStoreServiceServicer_to_server


class Refusal:
    """A status that ends a call."""

    def __init__(self, code, details="", trailing=()):
        self.code = code
        self.details = details
        self.trailing = trailing


UNAVAILABLE = Refusal(StatusCode.UNAVAILABLE)
HANGS = object()


class Scripted(MetricStoreServiceServicer):
    """Plays refusals one after another, and answers from then on.

    Attributes:
        refusals: Those left to play; `HANGS` lets a call wait until it is cancelled.
        requests: What was asked, in order.
        metadata: What came with each request.
        cancelled: Set when a call that hung was cancelled.
        called: Set when there was a call.
    """

    def __init__(self, refusals):
        self.refusals = list(refusals)
        self.requests = []
        self.metadata = []
        self.cancelled = asyncio.Event()
        self.called = asyncio.Event()

    async def Write(self, request, context):  # noqa: N802  name of the contract
        await self._play(request, context)
        return service_pb.WriteResponse()

    async def WriteLineProtocol(self, request, context):  # noqa: N802  name of the contract
        await self._play(request, context)
        return service_pb.WriteLineProtocolResponse()

    async def Query(self, request, context):  # noqa: N802  name of the contract
        await self._play(request, context)
        yield service_pb.QueryResponse(header=service_pb.SeriesHeader(metric="load"))

    async def Watch(self, request, context):  # noqa: N802  name of the contract
        await self._play(request, context)
        yield service_pb.WatchResponse()

    async def WriteStream(self, request_iterator, context):  # noqa: N802  name of the contract
        async for request in request_iterator:
            if request.HasField("opening"):
                opened = service_pb.WriteStreamOpened(unacknowledged_batches_max=64, batch_bytes_max=4 << 20)
                yield service_pb.WriteStreamResponse(opened=opened)
            else:
                await self._play(request, context)
                yield service_pb.WriteStreamResponse(acknowledged_sequence=request.sequence)

    async def _play(self, request, context):
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.called.set()
        if not self.refusals:
            return
        refusal = self.refusals.pop(0)
        if refusal is HANGS:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        await context.abort(refusal.code, refusal.details, refusal.trailing)


@asynccontextmanager
async def scripted_server(*refusals):
    """Serves a script; yields it, and the address."""
    servicer = Scripted(refusals)
    server = aio.server()
    add_MetricStoreServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
