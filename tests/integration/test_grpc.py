"""The contract over gRPC, through the public client where it can be, and message by message where it matters."""

import asyncio
import math

import numpy as np
import pytest
from grpc import StatusCode, aio
from helpers.server import server_inside
from helpers.waiting import eventually, lag_measured

from ccms.v1 import metric_store_service_pb2 as service_pb
from ccms.v1 import sample_pb2 as sample_pb
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms_client import (
    AsyncClient,
    Component,
    DeadlineError,
    InvalidRequestError,
    SampleColumn,
    SeriesQuery,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from ccms_client.channel import MESSAGE_BYTES_MAX
from ccms_server.errors import NotReadyError, QueueFullError
from ccms_server.rpc import service as rpc_service
from ccms_server.rpc.answers import PART_VALUES_MAX
from ccms_server.service import MetricService

START, INTERVAL = 1_700_000_000, 60
METRICS = {"cpu_load": {"frequency": INTERVAL}, "flops": {"frequency": INTERVAL, "aggregation": "sum"}}


@pytest.fixture
async def server():
    async with server_inside(metrics=METRICS) as running:
        yield running


def load(host="n1", **settings):
    return SampleColumn(metric="cpu_load", cluster="alex", host=host, **settings)


async def read(server, *queries, start=START, end=START + 100_000 * INTERVAL, **settings):
    return await server.grpc.query("alex", start, end, queries, **settings)


async def test_columns_with_explicit_times(server):
    result = await server.grpc.write([load(timestamps=[START + 120, START], values=[3.0, 1.0])])
    assert (result.stored, result.ignored, result.rejected) == (2, 0, {})
    [series] = await read(server, SeriesQuery(metric="cpu_load", host="n1"))
    np.testing.assert_array_equal(series.values, [1.0, np.nan, 3.0])
    assert series.timestamps.tolist() == [START, START + 60, START + 120]
    assert (series.start, series.end, series.interval) == (START, START + 180, INTERVAL)
    assert (series.statistics.min, series.statistics.avg, series.statistics.max, series.statistics.count) == (
        1,
        2,
        3,
        2,
    )


@pytest.mark.parametrize("interval", [0, INTERVAL])
async def test_columns_with_regular_times(server, interval):
    values = np.arange(500.0)
    assert (await server.grpc.write([load(start=START, interval=interval, values=values)])).stored == 500
    [series] = await read(server, SeriesQuery(metric="cpu_load", host="n1"))
    np.testing.assert_array_equal(series.values, values)


async def test_a_missing_value_of_a_column_is_ignored(server):
    result = await server.grpc.write([load(start=START, values=[1.0, math.nan, 3.0])])
    assert (result.stored, result.ignored) == (2, 1)


async def test_components_and_their_parts(server):
    columns = [
        SampleColumn(
            metric="flops",
            cluster="alex",
            host="n1",
            component=Component("socket", str(socket)),
            subcomponent=Component("core", str(core)) if core is not None else None,
            start=START,
            values=[10.0 * socket + (core or 0)],
        )
        for socket, core in [(0, 0), (0, 1), (1, None)]
    ]
    node = SampleColumn(
        metric="cpu_load", cluster="alex", host="n1", component=Component("node", "0"), start=START, values=[7.0]
    )
    assert (await server.grpc.write([*columns, node])).stored == 4
    sockets = SeriesQuery(metric="flops", host="n1", type="socket", type_ids=["0", "1"])
    core = SeriesQuery(metric="flops", host="n1", type="socket", type_ids=["0"], subtype="core", subtype_ids=["1"])
    both = SeriesQuery(metric="flops", host="n1", type="socket", type_ids=["0", "1"], aggregate=True)
    host = SeriesQuery(metric="cpu_load", host="n1")
    answers = await read(server, sockets, core, both, host)
    assert [(answer.query_index, answer.series_index) for answer in answers] == [(0, 0), (0, 1), (1, 0), (2, 0), (3, 0)]
    assert [answer.values.tolist() for answer in answers] == [[1.0], [10.0], [1.0], [11.0], [7.0]]
    assert [(answer.component, answer.subcomponent) for answer in answers[:3]] == [
        ("socket0", ""),
        ("socket1", ""),
        ("socket0", "core1"),
    ]


async def test_bad_samples_are_explained_and_cost_no_others(server):
    result = await server.grpc.write(
        [
            load(start=START, values=[1.0, math.inf]),
            SampleColumn(metric="nope", cluster="alex", host="n1", start=START, values=[1.0, 2.0]),
            load(host="", start=START, values=[1.0]),
            load(host="../n1", start=START, values=[1.0]),
            load(timestamps=[START], values=[1.0, 2.0]),
            load(host="n2", start=START, values=[5.0]),
        ]
    )
    assert result.stored == 2
    assert result.rejected == {
        "INVALID_NUMBER": 1,
        "UNKNOWN_METRIC": 2,
        "MISSING_HOST": 1,
        "INVALID_NAME": 1,
        "LENGTH_MISMATCH": 2,
    }
    assert [rejection.index for rejection in result.first_rejected] == [1, 2, 3, 4, 5, 6, 7]
    assert "nope" in result.first_rejected[1].message


async def test_bad_lines_are_explained_and_cost_no_others(server):
    result = await server.grpc.write_lines(
        b"cpu_load,hostname=n1 value=1 1700000000\ncpu_load value=2 1700000000\nother value=3\n"
        b"cpu_load,hostname=n1 value=x 1700000060\ncpu_load,hostname=n1 value=4 1700000060\n",
        "alex",
    )
    assert (result.stored, result.ignored, sum(result.rejected.values())) == (2, 1, 2)
    assert [rejection.index for rejection in result.first_rejected] == [2, 4]
    assert result.first_rejected[0].reason == "MISSING_HOST"


@pytest.mark.parametrize(
    ("column", "field"),
    [
        (sample_pb.SampleColumn(metric="cpu_load", values=[1.0]), "columns[1].times"),
        (
            sample_pb.SampleColumn(metric="cpu_load", regular_times=sample_pb.RegularTimes(interval_seconds=-1)),
            "columns[1].regular_times.interval_seconds",
        ),
        (
            sample_pb.SampleColumn(
                metric="cpu_load",
                selector=sample_pb.SeriesSelector(component=sample_pb.Component(id="3")),
                regular_times=sample_pb.RegularTimes(),
            ),
            "columns[1].selector.component.type",
        ),
        (
            sample_pb.SampleColumn(
                metric="cpu_load",
                selector=sample_pb.SeriesSelector(subcomponent=sample_pb.Component(type="core")),
                regular_times=sample_pb.RegularTimes(),
            ),
            "columns[1].selector.subcomponent",
        ),
    ],
)
async def test_a_malformed_column_fails_the_whole_request(server, column, field):
    good = sample_pb.SampleColumn(
        metric="cpu_load",
        selector=sample_pb.SeriesSelector(cluster="alex", host="n1"),
        regular_times=sample_pb.RegularTimes(start_seconds=START),
        values=[1.0],
    )
    async with aio.insecure_channel(server.grpc_address) as channel:
        with pytest.raises(aio.AioRpcError) as raised:
            await MetricStoreServiceStub(channel).Write(service_pb.WriteRequest(columns=[good, column]))
    assert raised.value.code() == StatusCode.INVALID_ARGUMENT
    assert raised.value.details().startswith(f"{field}: ")
    assert server.service.counters.stored == 0


async def test_too_many_columns_are_refused(server):
    with pytest.raises(InvalidRequestError, match="65,536"):
        await server.grpc.write(load(start=START, values=[]) for _ in range(65_537))


async def test_a_long_series_is_sent_in_parts(server):
    values = np.random.default_rng(1).random(2 * PART_VALUES_MAX + 10)
    await server.grpc.write([load(start=START, values=values), load(host="n2", start=START, values=[1.0])])
    request = service_pb.QueryRequest(
        cluster="alex",
        start_seconds=START,
        end_seconds=START + 100_000 * INTERVAL,
        queries=[service_pb.SeriesQuery(metric="cpu_load", host=host) for host in ("n1", "n2", "n3")],
    )
    async with aio.insecure_channel(server.grpc_address) as channel:
        parts = [part async for part in MetricStoreServiceStub(channel).Query(request)]
    assert [(part.query_index, part.offset, len(part.values), part.HasField("header")) for part in parts] == [
        (0, 0, PART_VALUES_MAX, True),
        (0, PART_VALUES_MAX, PART_VALUES_MAX, False),
        (0, 2 * PART_VALUES_MAX, 10, False),
        (1, 0, 1, True),
        (2, 0, 0, True),
    ]
    assert parts[0].header.value_count == values.size
    assert parts[4].header.error.reason == service_pb.SERIES_ERROR_REASON_NOT_FOUND
    [series, *_] = await read(server, SeriesQuery(metric="cpu_load", host="n1"))
    np.testing.assert_array_equal(series.values, values)


async def test_values_and_statistics_can_be_left_out(server):
    await server.grpc.write([load(start=START, values=[1.0, 2.0])])
    query = SeriesQuery(metric="cpu_load", host="n1")
    [without_values] = await read(server, query, with_values=False)
    assert (without_values.values.size, without_values.end, without_values.statistics.max) == (0, START + 120, 2.0)
    [without_statistics] = await read(server, query, with_statistics=False)
    assert (without_statistics.values.tolist(), without_statistics.statistics) == ([1.0, 2.0], None)


async def test_all_hosts_come_behind_the_queries(server):
    await server.grpc.write([load(host=f"n{number}", start=START, values=[number]) for number in (3, 1, 2)])
    answers = await read(server, SeriesQuery(metric="cpu_load", host="n1"), all_hosts_metrics=["cpu_load"])
    assert [(answer.query_index, answer.host, answer.values.tolist()) for answer in answers] == [
        (0, "n1", [1.0]),
        (1, "n3", [3.0]),
        (2, "n1", [1.0]),
        (3, "n2", [2.0]),
    ]


async def test_the_reason_of_an_error_is_told_for_each_series(server):
    await server.grpc.write([load(start=START, values=[1.0])])
    answers = await read(
        server,
        SeriesQuery(metric="nope", host="n1"),
        SeriesQuery(metric="cpu_load", host="nowhere"),
        SeriesQuery(metric="cpu_load", host="n1", resolution=90),
    )
    assert [answer.error.reason for answer in answers] == ["UNKNOWN_METRIC", "NOT_FOUND", "INVALID_RESOLUTION"]
    [inverted] = await read(server, SeriesQuery(metric="cpu_load", host="n1"), start=10, end=5)
    assert inverted.error.reason == "INVALID_RANGE"


async def test_an_answer_over_a_limit_is_refused_at_once():
    async with server_inside(limits={"query-points": 100, "query-series": 3}) as server:
        await server.grpc.write([load(start=START, values=np.arange(200.0))])
        with pytest.raises(InvalidRequestError, match="200 exceed the limit of 100"):
            await read(server, SeriesQuery(metric="cpu_load", host="n1"))
        with pytest.raises(InvalidRequestError, match="series"):
            await read(server, *[SeriesQuery(metric="cpu_load", host="n1")] * 4)


async def test_a_batch_over_the_limit_is_refused():
    async with server_inside(limits={"request-bytes": 100_000, "queue-bytes": 100_000}) as server:
        with pytest.raises(InvalidRequestError, match="100,001"):
            await server.grpc.write_lines(b"#" * 100_001)
        with pytest.raises(InvalidRequestError, match="larger than max"):  # gRPC's own limit
            await server.grpc.write_lines(b"#" * 2_000_000)


async def test_a_message_that_does_not_fit_is_no_reason_to_try_again(server):
    with pytest.raises(InvalidRequestError, match="larger than max"):
        await server.grpc.write_lines(bytes(MESSAGE_BYTES_MAX))


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        (200_000, None),
        (200_001, "200,001 exceed the limit"),
        (1_900_000, "exceed the limit"),
        (3_000_000, "bytes in this request"),
    ],
)
async def test_many_tiny_queries_leave_the_event_loop_to_others(server, monkeypatch, queries, expected):
    async def query(self, request, encode):
        yield []

    monkeypatch.setattr(MetricService, "encoded_query", query)
    message = service_pb.QueryRequest(queries=[service_pb.SeriesQuery()]).SerializeToString() * queries
    async with aio.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_stream("/ccms.v1.MetricStoreService/Query")(message)
        async with lag_measured() as lag:
            code = await call.code()
    assert code == (StatusCode.INVALID_ARGUMENT if expected else StatusCode.OK)
    assert (expected or "") in await call.details()
    assert lag.longest < 1.0


