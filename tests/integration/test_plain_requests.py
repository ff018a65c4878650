"""Plain requests are answered without aiohttp: as aiohttp would, which takes over whatever is not plain."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from helpers.server import server_inside
from helpers.tokens import Issuer
from helpers.waiting import eventually

from ccms_gateway import server as gateway_server
from ccms_gateway.answer import WHOLE_BYTES_MAX
from ccms_gateway.plain import connection
from ccms_server.errors import DiskUnavailableError, NotReadyError, QueueFullError
from ccms_server.service import MetricService

START = 1_700_000_000 // 60 * 60
LINE = b"cpu_load,hostname=n1 value=1.5 1700000000\n"
BAD_LINE = b"cpu_load value=1.5\n"
NOT_PLAIN = "Trailer: none"
"""A header that changes nothing, but makes aiohttp answer."""


@pytest.fixture
async def rest():
    async with server_inside() as server:
        yield server.rest


def request(method, path, body, *headers, length=None):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "\r\n"]).encode() + body


def post(body, *headers, path="/api/write?cluster=alex", length=None):
    return request("POST", path, body, *headers, length=length)


def query(body, *headers, path="/api/query", method="GET"):
    return request(method, path, body if isinstance(body, bytes) else json.dumps(body).encode(), *headers)


def asked(hosts=("n1",), **more):
    queries = [{"metric": "cpu_load", "host": host, "resolution": 120} for host in hosts]
    return {"cluster": "alex", "from": START, "to": START + 600, "queries": queries} | more


async def answer_of(reader):
    """Status line, headers without the date, and body."""
    async with asyncio.timeout(30):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        headers.pop("Date")
        if headers.get("Transfer-Encoding") == "chunked":
            return status, headers, b"".join([piece async for piece in pieces_of(reader)])
        return status, headers, await reader.readexactly(int(headers["Content-Length"]))


async def pieces_of(reader):
    """The pieces of an answer whose length is not told."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    assert await reader.readexactly(2) == b"\r\n"


@asynccontextmanager
async def connected(rest):
    """A connection that is closed at the end."""
    reader, writer = await rest.connect()
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer_to(rest, request):
    async with connected(rest) as (reader, writer):
        writer.write(request)
        return await answer_of(reader)


@pytest.mark.parametrize(
    "body",
    [
        LINE,
        b"",
        LINE + BAD_LINE + LINE,
        b"\xff\n",
        b"unknown,hostname=n1 value=1\n",
        b"cpu_load,cluster=a value=1",
    ],
)
@pytest.mark.parametrize(
    "path", ["/api/write?cluster=alex", "/api/write/", "/api/write?cluster=..", "/api/write?cluster="]
)
async def test_the_answer_is_that_of_aiohttp(rest, path, body):
    plain = await answer_to(rest, post(body, path=path))
    assert plain == await answer_to(rest, post(body, NOT_PLAIN, path=path))
    assert plain[0].startswith("HTTP/1.1 ")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/api/query", "/api/query/?version=v1", "/api/query?version=v2", "/api/query?a=b"])
@pytest.mark.parametrize(
    "body",
    [
        asked(),
        asked(["n1", "n2"]),
        asked(["n1"] * 100),
        asked(**{"for-all-nodes": ["cpu_load"]}),
        asked(cluster="none"),
        asked(to=0),
        {},
        b"",
        b"no JSON",
        {"cluster": 1},
        asked([""] * 200_001),
    ],
)
async def test_so_is_that_to_a_query(rest, method, path, body):
    await rest.write(
        b"".join(b"cpu_load,cluster=alex,hostname=n1 value=%d %d\n" % (i, START + 60 * i) for i in range(9))
    )
    plain = await answer_to(rest, query(body, method=method, path=path))
    assert plain == await answer_to(rest, query(body, NOT_PLAIN, method=method, path=path))
    assert plain[0].split()[1] in {"200", "400", "413"}


async def test_so_is_a_long_one_which_comes_in_pieces(rest):
    body = asked(["n1"] * 20_000)
    plain = await answer_to(rest, query(body))
    assert plain == await answer_to(rest, query(body, NOT_PLAIN))
    assert plain[1]["Transfer-Encoding"] == "chunked"
    assert len(json.loads(plain[2])["results"]) == 20_000


