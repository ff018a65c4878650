"""`WriteStream` over real sockets: numbered batches, acknowledged when they are stored, each stored once."""

import asyncio
import threading

import numpy as np
import pytest
from grpc import StatusCode, aio
from helpers.server import server_inside
from helpers.streams import columns, lines, samples, stream_to
from helpers.waiting import eventually

from ccms.v1 import metric_store_service_pb2 as service_pb
from ccms.v1.metric_store_service_pb2 import WriteStreamRequest
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms.v1.sample_pb2 import RegularTimes, SampleColumn, SeriesSelector
from ccms_client import SeriesQuery
from ccms_server.errors import DiskUnavailableError
from ccms_server.ingest.numbered_series import NUMBER_LIMIT
from ccms_server.ingest.writer import Writer
from ccms_server.rpc.write_stream import BATCH_BYTES_MAX, UNACKNOWLEDGED_BATCHES_MAX

START = 1_700_000_000 // 60 * 60
METRICS = {"load": {"frequency": 60}}


@pytest.fixture
async def server():
    async with server_inside(metrics=METRICS) as running:
        yield running


@pytest.fixture
async def stream(server):
    async with stream_to(server.grpc_address) as stream:
        yield stream


def column(host, *values):
    return SampleColumn(
        metric="load",
        selector=SeriesSelector(cluster="alex", host=host),
        regular_times=RegularTimes(start_seconds=START),
        values=values,
    )


async def held(server, host="n1"):
    [series] = await server.grpc.query("alex", 0, START + 10**6, [SeriesQuery(metric="load", host=host)])
    return series.values.tolist()


async def test_batches_of_every_kind_are_stored_and_acknowledged(server, stream):
    opened = await stream.open("s")
    assert (opened.last_sequence, opened.unacknowledged_batches_max) == (0, UNACKNOWLEDGED_BATCHES_MAX)
    await stream.send(1, **samples([0, 1], [START, START + 60], [1.0, 2.0], new=[(0, "n1"), (1, "n2")]))
    await stream.send(2, **samples([1, 0], [START], [3.0, 4.0]))  # one time for all
    await stream.send(3, **samples([1], [START + 120, START + 180], [5.0, 6.0]))  # one series for all
    await stream.send(4, **columns(column("n3", 7.0, 8.0)))
    await stream.send(5, **lines(b"load,hostname=n4 value=9 %d\n" % START))
    await stream.call.done_writing()
    assert await stream.end() == (StatusCode.OK, "")
    assert stream.acknowledged == 5
    assert {number: result.summary.stored for number, result in stream.results.items()} == {
        1: 2,
        2: 2,
        3: 2,
        4: 2,
        5: 1,
    }
    assert await held(server, "n1") == [4.0]
    assert await held(server, "n2") == [3.0, 2.0, 5.0, 6.0]
    assert (await held(server, "n3"), await held(server, "n4")) == ([7.0, 8.0], [9.0])


async def test_what_is_wrong_with_samples_and_lines_is_told_for_their_batch(stream):
    await stream.open(**samples([0], [START], [1.0, np.inf, np.nan], new=[(0, "n1")]), sequence=1)
    result = await stream.until(1)
    assert (result.summary.stored, result.summary.ignored) == (1, 1)
    assert [(each.index, each.message) for each in result.summary.first_rejected] == [(1, "value inf is not finite")]
    await stream.send(2, **lines(b"load,hostname=n1 value=1 %d\nload value=x\n" % START))
    result = await stream.until(2)
    assert [each.index for each in result.summary.first_rejected] == [2]


async def test_a_stream_that_is_carried_on_stores_each_batch_once(server):
    async with stream_to(server.grpc_address) as stream:
        await stream.open("s", sequence=1, **samples([0], [START], [1.0], new=[(0, "n1")]))
        await stream.until(1)
    await server.grpc.write_lines(b"load,hostname=n1 value=9 %d\n" % START, "alex")
    async with stream_to(server.grpc_address) as stream:
        opened = await stream.open("s", first_sequence=1)
        assert opened.last_sequence == 1
        await stream.send(1, **samples([0], [START], [1.0], new=[(0, "n1")]))
        await stream.send(2, **samples([0], [START + 60], [2.0]))
        await stream.until(2)
        assert [stream.results[number].already_stored for number in (1, 2)] == [True, False]
    assert await held(server) == [9.0, 2.0]
    assert server.service.counters.stored == 3


