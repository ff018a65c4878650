"""What is the same for all gRPC calls: details of errors, limits, compression."""

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode, aio
from helpers.relay import relay_to
from helpers.server import server_inside
from helpers.streams import stream_to

from ccms.v1 import metric_store_service_pb2 as service_pb
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms_client import InvalidRequestError, SampleColumn, SeriesQuery
from ccms_server.errors import ConfigError, DirectoryError, MetricStoreError, QueueFullError
from ccms_server.rpc import errors
from ccms_server.rpc.call_limits import CALLS_MAX, OTHER_CALLS_MAX, WATCHES_MAX, WRITE_STREAMS_MAX
from ccms_server.rpc.server import KEEPALIVE
from ccms_server.service import MetricService

START = 1_700_000_040
METRICS = {"load": {"frequency": 60}}
PREFIX = "/ccms.v1.MetricStoreService"


@pytest.fixture
async def server():
    async with server_inside(metrics=METRICS) as running:
        yield running


@pytest.fixture
async def channel(server):
    async with aio.insecure_channel(server.grpc_address) as channel:
        yield channel


def details(error):
    """What a status says for programs, by kind."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found = {}
    for detail in status.details:
        kind = getattr(error_details_pb2, detail.TypeName().rpartition(".")[2])
        found[kind.__name__] = kind()
        assert detail.Unpack(found[kind.__name__])
    return found


async def failure(call):
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    return raised.value


# --- errors


async def test_a_field_that_breaks_a_rule_is_named_for_programs(channel):
    error = await failure(MetricStoreServiceStub(channel).Write(service_pb.WriteRequest(columns=[{"metric": "load"}])))
    found = details(error)
    assert (found["ErrorInfo"].reason, found["ErrorInfo"].domain) == ("INVALID_FIELD", "ccms.v1")
    [violation] = found["BadRequest"].field_violations
    assert (violation.field, violation.description) == (
        "columns[0].times",
        "is required: `timestamps` or `regular_times`",
    )


async def test_a_limit_comes_with_its_numbers(server):
    with pytest.raises(InvalidRequestError) as raised:
        await server.grpc.write([SampleColumn(metric="load", cluster="c", host="h", start=0, values=[])] * 65_537)
    assert raised.value.reason == "LIMIT_EXCEEDED"
    assert raised.value.metadata == {"what": "columns in one request", "asked": "65537", "limit": "65536"}


async def test_a_server_that_is_behind_says_when_to_come_back(channel, monkeypatch):
    async def write_lines(self, payload, default_cluster, request_id=""):
        raise QueueFullError(10, 10, retry_after_seconds=3)

    monkeypatch.setattr(MetricService, "write_lines", write_lines)
    error = await failure(MetricStoreServiceStub(channel).WriteLineProtocol(service_pb.WriteLineProtocolRequest()))
    assert error.code() is StatusCode.RESOURCE_EXHAUSTED
    found = details(error)
    assert (found["ErrorInfo"].reason, found["RetryInfo"].retry_delay.seconds) == ("QUEUE_FULL", 3)
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "3000"


def test_each_error_of_a_call_has_a_status_of_its_own_or_of_its_base():
    """Those that end the process before there are calls are left out, and those of files."""

    def all_below(error_class):
        return {error_class}.union(*map(all_below, error_class.__subclasses__()))

    of_start = all_below(ConfigError) | all_below(DirectoryError)
    of_calls = all_below(MetricStoreError) - of_start - {MetricStoreError}
    for error_class in filter(lambda error_class: error_class.__module__ == MetricStoreError.__module__, of_calls):
        assert any(issubclass(error_class, known) for known in errors.STATUS_BY_ERROR), error_class


@pytest.mark.parametrize("method", ["Write", "WriteLineProtocol", "Query", "WriteStream", "Watch"])
async def test_a_request_that_cannot_be_decoded_is_the_clients_fault(channel, method, caplog):
    streams = method == "WriteStream"
    if streams:
        call = channel.stream_stream(f"{PREFIX}/{method}")(iter([b"\xff\xff"]))
    elif method in ("Query", "Watch"):
        call = channel.unary_stream(f"{PREFIX}/{method}")(b"\xff\xff")
    else:
        call = channel.unary_unary(f"{PREFIX}/{method}")(b"\xff\xff")
    assert await call.code() is StatusCode.INVALID_ARGUMENT
    assert "not the message it should be" in await call.details()
    assert [record for record in caplog.records if record.exc_info] == []


# --- limits


def test_limits_of_all_kinds_fit_under_that_of_grpc():
    assert WRITE_STREAMS_MAX + WATCHES_MAX + OTHER_CALLS_MAX < CALLS_MAX


async def test_watches_beyond_their_limit_are_refused_and_leave_places_to_others(server, channel):
    stub = MetricStoreServiceStub(channel)
    watches = [stub.Watch(service_pb.WatchRequest()) for _ in range(WATCHES_MAX)]
    for watch in watches:
        await watch.read()
    error = await failure(stub.Watch(service_pb.WatchRequest()).read())
    assert (error.code(), details(error)["ErrorInfo"].reason) == (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert "calls of Watch: 64 are open" in error.details()
    async with stream_to(server.grpc_address) as stream:
        await stream.open()
    await server.grpc.write_lines(b"load,hostname=n1 value=1 %d\n" % START, "alex")
    watches[0].cancel()
    async with asyncio.timeout(30):
        while True:
            try:
                await stub.Watch(service_pb.WatchRequest()).read()
            except aio.AioRpcError:
                continue
            break


async def test_many_streams_of_writes_are_open_at_the_same_time(server):
    """More than there may be calls of other kinds."""
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(aio.insecure_channel(server.grpc_address))
        calls = []
        for number in range(OTHER_CALLS_MAX + 50):
            opening = service_pb.WriteStreamRequest(opening={"first_sequence": 1, "stream_id": str(number)})
            call = MetricStoreServiceStub(channel).WriteStream()
            stack.callback(call.cancel)
            await call.write(opening)
            calls.append(call)
        for call in calls:
            assert (await call.read()).HasField("opened")


def test_clients_that_ping_every_half_minute_are_welcome():
    options = dict(KEEPALIVE)
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.min_ping_interval_without_data_ms"] <= 30_000
    assert options["grpc.http2.max_pings_without_data"] == 0


# --- compression


async def test_answers_are_compressed_for_those_who_ask(server):
    column = SampleColumn(metric="load", cluster="alex", host="n1", start=START, values=[1.0] * 15_000)
    await server.grpc.write([column])
    queries = [service_pb.SeriesQuery(metric="load", host="n1")]
    request = service_pb.QueryRequest(cluster="alex", start_seconds=START, end_seconds=START + 10**6, queries=queries)
    received = {}
    for name in (None, "gzip", "deflate"):
        metadata = () if name is None else (("ccms-response-compression", name),)
        async with relay_to(server.grpc_address) as relay, aio.insecure_channel(relay.address) as channel:
            parts = [part async for part in MetricStoreServiceStub(channel).Query(request, metadata=metadata)]
        assert sum(len(part.values) for part in parts) == 15_000
        received[name] = relay.received
    assert received[None] > 8 * 15_000
    assert max(received["gzip"], received["deflate"]) < received[None] / 20


async def test_an_unknown_compression_is_refused(channel):
    call = MetricStoreServiceStub(channel).Query(
        service_pb.QueryRequest(), metadata=(("ccms-response-compression", "brotli"),)
    )
    assert await call.code() is StatusCode.INVALID_ARGUMENT
    assert "'brotli' is no compression" in await call.details()


async def test_compressed_requests_are_understood(server):
    async with aio.insecure_channel(server.grpc_address, compression=grpc.Compression.Gzip) as channel:
        payload = b"load,cluster=alex,hostname=n1 value=1 %d\n" % START * 1000
        request = service_pb.WriteLineProtocolRequest(payload=payload)
        assert (await MetricStoreServiceStub(channel).WriteLineProtocol(request)).summary.stored == 1000


async def test_queries_of_nothing_are_answered_with_nothing(server):
    assert list(await server.grpc.query("alex", 0, 10, [])) == []
    [series] = await server.grpc.query("alex", 0, 10, [SeriesQuery(metric="load", host="n1")])
    assert series.error.reason == "NOT_FOUND"
