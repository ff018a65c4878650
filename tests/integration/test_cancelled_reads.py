"""Readers that go on and on, until the one who waits for them goes away."""

import asyncio
import json
from threading import Event

import numpy as np
import pytest
from grpc import aio
from helpers.server import server_inside
from helpers.waiting import eventually

from ccms.v1 import metric_store_service_pb2 as service_pb
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms_client import SampleColumn
from ccms_server.store.cancellation import CancelledReadError
from ccms_server.store.read import Reader
from ccms_server.store.span import N_SLOTS

START = 1_700_000_000 // 60 * 60
SLOTS = 5000
"""More than is read at once, on the event loop."""
REQUEST = service_pb.QueryRequest(
    cluster="alex",
    start_seconds=START,
    end_seconds=START + 60 * SLOTS,
    queries=[service_pb.SeriesQuery(metric="load", host="n1")] * 3,
)


class Endless:
    """Takes the place of reading: it looks whether it is cancelled, again and again.

    Attributes:
        begun: Set when it has begun.
        cancelled: Set when it has ended by that.
    """

    def __init__(self):
        self.begun, self.cancelled = Event(), Event()
        self._given_up = Event()

    def read(self, reader, sources):
        self.begun.set()
        try:
            while not self._given_up.wait(0.001):
                reader.cancellation.check()
        except CancelledReadError:
            self.cancelled.set()
            raise
        sizes = sources.spans.table[:, N_SLOTS]
        return np.zeros(sizes.sum()), np.array([0, *np.cumsum(sizes)])

    def give_up(self):
        self._given_up.set()


@pytest.fixture
async def server():
    async with server_inside(metrics={"load": {"frequency": 60}}) as running:
        column = SampleColumn(metric="load", cluster="alex", host="n1", start=START, values=np.arange(float(SLOTS)))
        assert (await running.grpc.write([column])).stored == SLOTS
        yield running


@pytest.fixture
def endless(server, monkeypatch):
    reading = Endless()
    monkeypatch.setattr(Reader, "read", lambda reader, sources: reading.read(reader, sources))
    yield reading
    reading.give_up()


async def test_a_call_that_is_cancelled_ends_the_read(server, endless):
    async with aio.insecure_channel(server.grpc_address) as channel:
        call = MetricStoreServiceStub(channel).Query(REQUEST)
        await eventually(endless.begun.is_set, "a read")
        assert not endless.cancelled.is_set()
        call.cancel()
        await eventually(endless.cancelled.is_set, "the end of the read")


async def test_a_deadline_ends_the_read(server, endless):
    async with aio.insecure_channel(server.grpc_address) as channel:
        call = MetricStoreServiceStub(channel).Query(REQUEST, timeout=0.1)
        with pytest.raises(aio.AioRpcError):
            await call.read()
        await eventually(endless.cancelled.is_set, "the end of the read")


async def test_a_rest_client_that_goes_away_ends_the_read(server, endless):
    queries = [{"metric": "load", "host": "n1"}] * 3
    body = json.dumps({"cluster": "alex", "from": START, "to": START + 60 * SLOTS, "queries": queries})
    _, writer = await server.rest.connect()
    head = f"POST /api/query HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body.encode())
    await eventually(endless.begun.is_set, "a read")
    assert not endless.cancelled.is_set()
    writer.close()
    await eventually(endless.cancelled.is_set, "the end of the read")


async def test_reads_that_were_cancelled_leave_their_threads_to_others(server, endless, monkeypatch):
    async with aio.insecure_channel(server.grpc_address) as channel:
        stub = MetricStoreServiceStub(channel)
        calls = [stub.Query(REQUEST) for _ in range(20)]
        await eventually(endless.begun.is_set, "a read")
        for call in calls:
            call.cancel()
        await eventually(endless.cancelled.is_set, "the end of the read")
        monkeypatch.undo()
        async with asyncio.timeout(30):
            parts = [part async for part in stub.Query(REQUEST)]
    assert [len(part.values) for part in parts] == [SLOTS] * 3
