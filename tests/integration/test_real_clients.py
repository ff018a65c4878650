"""What real clients send, byte by byte as Go's HTTP client writes it, and what they need of the answers.

cc-backend accepts nothing but 200, waits for ten seconds, and takes element j of a result for element j of `type-ids`.
The HTTP sink of cc-metric-collector takes anything but 200 for a failure, and never reads the body of an answer.
"""

import asyncio
import base64
import gzip
import json
import time
from contextlib import asynccontextmanager

import pytest
from helpers.server import server_inside
from helpers.tokens import SAMPLE_KEY, SAMPLE_TOKEN

START = 1_700_000_000
BACKEND_SECONDS, SINK_SECONDS = 10.0, 5.0
PASSWORD = base64.b64encode(b"collector:s3cret").decode()
LOCKED = {"jwt-public-key": SAMPLE_KEY, "auth": {"basic": [{"username": "collector", "password": "s3cret"}]}}
METRICS = {"cpu_load": {"frequency": 60}, "flops_any": {"frequency": 60, "aggregation": "sum"}}

LINES = b"".join(
    b"cpu_load,cluster=fritz,hostname=f0101,type=node value=%d.5 %d\n" % (minute, START + 60 * minute)
    + b"".join(
        b"flops_any,cluster=fritz,hostname=f0101,type=hwthread,type-id=%d value=%d %d\n"
        % (thread, 10 * thread + minute, START + 60 * minute)
        for thread in (0, 1, 3)
    )
    for minute in range(3)
)
# Fields in the order of the struct, everything of it, and the newline of the encoder.
QUERY = (
    b'{"cluster":"fritz","queries":[{"type":"hwthread","metric":"flops_any","host":"f0101","resolution":0,'
    b'"type-ids":["3","2","0"],"aggreg":false},{"metric":"cpu_load","host":"f0101","resolution":0,"aggreg":false}],'
    b'"for-all-nodes":null,"from":1700000000,"to":1700000180,"with-stats":true,"with-data":true}\n'
)
STATISTICS = (
    b'{"cluster":"fritz","queries":[{"metric":"cpu_load","host":"f0101","resolution":0,"aggreg":false}],'
    b'"for-all-nodes":null,"from":1700000000,"to":1700000180,"with-stats":true,"with-data":false}\n'
)
ALL_NODES = (
    b'{"cluster":"fritz","queries":null,"for-all-nodes":["cpu_load","flops_any"],"from":1700000000,"to":1700000180,'
    b'"with-stats":true,"with-data":true}\n'
)
HEALTH = b'{"cluster":"fritz","nodes":["f0101","f0999"],"metric-names":["cpu_load","mem_used"]}\n'


class GoClient:
    """One connection of Go's `http.Client`."""

    def __init__(self, reader, writer, seconds):
        self._reader = reader
        self._writer = writer
        self._seconds = seconds

    async def send(self, method, path, body, authorization=None, *, chunked=False):
        """Sends a request as Go does, and reads the answer; returns status, headers and body."""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost:8082\r\nUser-Agent: Go-http-client/1.1\r\n"
        # A body whose length Go knows is announced; a reader it knows nothing of goes in chunks.
        head += "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {len(body)}\r\n"
        if authorization:
            head += f"Authorization: {authorization}\r\n"
        head += "Accept-Encoding: gzip\r\n\r\n"
        if chunked:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        self._writer.write(head.encode() + body)
        async with asyncio.timeout(self._seconds):
            return await self._answer()

    async def _answer(self):
        head = await self._reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert "connection" not in headers  # it is used again
        body = await self._reader.readexactly(int(headers["content-length"]))
        return int(status_line.split(" ")[1]), headers, body


@asynccontextmanager
async def go_client(rest, seconds):
    reader, writer = await rest.connect()
    try:
        yield GoClient(reader, writer, seconds)
    finally:
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def serving(*, locked, **config):
    async with server_inside(metrics=METRICS, **(LOCKED if locked else {}), **config) as server:
        yield server.rest


def bearer(locked):
    """cc-backend and the collector send their token, if they have one."""
    return f"Bearer {SAMPLE_TOKEN}" if locked else None


@pytest.fixture(params=[False, True], ids=["open", "locked"])
def locked(request):
    return request.param


@asynccontextmanager
async def backend(locked):
    """A server with samples, and cc-backend connected to it."""
    async with serving(locked=locked) as rest, go_client(rest, BACKEND_SECONDS) as client:
        status, _, _ = await client.send("POST", "/api/write", LINES, bearer(locked))
        assert status == 200
        yield client


@pytest.mark.parametrize("path", ["/api/query?version=v2", "//api/query?version=v2"])
async def test_the_backend_gets_a_series_for_each_type_id_in_its_place(locked, path):
    async with backend(locked) as client:
        status, headers, body = await client.send("GET", path, QUERY, bearer(locked))
        assert (status, headers["content-type"]) == (200, "application/json")
        answer = json.loads(body)
        assert "queries" not in answer
        threads, [node] = answer["results"]
        assert [series.get("data") for series in threads] == [[30, 31, 32], None, [0, 1, 2]]
        assert [bool(series.get("error")) for series in threads] == [False, True, False]
        assert node == {
            "data": [0.5, 1.5, 2.5],
            "from": START,
            "to": START + 180,
            "resolution": 60,
            "avg": 1.5,
            "min": 0.5,
            "max": 2.5,
        }


