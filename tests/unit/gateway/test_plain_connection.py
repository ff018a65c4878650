"""A connection that brings plain requests, without sockets."""

import asyncio

import pytest
from helpers.waiting import eventually

from ccms_gateway.body import BODY_SECONDS, BodyMemory
from ccms_gateway.plain.connection import PlainConnections, PlainOperation
from ccms_gateway.running import RunningRequests
from ccms_gateway.sending import SEND_SECONDS
from ccms_server.auth import Access, Guard
from ccms_server.config import AuthConfig

REQUEST = b"POST /api/write HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


class Transport(asyncio.Transport):
    """Takes everything."""

    def __init__(self):
        super().__init__()
        self.sent = b""
        self.closing = self.aborted = False

    def write(self, data):
        self.sent += data

    def close(self):
        self.closing = True

    def abort(self):
        self.aborted = True

    def is_closing(self):
        return self.closing

    def resume_reading(self):
        """It always reads."""


class Handler:
    """Answers with nothing."""

    def __init__(self):
        self.bodies = []

    async def answer(self, body, parameters):
        self.bodies.append((body, parameters))
        await asyncio.sleep(0)


@pytest.fixture
def handler():
    return Handler()


@pytest.fixture
def plain(handler):
    guard = Guard("", AuthConfig(), clock=lambda: 0.0)
    operation = PlainOperation("POST", "/api/write", Access.WRITE, 500, handler.answer)
    return PlainConnections([operation], guard, BodyMemory(1000), RunningRequests())


def connected(plain):
    connection, transport = plain.connection(None), Transport()
    connection.connection_made(transport)
    return connection, transport


async def test_requests_are_answered_in_turn(plain, handler):
    connection, transport = connected(plain)
    connection.data_received(REQUEST + b"ab")
    connection.data_received(b"cd" + REQUEST + b"efgh")
    await eventually(lambda: transport.sent.count(b"HTTP/1.1 200 OK") == 2, "both answers")
    assert handler.bodies == [(b"abcd", {}), (b"efgh", {})]
    assert plain.memory.bytes == 0


@pytest.mark.parametrize(
    "sent", [REQUEST[:20], REQUEST, REQUEST + b"ab", REQUEST + b"abcd", REQUEST + b"abcd" + REQUEST]
)
@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_nothing_is_left_of_a_client_that_went_away(plain, caplog, sent, turns):
    """It may go before its request began to be handled, meanwhile, or afterwards."""
    connection, transport = connected(plain)
    connection.data_received(sent)
    for _ in range(turns):
        await asyncio.sleep(0)
    transport.close()
    connection.connection_lost(None)
    await plain.requests.finish(10)
    assert caplog.text == ""
    assert plain.memory.bytes == 0
    assert not plain.connections


async def test_the_end_does_not_wait_for_idle_connections(plain, caplog):
    connection, transport = connected(plain)
    connection.data_received(REQUEST + b"abcd")
    await plain.requests.finish(10)
    plain.close()
    assert transport.closing
    assert caplog.text == ""


async def test_the_end_waits_until_answers_are_taken(plain):
    connection, transport = connected(plain)
    transport.write = lambda _: connection.pause_writing()
    connection.data_received(REQUEST + b"abcd")
    finishing = asyncio.create_task(plain.requests.finish(10))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not finishing.done()
    connection.resume_writing()
    await finishing


@pytest.mark.parametrize(
    ("received", "idle_seconds", "sent"), [(REQUEST[:9], 20, b""), (b"", 20, b""), (REQUEST, 180, b"HTTP/1.1 408 ")]
)
async def test_a_connection_that_waited_too_long_is_closed_and_cut_if_that_takes_too_long(
    plain, received, idle_seconds, sent
):
    connection, transport = connected(plain)
    connection.data_received(received)
    now = asyncio.get_running_loop().time()
    connection.expire(now + min(BODY_SECONDS, idle_seconds) - 1, idle_seconds)
    assert not transport.closing
    connection.expire(now + BODY_SECONDS + 1, idle_seconds)
    assert transport.closing
    assert transport.sent[:13] == sent
    connection.expire(now + SEND_SECONDS - 1, idle_seconds)
    assert not transport.aborted
    connection.expire(now + SEND_SECONDS + 1, idle_seconds)
    assert transport.aborted
    assert transport.sent.count(b"HTTP/1.1") == bool(sent)
