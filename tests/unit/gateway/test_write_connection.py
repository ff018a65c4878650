"""A connection in the lane for writes, without sockets."""

import asyncio

import pytest
from helpers.waiting import eventually

from ccms_gateway.body import BodyMemory
from ccms_gateway.running import RunningRequests
from ccms_gateway.write_lane import WriteLanes
from ccms_server.auth import Guard
from ccms_server.config import AuthConfig
from ccms_server.model import WriteReport

REQUEST = b"POST /api/write HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


class Transport(asyncio.Transport):
    """Takes everything."""

    def __init__(self):
        super().__init__()
        self.sent = b""
        self.closing = False

    def write(self, data):
        self.sent += data

    def close(self):
        self.closing = True

    def is_closing(self):
        return self.closing

    def resume_reading(self):
        """It always reads."""


class Backend:
    """Stores nothing."""

    def __init__(self):
        self.payloads = []

    async def write_lines(self, payload, default_cluster):
        self.payloads.append(payload)
        await asyncio.sleep(0)
        return WriteReport(stored=1)


@pytest.fixture
def backend():
    return Backend()


@pytest.fixture
def lanes(backend):
    guard = Guard("", AuthConfig(), clock=lambda: 0.0)
    return WriteLanes(backend, guard, BodyMemory(1000), RunningRequests(), request_bytes=500)


def connected(lanes):
    connection, transport = lanes.connection(None), Transport()
    connection.connection_made(transport)
    return connection, transport


async def test_requests_are_answered_in_turn(lanes, backend):
    connection, transport = connected(lanes)
    connection.data_received(REQUEST + b"ab")
    connection.data_received(b"cd" + REQUEST + b"efgh")
    await eventually(lambda: transport.sent.count(b"HTTP/1.1 200 OK") == 2, "both answers")
    assert backend.payloads == [b"abcd", b"efgh"]
    assert lanes.memory.bytes == 0


@pytest.mark.parametrize(
    "sent", [REQUEST[:20], REQUEST, REQUEST + b"ab", REQUEST + b"abcd", REQUEST + b"abcd" + REQUEST]
)
@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_nothing_is_left_of_a_client_that_went_away(lanes, caplog, sent, turns):
    """It may go before its request began to be handled, meanwhile, or afterwards."""
    connection, transport = connected(lanes)
    connection.data_received(sent)
    for _ in range(turns):
        await asyncio.sleep(0)
    transport.close()
    connection.connection_lost(None)
    await lanes.requests.finish(10)
    assert caplog.text == ""
    assert lanes.memory.bytes == 0
    assert not lanes.connections


async def test_the_end_does_not_wait_for_idle_connections(lanes, caplog):
    connection, transport = connected(lanes)
    connection.data_received(REQUEST + b"abcd")
    await lanes.requests.finish(10)
    lanes.close()
    assert transport.closing
    assert caplog.text == ""