async def test_the_backend_gets_statistics_alone(locked):
    async with backend(locked) as client:
        status, _, body = await client.send("GET", "/api/query?version=v2", STATISTICS, bearer(locked))
        assert status == 200
        [[series]] = json.loads(body)["results"]
        assert "data" not in series
        assert (series["avg"], series["min"], series["max"]) == (1.5, 0.5, 2.5)


async def test_the_backend_gets_all_nodes_with_the_queries_that_they_answer(locked):
    async with backend(locked) as client:
        status, _, body = await client.send("GET", "/api/query?version=v2", ALL_NODES, bearer(locked))
        assert status == 200
        answer = json.loads(body)
        named = [(query["host"], query["metric"]) for query in answer["queries"]]
        assert named == [("f0101", "cpu_load"), ("f0101", "flops_any")]
        assert [series["data"] for [series] in answer["results"]] == [[0.5, 1.5, 2.5], [40, 43, 46]]


@pytest.mark.parametrize("path", ["/api/healthcheck", "//api/healthcheck"])
async def test_the_backend_hears_of_the_health_of_nodes(locked, path):
    now = int(time.time())
    async with backend(locked) as client:
        line = b"cpu_load,cluster=fritz,hostname=f0101,type=node value=1 %d\n" % now
        assert (await client.send("POST", "/api/write", line, bearer(locked)))[0] == 200
        status, headers, body = await client.send("GET", path, HEALTH, bearer(locked))
        assert (status, headers["content-type"]) == (200, "application/json")
        answer = json.loads(body)
        assert answer["f0101"]["State"] == "partial"
        assert json.loads(answer["f0101"]["HealthMetrics"]) == {"degraded": [], "missing": ["mem_used"]}
        assert answer["f0999"] == {"State": "failed", "HealthMetrics": ""}


async def test_the_backend_asks_again_and_again_over_one_connection(locked):
    async with backend(locked) as client:
        for _ in range(20):
            for body in (QUERY, STATISTICS, ALL_NODES):
                status, _, _ = await client.send("GET", "/api/query?version=v2", body, bearer(locked))
                assert status == 200


async def test_a_backend_without_its_token_is_refused_and_may_go_on():
    async with backend(locked=True) as client:
        assert (await client.send("GET", "/api/query?version=v2", QUERY))[0] == 401
        assert (await client.send("GET", "/api/query?version=v2", QUERY, bearer(True)))[0] == 200


@pytest.mark.parametrize("path", ["/api/write", "/api/write/", "//api/write", "/api/write?cluster=fritz"])
@pytest.mark.parametrize("authorization", [None, f"Bearer {SAMPLE_TOKEN}", f"Basic {PASSWORD}"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_the_sink_hears_that_its_batch_is_stored(path, authorization, chunked):
    async with serving(locked=authorization is not None) as rest, go_client(rest, SINK_SECONDS) as client:
        status, headers, body = await client.send("POST", path, LINES, authorization, chunked=chunked)
        assert (status, headers["content-length"], body) == (200, "0", b"")


async def test_the_sink_sends_batches_over_one_connection_and_all_are_there(locked):
    async with serving(locked=locked) as rest, go_client(rest, SINK_SECONDS) as client:
        for minute in range(20):
            line = b"cpu_load,cluster=fritz,hostname=f0101,type=node value=%d %d\n" % (minute, START + 60 * minute)
            status, headers, body = await client.send("POST", "/api/write", line, bearer(locked))
            assert (status, headers["content-length"], body) == (200, "0", b"")
        query = QUERY.replace(b"1700000180", b"1700001200")
        _, _, body = await client.send("GET", "/api/query?version=v2", query, bearer(locked))
        assert json.loads(body)["results"][1][0]["data"] == list(range(20))


async def test_a_sink_without_its_token_is_refused_and_nothing_is_stored():
    async with serving(locked=True) as rest, go_client(rest, SINK_SECONDS) as client:
        for authorization in (None, "Basic " + base64.b64encode(b"collector:wrong").decode()):
            assert (await client.send("POST", "/api/write", LINES, authorization))[0] == 401
        _, _, body = await client.send("GET", "/api/query?version=v2", ALL_NODES, bearer(True))
        assert json.loads(body) == {"results": []}


async def test_the_backend_takes_compressed_answers_as_go_does(locked):
    """Go asks for gzip by itself, and unpacks what it gets."""
    compression = {"http-api": {"address": "127.0.0.1:0", "compression": True}}
    async with serving(locked=locked, **compression) as rest, go_client(rest, BACKEND_SECONDS) as client:
        lines = b"".join(
            b"cpu_load,cluster=fritz,hostname=f0101,type=node value=%d %d\n" % (minute, START + 60 * minute)
            for minute in range(1000)
        )
        assert (await client.send("POST", "/api/write", lines, bearer(locked)))[0] == 200
        query = QUERY.replace(b"1700000180", b"1700060000")
        status, headers, body = await client.send("GET", "/api/query?version=v2", query, bearer(locked))
        assert (status, headers["content-encoding"]) == (200, "gzip")
        assert json.loads(gzip.decompress(body))["results"][1][0]["data"] == list(range(1000))