async def test_many_ids_of_one_query_count(server):
    query = SeriesQuery(metric="cpu_load", host="n1", type="core", type_ids=["0"] * 200_001)
    with pytest.raises(InvalidRequestError, match="200,001 exceed the limit"):
        await read(server, query)


@pytest.mark.parametrize(
    ("error", "expected", "retry_after_seconds"),
    [
        (QueueFullError(10, 10, retry_after_seconds=3), ServerBusyError, 3.0),
        (NotReadyError("starting", retry_after_seconds=2), ServerUnavailableError, 2.0),
        (RuntimeError("a defect"), ServerError, None),
    ],
)
async def test_errors_of_the_service_become_those_of_the_client(
    server, monkeypatch, caplog, error, expected, retry_after_seconds
):
    async def write_lines(self, payload, default_cluster, request_id=""):
        raise error

    async def query(self, request, encode):
        raise error
        yield

    monkeypatch.setattr(MetricService, "write_lines", write_lines)
    monkeypatch.setattr(MetricService, "encoded_query", query)
    async with AsyncClient(server.grpc_address, retries=False) as client:
        with pytest.raises(expected) as raised:
            await client.write_lines(b"")
        assert raised.value.retry_after_seconds == retry_after_seconds
        assert isinstance(raised.value.__cause__, aio.AioRpcError)
        with pytest.raises(expected):
            await client.query("alex", START, START + INTERVAL, [SeriesQuery(metric="cpu_load", host="n1")])
    logged = [record for record in caplog.records if record.exc_info]
    assert len(logged) == (2 if expected is ServerError else 0)
    if expected is ServerError:
        assert "a defect" not in str(raised.value)


