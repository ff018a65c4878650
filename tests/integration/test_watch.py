"""`Watch` over real sockets: samples as they are stored."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from grpc import StatusCode, aio
from helpers.server import server_inside
from helpers.waiting import eventually

from ccms.v1.metric_store_service_pb2 import WatchRequest, WriteLineProtocolRequest
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms.v1.sample_pb2 import SeriesMatcher
from ccms_server import watches as watches_module
from ccms_server.rpc.watch import NEW_SERIES_MAX, SAMPLES_MAX

START = 1_700_000_000 // 60 * 60
METRICS = {"load": {"frequency": 60}, "power": {"frequency": 60}}


class Watching:
    """A call of `Watch`.

    Attributes:
        samples: What was told so far: metric, host, component, time, value.
        missed: Samples that were missed.
        sizes: Number of samples in each message.
    """

    def __init__(self, stub, matcher):
        self.stub = stub
        self.call = stub.Watch(WatchRequest(matcher=matcher))
        self.samples = []
        self.missed = 0
        self.sizes = []
        self._names = {}

    async def read(self):
        response = await self.call.read()
        assert response is not aio.EOF, (await self.call.code(), await self.call.details())
        batch = response.samples
        self.missed += response.missed_samples
        for new in batch.new_series:
            assert new.number not in self._names
            self._names[new.number] = (new.metric, new.selector.host, new.selector.component.type)
        self.sizes.append(len(batch.values))
        for number, time, value in zip(batch.series_numbers, batch.timestamps_seconds, batch.values, strict=True):
            self.samples.append((*self._names[number], time, value))

    async def until(self, count):
        async with asyncio.timeout(30):
            while len(self.samples) + self.missed < count:
                await self.read()
        return self.samples


@asynccontextmanager
async def watch(server, **matcher):
    """A watch that has begun."""
    async with aio.insecure_channel(server.grpc_address) as channel:
        watching = Watching(MetricStoreServiceStub(channel), SeriesMatcher(**matcher))
        await watching.read()
        assert watching.sizes == [0]
        yield watching
        watching.call.cancel()


@pytest.fixture
async def server():
    async with server_inside(metrics=METRICS) as running:
        yield running


async def write(server, *lines):
    text = "".join(f"{line} {START}\n" if line.count(" ") == 1 else f"{line}\n" for line in lines)
    result = await server.grpc.write_lines(text.encode(), "alex")
    assert not result.rejected


async def test_what_is_stored_is_told_in_order_whether_the_series_is_new_or_not(server):
    await write(server, "load,hostname=n1 value=1", "load,hostname=n2 value=1")
    async with watch(server, hosts=["n[13]"], metrics=["load"]) as watching:
        await write(server, "load,hostname=n1 value=2", "power,hostname=n1 value=3", "load,hostname=n3 value=4")
        await write(server, "load,hostname=n2 value=5", f"load,hostname=n1 value=6 {START + 70}")
        assert await watching.until(3) == [
            ("load", "n1", "", START, 2.0),
            ("load", "n3", "", START, 4.0),
            ("load", "n1", "", START + 60, 6.0),
        ]


async def test_samples_of_components_or_of_hosts_alone_can_be_watched(server):
    lines = "load,hostname=n1 value=1", "load,hostname=n1,type=socket,type-id=0 value=2", "power,hostname=n1 value=3"
    async with watch(server, components=[""]) as hosts, watch(server, components=["socket*"]) as sockets:
        await write(server, *lines)
        assert [sample[-1] for sample in await hosts.until(2)] == [1.0, 3.0]
        assert [sample[-1] for sample in await sockets.until(1)] == [2.0]


async def test_rejected_samples_and_repeated_writes_are_not_told(server):
    async with watch(server) as watching:
        payload = b"load,cluster=alex,hostname=n1 value=1 %d\nload value=1\n" % START
        for _ in range(2):
            await watching.stub.WriteLineProtocol(WriteLineProtocolRequest(payload=payload, request_id="r"))
        await write(server, "load,hostname=n2 value=2")
        assert [sample[1] for sample in await watching.until(2)] == ["n1", "n2"]


async def test_many_series_come_in_messages_of_bounded_size(server):
    count = 2 * SAMPLES_MAX + 10
    async with watch(server) as watching:
        for _ in range(2):
            await write(server, *[f"load,hostname=n{number} value={number}" for number in range(count)])
        await watching.until(2 * count)
        assert [sample[-1] for sample in watching.samples] == [float(number) for number in range(count)] * 2
        assert max(watching.sizes) <= SAMPLES_MAX
        assert max(watching.sizes[: count // NEW_SERIES_MAX]) <= NEW_SERIES_MAX


async def test_a_watch_that_is_not_read_stalls_nobody_and_is_told_what_it_missed(server, monkeypatch):
    monkeypatch.setattr(watches_module, "SAMPLES_KEPT_MAX", 20_000)
    per_write, rounds = 10_000, 200
    lines = [f"load,hostname=n{number} value=1" for number in range(per_write)]
    async with watch(server) as stalled, watch(server, hosts=["n7"]) as other:
        for _ in range(rounds):
            await write(server, *lines)
        assert len(await other.until(rounds)) == rounds
        assert server.service.counters.stored == per_write * rounds
        await stalled.until(per_write * rounds)
        assert stalled.missed > 0
        assert len(stalled.samples) + stalled.missed == per_write * rounds


async def test_a_selection_that_comes_to_too_many_series_is_refused():
    async with server_inside(metrics=METRICS, limits={"query-series": 2}) as server:
        await write(server, *[f"load,hostname=n{number} value=1" for number in range(3)])
        async with aio.insecure_channel(server.grpc_address) as channel:
            call = MetricStoreServiceStub(channel).Watch(WatchRequest())
            with pytest.raises(aio.AioRpcError, match="series in one watch: 3 exceed the limit of 2"):
                await call.read()
        async with watch(server, hosts=["n[0-3]"], metrics=["power"]) as watching:
            await write(server, *[f"power,hostname=n{number} value=1" for number in range(3)])
            with pytest.raises(aio.AioRpcError, match="series in one watch: 3 exceed the limit of 2"):
                await watching.until(3)


async def test_a_watch_ends_with_the_server():
    async with server_inside(metrics=METRICS) as server, watch(server) as watching:
        begin = asyncio.get_running_loop().time()
        server.stop.set()
        with pytest.raises(aio.AioRpcError):
            await watching.read()
        assert await watching.call.code() is StatusCode.UNAVAILABLE
        await server.task
        assert asyncio.get_running_loop().time() - begin < 4  # not the grace that calls have to finish


async def test_a_watch_that_is_cancelled_is_closed(server):
    async with watch(server):
        assert server.service._watches.count == 1
    await eventually(lambda: server.service._watches.count == 0, "the watch is closed")