async def test_a_sender_that_is_told_may_leave_out_what_is_stored(server):
    async with stream_to(server.grpc_address) as stream:
        await stream.open("s", sequence=1, **samples([0], [START], [1.0], new=[(0, "n1")]))
        await stream.until(1)
    async with stream_to(server.grpc_address) as stream:
        assert (await stream.open("s", first_sequence=1)).last_sequence == 1
        await stream.send(2, **samples([0], [START + 60], [2.0], new=[(0, "n1")]))
        await stream.until(2)
    assert await held(server) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (WriteStreamRequest(sequence=3, **lines(b"")), "sequence: is 3, but this batch has to be 2"),
        (WriteStreamRequest(sequence=1, **lines(b"")), "sequence: is 1, but this batch has to be 2"),
        (WriteStreamRequest(sequence=2), "batch: is required"),
        (WriteStreamRequest(sequence=2, opening={}, **lines(b"")), "opening: belongs into the first message"),
        (WriteStreamRequest(sequence=2, **samples([7], [START], [1.0])), "series_numbers: 7 stands for no series"),
        (
            WriteStreamRequest(sequence=2, **samples([0], [START] * 3, [1.0] * 2)),
            "timestamps_seconds: has 3 entries for 2",
        ),
        (WriteStreamRequest(sequence=2, **samples([0] * 3, [START], [1.0] * 2)), "series_numbers: has 3 entries for 2"),
        (WriteStreamRequest(sequence=2, **samples([], [], [], new=[(0, "n2")])), "0 stands for a series already"),
        (WriteStreamRequest(sequence=2, **samples([], [], [], new=[(NUMBER_LIMIT, "n2")])), "4,194,304 is not below"),
        (WriteStreamRequest(sequence=2, **samples([], [], [], new=[(NUMBER_LIMIT - 1, "n2")])), "leaves out too many"),
        (WriteStreamRequest(sequence=2, **lines(b"", "c" * 256)), "default_cluster: is longer than 255"),
        (WriteStreamRequest(sequence=2, **columns(SampleColumn(metric="load"))), r"columns[0].times: is required"),
        (WriteStreamRequest(sequence=2, **lines(bytes(BATCH_BYTES_MAX))), "bytes in one batch: 4,194,"),
    ],
)
async def test_a_message_that_breaks_a_rule_ends_the_call_and_costs_no_batch_before_it(stream, request_, message):
    await stream.open("s", sequence=1, **samples([0], [START], [1.0], new=[(0, "n1")]))
    await stream.call.write(request_)
    code, details = await stream.end()
    assert code is StatusCode.INVALID_ARGUMENT
    assert message in details
    assert stream.acknowledged == 1


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (WriteStreamRequest(sequence=1, **lines(b"")), "opening: is required"),
        (WriteStreamRequest(opening={}), "opening.first_sequence: must be at least 1"),
        (WriteStreamRequest(opening={"first_sequence": 1}), "opening.stream_id: is required"),
        (
            WriteStreamRequest(opening={"first_sequence": 1, "stream_id": "ü" * 33}),
            "opening.stream_id: is longer than 64",
        ),
    ],
)
async def test_an_opening_that_breaks_a_rule_is_refused(stream, first, message):
    await stream.call.write(first)
    code, details = await stream.end()
    assert code is StatusCode.INVALID_ARGUMENT
    assert message in details


async def test_a_call_that_says_nothing_is_fine(stream):
    await stream.call.done_writing()
    assert await stream.end() == (StatusCode.OK, "")


async def test_a_disk_that_refuses_ends_the_call_and_the_rest_is_stored_when_sent_again(server, monkeypatch):
    keeper = server.service._writer._keeper
    original = keeper.put

    def put(placements, writes=()):
        if writes and writes[-1].id.number >= 2:
            raise DiskUnavailableError("No space left on device")
        original(placements, writes)

    monkeypatch.setattr(keeper, "put", put)
    async with stream_to(server.grpc_address) as stream:
        await stream.open("s", sequence=1, **samples([0], [START], [1.0], new=[(0, "n1")]))
        await stream.until(1)
        await stream.send(2, **samples([0], [START + 60], [2.0]))
        await stream.send(3, **samples([0], [START + 120], [3.0]))
        code, details = await stream.end()
        assert (code, stream.acknowledged) == (StatusCode.RESOURCE_EXHAUSTED, 1)
        assert "No space left on device" in details
        assert dict(await stream.call.trailing_metadata())["grpc-retry-pushback-ms"] == "5000"
    monkeypatch.undo()
    async with stream_to(server.grpc_address) as stream:
        assert (await stream.open("s", first_sequence=2)).last_sequence == 1
        await stream.send(2, **samples([0], [START + 60], [2.0], new=[(0, "n1")]))
        await stream.send(3, **samples([0], [START + 120], [3.0]))
        await stream.until(3)
    assert await held(server) == [1.0, 2.0, 3.0]