@pytest.mark.parametrize("header", [[], [NOT_PLAIN]])
async def test_a_long_answer_that_fails_is_cut(rest, monkeypatch, caplog, header):
    async def encoded_query(*_):
        yield b"x" * (WHOLE_BYTES_MAX + 1)
        raise RuntimeError("a defect")

    monkeypatch.setattr(MetricService, "encoded_query", encoded_query)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await answer_to(rest, query(asked(), *header))
    assert "GET /api/query failed while its answer was being sent" in caplog.text


class EndlessAnswer:
    """An answer that goes on as long as somebody takes it."""

    def __init__(self):
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def encoded_query(self, *_):
        try:
            while True:
                yield b"x" * WHOLE_BYTES_MAX
                self.begun.set()
        finally:
            self.ended.set()


@pytest.fixture
def endless(monkeypatch):
    answer = EndlessAnswer()
    monkeypatch.setattr(MetricService, "encoded_query", answer.encoded_query)
    return answer


@pytest.mark.parametrize("header", [[], [NOT_PLAIN]])
async def test_an_answer_ends_when_its_client_has_gone(rest, endless, header):
    async with connected(rest) as (_, writer), asyncio.timeout(30):
        writer.write(query(asked(), *header))
        await endless.begun.wait()
        writer.transport.abort()
        await endless.ended.wait()


async def test_an_answer_ends_when_its_client_does_not_take_it(rest, endless, monkeypatch):
    monkeypatch.setattr(connection, "SEND_SECONDS", 0.1)
    async with connected(rest) as (_, writer), asyncio.timeout(30):
        writer.transport.pause_reading()
        writer.write(query(asked()))
        await endless.ended.wait()


@pytest.mark.parametrize(
    "error",
    [QueueFullError(2, 1), NotReadyError("starting"), DiskUnavailableError("No space left"), RuntimeError("a defect")],
)
async def test_so_is_that_of_a_failure(rest, monkeypatch, caplog, error):
    async def fail(*_):
        raise error

    monkeypatch.setattr(MetricService, "write_lines", fail)
    plain = await answer_to(rest, post(LINE))
    assert plain == await answer_to(rest, post(LINE, NOT_PLAIN))
    assert plain[0].split()[1] in {"500", "503"}
    assert caplog.text.count("POST /api/write failed") == 2 * isinstance(error, RuntimeError)


@pytest.mark.parametrize("seconds", [3600, -1, None])
async def test_so_is_that_to_a_token(seconds):
    issuer = Issuer()
    headers = [] if seconds is None else [f"Authorization: Bearer {issuer.lasting(seconds)}"]
    async with server_inside(**{"jwt-public-key": issuer.public_key}) as server:
        plain = await answer_to(server.rest, post(LINE, *headers))
        assert plain == await answer_to(server.rest, post(LINE, NOT_PLAIN, *headers))
    assert plain[0].split()[1] == ("200" if seconds == 3600 else "401")


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent():
    async with server_inside(limits={"request-bytes": 70_000}) as server:
        plain = await answer_to(server.rest, post(b"", length=70_001))
        assert plain == await answer_to(server.rest, post(b"", NOT_PLAIN, length=70_001))
    assert plain[0].split()[1] == "413"


@pytest.mark.parametrize("step", [1, 7, 50, 10_000])
async def test_requests_come_in_pieces_of_any_size(rest, step):
    async with connected(rest) as (reader, writer):
        text = post(LINE) + post(BAD_LINE) + post(b"") + post(LINE)
        for start in range(0, len(text), step):
            writer.write(text[start : start + step])
            await asyncio.sleep(0)
        assert [(await answer_of(reader))[0].split()[1] for _ in range(4)] == ["200", "400", "200", "200"]


async def test_a_connection_goes_on_with_aiohttp_at_the_first_request_that_is_not_plain(rest):
    async with connected(rest) as (reader, writer):
        writer.write(post(LINE) + query(asked(), NOT_PLAIN) + post(LINE) + post(BAD_LINE))
        answers = [await answer_of(reader) for _ in range(4)]
        assert [answer[0].split()[1] for answer in answers] == ["200", "200", "200", "400"]
        assert json.loads(answers[1][2])["results"][0][0]["data"] == [1.5]