async def test_a_call_that_is_cancelled_stops_the_work(server, monkeypatch):
    produced, ended = [], asyncio.Event()
    original = MetricService.encoded_query

    async def query(self, request, encode):
        try:
            async for messages in original(self, request, encode):
                while True:
                    produced.append(messages)
                    yield messages
        finally:
            ended.set()

    monkeypatch.setattr(rpc_service.MetricService, "encoded_query", query)
    await server.grpc.write([load(start=START, values=np.arange(50_000.0))])
    async for series in server.grpc.stream("alex", START, START + 10**7, [SeriesQuery(metric="cpu_load", host="n1")]):
        assert series.values.size == 50_000
        break
    async with asyncio.timeout(30):
        await ended.wait()
    count = len(produced)
    await server.grpc.write_lines(b"")  # a round trip later
    assert len(produced) == count


async def test_a_deadline_ends_the_call(server, monkeypatch):
    waiting = asyncio.Event()

    async def write_lines(self, payload, default_cluster, request_id=""):
        try:
            await asyncio.Event().wait()
        finally:
            waiting.set()

    monkeypatch.setattr(MetricService, "write_lines", write_lines)
    with pytest.raises(DeadlineError):
        await server.grpc.write_lines(b"", deadline_seconds=0.05)
    await eventually(waiting.is_set, "the work to be cancelled")