async def test_a_writer_that_stands_still_holds_senders_back(server, monkeypatch):
    """No more than the window is read, and what is read later is not lost."""
    admitted, go_on = [], asyncio.Event()
    original = Writer.admit

    async def admit(self, batch, write_id):
        admitted.append(write_id.number)
        report = await original(self, batch, write_id)

        async def later():
            await go_on.wait()
            return await report

        return asyncio.ensure_future(later())

    monkeypatch.setattr(Writer, "admit", admit)
    sent = 4 * UNACKNOWLEDGED_BATCHES_MAX
    async with stream_to(server.grpc_address) as stream:
        await stream.open("s", sequence=1, **samples([0], [START], [0.0], new=[(0, "n1")]))

        async def send_all():
            for number in range(2, sent + 1):
                await stream.send(number, **samples([0], [START + 60 * (number - 1)], [float(number - 1)]))

        sending = asyncio.create_task(send_all())
        await eventually(lambda: len(admitted) >= UNACKNOWLEDGED_BATCHES_MAX, "the window is full")
        for _ in range(20):
            await server.grpc.write_lines(b"")  # others are served meanwhile
        assert len(admitted) == UNACKNOWLEDGED_BATCHES_MAX
        go_on.set()
        await stream.until(sent)
        await sending
    assert await held(server) == [float(number) for number in range(sent)]


async def test_a_full_queue_makes_a_stream_wait_instead_of_failing():
    limits = {"queue-bytes": 100_000, "request-bytes": 100_000}
    async with server_inside(metrics=METRICS, limits=limits) as server, stream_to(server.grpc_address) as stream:
        await stream.open("s")
        for number in range(1, 41):
            comment = b"#" * 40_000
            await stream.send(number, **lines(b"load,hostname=n%d value=1 %d\n%b\n" % (number, START, comment)))
        await stream.until(40)
        assert sum(result.summary.stored for result in stream.results.values()) == 40


async def test_a_server_that_stops_acknowledges_what_is_stored_and_says_so():
    async with server_inside(metrics=METRICS) as server, stream_to(server.grpc_address) as stream:
        await stream.open("s", sequence=1, **samples([0], [START], [1.0], new=[(0, "n1")]))
        await stream.until(1)
        begin = asyncio.get_running_loop().time()
        server.stop.set()
        code, details = await stream.end()
        assert (code, details) == (StatusCode.UNAVAILABLE, "server is stopping; try again in 1 s")
        await server.task
        assert asyncio.get_running_loop().time() - begin < 4  # not the grace that calls have to finish


async def test_a_server_that_stops_ends_a_call_whose_client_has_finished(monkeypatch):
    """More is read than may be unacknowledged, and nothing more is to come."""
    async with server_inside(metrics=METRICS) as server, stream_to(server.grpc_address) as stream:
        keeper, go_on = server.service._writer._keeper, threading.Event()
        original = keeper.put

        def put(placements, writes=()):
            assert go_on.wait(30)
            original(placements, writes)

        monkeypatch.setattr(keeper, "put", put)
        await stream.open("s")
        for number in range(1, UNACKNOWLEDGED_BATCHES_MAX + 2):
            await stream.send(number, **samples([0], [START], [1.0], new=[(0, "n1")] if number == 1 else ()))
        await stream.call.done_writing()
        await eventually(lambda: server.service._writer.queued_bytes > 0, "batches wait")
        server.service.drain()
        go_on.set()
        code, _ = await stream.end()
        assert code in (StatusCode.OK, StatusCode.UNAVAILABLE)
        assert stream.acknowledged == server.service.counters.stored > 0


async def test_a_client_that_goes_away_leaves_nothing_behind(server, caplog):
    async with stream_to(server.grpc_address) as stream:
        await stream.open("s")
        for number in range(1, 30):
            await stream.send(number, **samples([0], [START], [1.0], new=[(0, "n1")] if number == 1 else ()))
    await server.grpc.write_lines(b"")

    def is_gone():
        return not [task for task in asyncio.all_tasks() if "write_stream" in repr(task.get_coro())]

    await eventually(is_gone, "the call has ended")
    assert caplog.text == ""


@pytest.mark.parametrize("kind", ["Write", "WriteLineProtocol"])
async def test_a_request_with_an_id_is_stored_once(server, kind):
    requests = {
        "Write": service_pb.WriteRequest(columns=[column("n1", 1.0)], request_id="r"),
        "WriteLineProtocol": service_pb.WriteLineProtocolRequest(
            payload=b"load,cluster=alex,hostname=n1 value=1 %d\n" % START, request_id="r"
        ),
    }
    async with aio.insecure_channel(server.grpc_address) as channel:
        method = getattr(MetricStoreServiceStub(channel), kind)
        assert not (await method(requests[kind])).already_stored
        await server.grpc.write_lines(b"load,hostname=n1 value=2 %d\n" % START, "alex")
        again = await method(requests[kind])
        assert (again.already_stored, again.summary.stored) == (True, 1)
        requests[kind].request_id = "r" * 65
        with pytest.raises(aio.AioRpcError, match="request_id: is longer than 64 bytes"):
            await method(requests[kind])
    assert await held(server) == [2.0]