async def test_many_requests_at_once_are_answered_one_after_another(rest):
    count = 2000  # more than is read ahead
    async with connected(rest) as (reader, writer):
        writer.write(b"".join(post(LINE.replace(b"1.5", b"%d" % number)) for number in range(count)))
        for _ in range(count):
            assert (await answer_of(reader))[0] == "HTTP/1.1 200 OK"


async def test_a_head_that_does_not_end_is_left_to_aiohttp(rest):
    async with connected(rest) as (reader, writer):
        writer.write(b"POST /api/write HTTP/1.1\r\nX: " + b"x" * 20_000)
        assert (await answer_of(reader))[0].split()[1] == "400"


async def test_a_defect_in_looking_after_connections_ends_the_server(monkeypatch):
    async def sweep(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(connection.PlainConnections, "sweep", sweep)
    with pytest.raises(ExceptionGroup) as raised:
        async with server_inside() as server, asyncio.timeout(30):
            await server.task
    assert raised.group_contains(RuntimeError, match="a defect")


@pytest.mark.parametrize("head", [post(b"").replace(b"\r\n", b"\n"), b"POST /api/write HTTP/1.1\nHost"])
async def test_so_are_line_ends_that_are_none(rest, head):
    assert (await answer_to(rest, head))[0] == "HTTP/1.0 400 Bad Request"


async def test_a_body_that_is_too_slow_is_given_up(rest, monkeypatch):
    monkeypatch.setattr(connection, "BODY_SECONDS", 0.1)
    async with connected(rest) as (reader, writer):
        writer.write(post(LINE, length=1000))
        status, headers, body = await answer_of(reader)
        assert (status, headers["Connection"]) == ("HTTP/1.1 408 Request Timeout", "close")
        assert b"took longer" in body
        assert await reader.read() == b""


async def test_an_idle_connection_is_closed(monkeypatch):
    monkeypatch.setattr(gateway_server, "IDLE_SECONDS", 0.1)
    async with server_inside() as server, connected(server.rest) as (reader, writer):
        writer.write(post(LINE))
        assert (await answer_of(reader))[0] == "HTTP/1.1 200 OK"
        async with asyncio.timeout(30):
            assert await reader.read() == b""


async def test_a_client_that_does_not_take_its_answers_is_cut_off(rest, monkeypatch):
    monkeypatch.setattr(connection, "SEND_SECONDS", 0.1)
    async with connected(rest) as (_, writer):
        writer.transport.pause_reading()
        requests = post(BAD_LINE * 20) * 1000
        with pytest.raises(ConnectionError):
            await send_for_ever(writer, requests)


async def send_for_ever(writer, data):
    async with asyncio.timeout(60):
        while True:
            writer.write(data)
            await writer.drain()


async def test_a_client_that_goes_away_is_forgotten(rest, monkeypatch):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def write_lines(*_):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(MetricService, "write_lines", write_lines)
    async with connected(rest) as (_, writer):
        writer.write(post(LINE))
        async with asyncio.timeout(30):
            await begun.wait()
            writer.close()
            await ended.wait()


async def test_at_the_end_a_body_under_way_is_taken_and_the_connection_closed():
    async with server_inside() as server, AsyncExitStack() as stack:
        reader, writer = await stack.enter_async_context(connected(server.rest))
        idle_reader, idle_writer = await stack.enter_async_context(connected(server.rest))
        idle_writer.write(post(LINE))
        await answer_of(idle_reader)
        writer.write(post(LINE, length=len(LINE) * 2))
        await eventually(lambda: server.service.counters.stored == 1, "the other request to be stored")
        await asyncio.sleep(0)
        server.stop.set()
        await eventually(lambda: not server.service.ready or server.service.draining.is_set(), "the end to begin")
        writer.write(LINE)
        status, headers, _ = await answer_of(reader)
        assert (status, headers["Connection"]) == ("HTTP/1.1 200 OK", "close")
        async with asyncio.timeout(30):
            assert await reader.read() == b""
            assert await idle_reader.read() == b""
