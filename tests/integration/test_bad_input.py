"""Input that no well-meaning client sends: answered clearly, never with a 500, and without taking memory for it."""

import asyncio
import gzip
import json
import zlib

import pytest
import pytest_asyncio
from helpers.server import server_process

from ccms_client import InvalidRequestError, SeriesQuery

pytestmark = pytest.mark.asyncio(loop_scope="module")

METRICS = {
    "cpu_load": {"frequency": 60},
    "every_second": {"frequency": 1},
    "flops": {"frequency": 60, "aggregation": "sum"},
}
GOOD = "cpu_load,cluster=alex,hostname=n1 value=1.5 1700000000"
START, END = 1_700_000_000, 1_700_000_600
MEBIBYTE = 1 << 20
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with server_process(tmp_path_factory.mktemp("server"), metrics=METRICS) as running:
        await running.rest.write(GOOD)
        await running.rest.write(GOOD.replace("cpu_load", "every_second"))
        yield running
        assert await running.terminate() == 0
        assert "Traceback" not in "".join(running.log)


class Growth:
    """How much memory the server took at most since some moment, in bytes."""

    def __init__(self, server):
        self._server = server
        server.forget_resident_peak()
        self._before = server.resident_peak_bytes()

    def peak(self):
        return self._server.resident_peak_bytes() - self._before


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("cpu_load,cluster=alex,hostname value=1 1700000000", "MALFORMED_LINE"),
        ("cpu_load,cluster=alex,hostname=n1", "MISSING_VALUE"),
        ("cpu_load,cluster=alex,hostname= value=1", "MISSING_HOST"),
        ("cpu_load,cluster=alex value=1 1700000000", "MISSING_HOST"),
        ("cpu_load,hostname=n1 value=1 1700000000", "MISSING_CLUSTER"),
        ("cpu_load,cluster=../etc,hostname=n1 value=1 1700000000", "INVALID_NAME"),
        ("cpu_load,cluster=alex,hostname=n1 value=true 1700000000", "UNSUPPORTED_VALUE"),
        ('cpu_load,cluster=alex,hostname=n1 value="up" 1700000000', "UNSUPPORTED_VALUE"),
        ("cpu_load,cluster=alex,hostname=n1 value=NaN 1700000000", "INVALID_NUMBER"),
        ("cpu_load,cluster=alex,hostname=n1 value=1e999 1700000000", "INVALID_NUMBER"),
        ("cpu_load,cluster=alex,hostname=n1 value=0x10 1700000000", "INVALID_NUMBER"),
        ("cpu_load,cluster=alex,hostname=n1 temp=1 1700000000", "UNKNOWN_FIELD"),
        ("cpu_load,cluster=alex,hostname=n1 value=1 yesterday", "INVALID_TIMESTAMP"),
        ("cpu_load,cluster=alex,hostname=n1 value=1 99999999999999999999", "INVALID_TIMESTAMP"),
        ("cpu_load,cluster=alex,hostname=n1 value=1 99000000000", "TOO_NEW"),
        (f"cpu_load,cluster=alex,hostname={'h' * MEBIBYTE} value=1 1700000000", "LINE_TOO_LONG"),
        ("cpu_load,cluster=alex,hostname=n\udcff1 value=1 1700000000", "INVALID_UTF8"),
    ],
    ids=lambda each: each[:60],
)
async def test_a_bad_line_costs_none_of_its_neighbours(server, line, reason):
    host = f"beside-{zlib.crc32(line.encode(errors='surrogateescape'))}"
    good = [f"cpu_load,cluster=alex,hostname={host} value={value} {START + 60 * value}" for value in range(2)]
    lines = "\n".join([good[0], line, good[1]]).encode(errors="surrogateescape")
    answer = await server.rest.write(lines)
    assert answer.status == 400
    assert "2 stored" in answer.json["error"]
    assert "line 2: " in answer.json["error"]
    assert reason in answer.json["error"]
    assert len(answer.body) < 4096
    result = await server.grpc.write_lines(lines)
    assert (result.stored, result.rejected) == (2, {reason: 1})
    assert result.first_rejected[0].index == 2
    [series] = await server.grpc.query("alex", START, END, [SeriesQuery(metric="cpu_load", host=host)])
    assert series.values.tolist() == [0.0, 1.0]


async def test_lines_of_unknown_metrics_are_ignored(server):
    answer = await server.rest.write('nope,cluster=alex,hostname=n1 value=1 1700000000\nevent value="x"\n')
    assert answer.status == 200
    result = await server.grpc.write_lines(b"nope,cluster=alex,hostname=n1 value=1 1700000000\n")
    assert (result.stored, result.ignored, result.rejected) == (0, 1, {})


