"""`WriteStream` message by message, as a client in any language would speak it."""

import asyncio
from contextlib import asynccontextmanager
from uuid import uuid4

from grpc import aio

from ccms.v1.metric_store_service_pb2 import (
    ColumnBatch,
    LineBatch,
    WriteStreamOpening,
    WriteStreamRequest,
)
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms.v1.sample_pb2 import SampleBatch, SeriesDefinition, SeriesSelector


class Stream:
    """One call. Sends what it is told to, and keeps what is answered.

    Attributes:
        call: The call.
        opened: The first response, once `open` returned.
        results: All batches that were acknowledged, by number.
        acknowledged: The last number that was acknowledged.
    """

    def __init__(self, call):
        self.call = call
        self.opened = None
        self.results = {}
        self.acknowledged = 0

    async def open(self, stream_id=None, first_sequence=1, **first):
        stream_id = str(uuid4()) if stream_id is None else stream_id
        opening = WriteStreamOpening(stream_id=stream_id, first_sequence=first_sequence)
        await self.call.write(WriteStreamRequest(opening=opening, **first))
        response = await self.call.read()
        if response is aio.EOF:
            await self.call.initial_metadata()
            raise AssertionError(f"not opened: {await self.call.code()}: {await self.call.details()}")
        self.opened = response.opened
        return self.opened

    async def send(self, sequence, **batch):
        await self.call.write(WriteStreamRequest(sequence=sequence, **batch))

    async def until(self, sequence):
        """Reads until a batch is acknowledged; returns its result."""
        async with asyncio.timeout(30):
            while self.acknowledged < sequence:
                response = await self.call.read()
                assert response is not aio.EOF, (await self.call.code(), await self.call.details())
                self.acknowledged = response.acknowledged_sequence
                self.results |= {result.sequence: result for result in response.results}
        return self.results[sequence]

    async def end(self):
        """Reads to the end; returns the status."""
        async with asyncio.timeout(30):
            try:
                while (response := await self.call.read()) is not aio.EOF:
                    self.acknowledged = response.acknowledged_sequence
                    self.results |= {result.sequence: result for result in response.results}
            except aio.AioRpcError:
                pass  # the status says so
            return await self.call.code(), await self.call.details()


@asynccontextmanager
async def stream_to(address, **options):
    """A call of `WriteStream` that is cancelled at the end of the context, unless it has ended."""
    async with aio.insecure_channel(address, options=list(options.items())) as channel:
        call = MetricStoreServiceStub(channel).WriteStream()
        try:
            yield Stream(call)
        finally:
            call.cancel()


def samples(numbers, times, values, new=(), metric="load"):
    """A batch of samples; `new` are numbers and hosts."""
    definitions = [
        SeriesDefinition(number=number, metric=metric, selector=SeriesSelector(cluster="alex", host=host))
        for number, host in new
    ]
    batch = SampleBatch(new_series=definitions, series_numbers=numbers, timestamps_seconds=times, values=values)
    return {"samples": batch}


def lines(payload, default_cluster="alex"):
    """A batch of line protocol."""
    return {"lines": LineBatch(payload=payload, default_cluster=default_cluster)}


def columns(*messages):
    """A batch of columns."""
    return {"columns": ColumnBatch(columns=messages)}