async def test_a_server_that_is_not_there():
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(ServerUnavailableError):
            await client.write_lines(b"")


@pytest.mark.parametrize(
    ("method", "request_bytes"),
    [
        ("Write", b"\xff\xff\xff\x0f"),
        ("WriteLineProtocol", b"\xff\xff\xff\x0f"),
        ("WriteLineProtocol", b"\x12\x02\xff\xfe"),  # a default cluster that is not UTF-8
        ("Query", b"\xff\xff\xff\x0f"),
        ("Query", b"\x0a\x02\xff\xfe"),  # a cluster that is not UTF-8
    ],
)
async def test_a_request_that_is_no_message_is_the_clients_fault(server, method, request_bytes, caplog):
    async with aio.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_stream(f"/ccms.v1.MetricStoreService/{method}")(request_bytes)
        with pytest.raises(aio.AioRpcError) as told:
            await call.read()
    assert told.value.code() is StatusCode.INVALID_ARGUMENT
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_what_the_health_library_lacks_is_unimplemented(server, caplog):
    async with aio.insecure_channel(server.grpc_address) as channel:
        with pytest.raises(aio.AioRpcError) as told:
            await channel.unary_unary("/grpc.health.v1.Health/List")(b"")
    assert told.value.code() is StatusCode.UNIMPLEMENTED
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