@pytest.mark.parametrize("payload", [bytes(range(256)) * 4096, b"\0" * MEBIBYTE, b"\n" * MEBIBYTE, b"=, \\" * 250_000])
async def test_garbage_is_answered(server, payload):
    growth = Growth(server)
    assert (await server.rest.write(payload)).status in (200, 400)
    assert (await server.grpc.write_lines(payload)).stored == 0
    assert growth.peak() < 64 * MEBIBYTE


async def raw_exchange(server, request, *, shut=False):
    """Sends bytes, perhaps closes our side, and reads everything that comes back."""
    reader, writer = await server.rest.connect()
    try:
        writer.write(request)
        if shut:
            writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        await asyncio.wait([asyncio.create_task(writer.wait_closed())])


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 100000\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nffff\r\n",
    ],
)
async def test_nothing_of_a_truncated_body_is_stored(server, head):
    line = GOOD.replace("n1", "truncated") + "\n"
    answer = await raw_exchange(server, f"POST /api/write HTTP/1.1\r\nHost: x\r\n{head}{line}".encode(), shut=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    [series] = await server.grpc.query("alex", START, END, [SeriesQuery(metric="cpu_load", host="truncated")])
    assert series.error.reason == "NOT_FOUND"


@pytest.mark.parametrize(
    "request_text",
    [
        "POST /api/write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /api/write HTTP/1.1\r\nHost: x\r\nContent-Length: minus\r\n\r\n",
        "POST /api/write HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /api/write HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        "POST /api/write?cluster=%FF%00 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
        "POST /api/write HTTP/1.1\r\nHost: x\r\nX: " + "y" * 100_000 + "\r\n\r\n",
        "not HTTP at all\r\n\r\n",
    ],
    ids=lambda text: text[:90],
)
async def test_a_request_that_is_no_proper_http_is_refused(server, request_text):
    answer = await raw_exchange(server, request_text.replace("Host: x", "Host: x\r\nConnection: close").encode())
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 200"))


async def test_a_compressed_body_cannot_grow_without_end(server):
    bomb = gzip.compress(b"#" * (512 * MEBIBYTE), compresslevel=6)
    growth = Growth(server)
    answer = await server.rest.send("POST", "/api/write", bomb, {"Content-Encoding": "gzip"})
    assert answer.status == 413
    assert growth.peak() < 300 * MEBIBYTE


async def test_a_body_that_announces_too_much_is_refused_before_it_comes(server):
    head = b"POST /api/write HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    growth = Growth(server)
    answer = await raw_exchange(server, head + b"#" * MEBIBYTE, shut=True)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert growth.peak() < 16 * MEBIBYTE


RANGES = [
    (0, 2**62),
    (0, END),
    (START, 2**62),
    (INT64_MIN, INT64_MAX),
    (INT64_MIN, INT64_MIN),
    (INT64_MAX, INT64_MAX),
    (INT64_MAX, INT64_MIN),
    (-1, 1),
    (START, START + 1),
]


@pytest.mark.parametrize(("start", "end"), RANGES)
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("metric", ["cpu_load", "every_second"])
async def test_an_absurd_range_is_answered_or_refused(server, start, end, padded, metric):
    growth = Growth(server)
    query = {"metric": metric, "host": "n1", "resolution": 0}
    body = {"cluster": "alex", "from": start, "to": end, "with-padding": padded, "queries": [query] * 3}
    answer = await server.rest.query(body)
    if answer.status == 200:
        assert all(len(series.get("data", ())) <= 16_777_216 for [series] in answer.json["results"])
    else:
        assert answer.status == 400
        assert "exceed the limit" in answer.json["error"]
        assert padded
    assert growth.peak() < 64 * MEBIBYTE
    series = await server.grpc.query("alex", start, end, [SeriesQuery(metric=metric, host="n1")])
    assert len(series) == 1
    assert growth.peak() < 64 * MEBIBYTE


@pytest.mark.parametrize("resolution", [-1, INT64_MIN, INT64_MAX, INT64_MAX - INT64_MAX % 60, 61])
async def test_an_absurd_resolution_is_answered(server, resolution):
    query = {"metric": "cpu_load", "host": "n1", "resolution": resolution}
    answer = await server.rest.query({"cluster": "alex", "from": START, "to": END, "queries": [query]})
    assert answer.status == 200
    asked = SeriesQuery(metric="cpu_load", host="n1", resolution=resolution)
    assert len(await server.grpc.query("alex", START, END, [asked])) == 1


@pytest.mark.parametrize("scale_by", ["1e308", "1e999", "-1e999", "0.0", "-0.0", "1e-320"])
async def test_an_absurd_scale_is_answered_with_valid_json(server, scale_by):
    body = json.dumps({"cluster": "alex", "from": START, "to": END, "queries": [{"metric": "cpu_load", "host": "n1"}]})
    body = body.replace('"n1"', f'"n1", "scale-by": {scale_by}')
    answer = await server.rest.send("GET", "/api/query", body)
    assert answer.status in (200, 400)
    json.loads(answer.body, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("ids", "subtype_ids"),
    [(300_000, 0), (200_001, 0), (1000, 1000)],
)
async def test_too_many_ids_are_refused_before_they_cost_memory(server, ids, subtype_ids):
    type_ids, subtypes = [str(each) for each in range(ids)], [str(each) for each in range(subtype_ids)]
    query = {"metric": "flops", "host": "n1", "type": "hwthread", "type-ids": type_ids}
    if subtypes:
        query |= {"subtype": "x", "subtype-ids": subtypes}
    growth = Growth(server)
    answer = await server.rest.query({"cluster": "alex", "from": START, "to": END, "queries": [query]})
    assert answer.status == 400
    assert "exceed the limit of 200,000" in answer.json["error"]
    asked = SeriesQuery(
        metric="flops",
        host="n1",
        type="hwthread",
        type_ids=type_ids,
        subtype="x" if subtypes else "",
        subtype_ids=subtypes,
    )
    with pytest.raises(InvalidRequestError, match="exceed the limit of 200,000"):
        await server.grpc.query("alex", START, END, [asked])
    assert growth.peak() < 200 * MEBIBYTE


@pytest.mark.parametrize("aggregate", [True, False])
async def test_many_ids_that_do_not_exist_are_answered(server, aggregate):
    ids = [str(each) for each in range(100_000)]
    query = {"metric": "flops", "host": "n1", "type": "hwthread", "type-ids": ids, "aggreg": aggregate}
    answer = await server.rest.query({"cluster": "alex", "from": START, "to": END, "queries": [query]})
    assert answer.status == 200
    [results] = answer.json["results"]
    assert len(results) == (1 if aggregate else len(ids))
    assert all(result["error"] for result in results)


async def test_a_query_that_is_too_long_is_refused(server):
    answer = await server.rest.send("POST", "/api/query", b" " * (5 * MEBIBYTE))
    assert answer.status == 413


async def test_names_that_do_not_exist_are_no_fault(server):
    for name in ("", "/", "..", "\x00", "ü" * 10_000, "n1/../n1"):
        query = {"metric": name, "host": name, "type": name, "type-ids": [name], "subtype": name, "subtype-ids": [name]}
        body = {"cluster": name, "from": START, "to": END, "queries": [query], "for-all-nodes": [name]}
        answer = await server.rest.query(body)
        assert answer.status == 200
        assert answer.json["results"][0][0]["error"]


@pytest_asyncio.fixture(loop_scope="module")
async def padded_query(server):
    """A query whose answer has almost as many values as are allowed, nearly all of them in front of the samples."""
    hosts = [f"padded{number}" for number in range(500)]
    await server.rest.write("\n".join(GOOD.replace("n1", host) for host in hosts))
    queries = [{"metric": "cpu_load", "host": host} for host in hosts]
    return {"cluster": "alex", "from": START - 60 * 33_000, "to": END, "queries": queries}


async def test_a_padded_answer_near_the_limit_takes_little_memory(server, padded_query):
    growth = Growth(server)
    answer = await server.rest.query(padded_query)
    assert answer.status == 200
    assert answer.body.count(b"null") > 16_000_000
    assert growth.peak() < 64 * MEBIBYTE


async def test_readers_that_stall_do_not_stop_others(server, padded_query):
    body = json.dumps(padded_query).encode()
    growth = Growth(server)
    stalled = [await server.rest.connect() for _ in range(16)]
    for reader, writer in stalled:
        writer.write(b"GET /api/query HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.readline()
        writer.transport.pause_reading()
    answer = await server.rest.query(padded_query | {"queries": [{"metric": "cpu_load", "host": "n1"}], "from": START})
    assert answer.json["results"][0][0]["data"][:1] == [1.5]
    assert growth.peak() < 256 * MEBIBYTE
    for _, writer in stalled:
        writer.close()
