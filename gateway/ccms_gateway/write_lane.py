"""The lane for writes: plain writes are answered right here, everything else by aiohttp.

    connection -> lane: plain writes -> backend
                    `-> aiohttp, from the first request on that is anything else

Collectors post a body of known length with a short head, again and again, and for them aiohttp does more work than
storing the samples takes. So every connection begins in this lane. When it brings a request that is not plain, or one
that is going to be refused before its body is whole, aiohttp takes the connection over at the beginning of that
request, and keeps it. What a request means is thus defined in one place; here is only a shorter way to the same answer.
"""

import asyncio
import re
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple, cast

from aiohttp import hdrs, web
from aiohttp.http import SERVER_SOFTWARE

from ccms_gateway.backend import Backend
from ccms_gateway.body import BODY_SECONDS, BodyMemory, body_too_slow
from ccms_gateway.errors import error_response, failure_response
from ccms_gateway.running import RunningRequests
from ccms_gateway.sending import SEND_SECONDS
from ccms_gateway.write import report_response
from ccms_server.auth import Access, Guard
from ccms_server.errors import MetricStoreError

HEAD_BYTES_MAX: Final = 4096
"""Longer heads are left to aiohttp, which has a limit of its own."""
READ_AHEAD_BYTES_MAX: Final = 1 << 16
"""What is taken of the requests behind one that is being handled."""
SWEEP_SECONDS: Final = 0.5
"""How often connections are looked at for being idle or slow."""

_METHOD: Final = b"POST /api/write"
_REQUEST_LINE: Final = re.compile(rb"POST /api/write/?(?:\?cluster=([A-Za-z0-9_.-]*))? HTTP/1\.1")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*)")
_END_OF_HEAD: Final = b"\r\n\r\n"
_LEFT_TO_AIOHTTP: Final = frozenset({b"content-encoding", b"expect", b"transfer-encoding", b"trailer", b"upgrade"})
_MET_ONCE: Final = frozenset({b"authorization", b"connection", b"content-length", b"host"})
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class WriteHead(NamedTuple):
    """What the head of a plain write says."""

    cluster: str
    authorization: str | None
    body_bytes: int


def parse_head(head: bytes) -> WriteHead | None:
    """Reads the head of a request.

    Args:
        head: From the request line to the last header, without the line end behind it.

    Returns:
        What it says; None if it is anything but the head of a plain write.
    """
    request_line, *lines = head.split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(request_line)
    if request is None:
        return None
    met: dict[bytes, bytes] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            return None
        name = header[1].lower()
        if name in _LEFT_TO_AIOHTTP or (name in _MET_ONCE and name in met):
            return None
        met[name] = header[2].rstrip(b" \t")
    length = met.get(b"content-length", b"")
    if _LENGTH.fullmatch(length) is None or met.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    authorization = met.get(b"authorization")
    return WriteHead(
        (request[1] or b"").decode(), None if authorization is None else authorization.decode(), int(length)
    )


class WriteLanes:
    """All connections in the lane, and what they share.

    Attributes:
        backend: Where samples go.
        guard: Decides who may write.
        memory: For the bodies that are being received.
        requests: Counts requests that are being handled.
    """

    def __init__(
        self,
        backend: Backend,
        guard: Guard,
        memory: BodyMemory,
        requests: RunningRequests,
        *,
        request_bytes: int,
    ) -> None:
        """Makes a lane without connections.

        Args:
            backend: Where samples go.
            guard: Decides who may write.
            memory: For the bodies that are being received; shared with aiohttp's requests.
            requests: Counts requests that are being handled; shared as well.
            request_bytes: Largest body.
        """
        self.backend = backend
        self.guard = guard
        self.memory = memory
        self.requests = requests
        self.connections: set[_Connection] = set()
        self._request_bytes = request_bytes
        self._answer = b""
        self._answer_second = -1

    def connection(self, aiohttp_server: web.Server) -> "_Connection":
        """The protocol of a new connection.

        Args:
            aiohttp_server: Takes over what is no plain write.
        """
        return _Connection(self, aiohttp_server)

    def accepts(self, head: WriteHead) -> bool:
        """Whether a request will get as far as to its samples."""
        if head.body_bytes > self._request_bytes:
            return False
        try:
            self.guard.check(head.authorization, Access.WRITE)
        except MetricStoreError:  # aiohttp asks the same guard, and answers
            return False
        return True

    def good_answer(self, now: float) -> bytes:
        """What most writes are answered, made once a second: it tells the time."""
        if int(now) != self._answer_second:
            self._answer_second = int(now)
            self._answer = answer_bytes(web.Response(content_type="application/json"))
        return self._answer

    async def sweep(self, idle_seconds: float) -> None:
        """Ends connections that are idle or slow, on and on.

        Args:
            idle_seconds: A connection is closed when no request is complete up to its body for so long.
        """
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = asyncio.get_running_loop().time()
            for connection in list(self.connections):
                connection.expire(now, idle_seconds)

    def close(self) -> None:
        """Closes all connections; requests that are being handled are given up."""
        for connection in list(self.connections):
            connection.close()


class _Connection(asyncio.Protocol):
    """A connection in the lane."""

    def __init__(self, lanes: WriteLanes, aiohttp_server: web.Server) -> None:
        self._lanes = lanes
        self._aiohttp_server = aiohttp_server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None  # None before and after the connection is in the lane
        self._pieces: list[bytes] = []  # received, of requests that are not being handled yet
        self._size = 0
        self._head: WriteHead | None = None  # of the request whose body is awaited
        self._body_at = 0
        self._reserved = 0  # bytes of the memory for bodies
        self._handling: asyncio.Task[None] | None = None
        self._takes_answers = True
        self._since = self._loop.time()  # when what the client is waited for began

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._lanes.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; nobody waits for the answer any more."""
        self._leave()
        if self._handling is not None:
            self._handling.cancel()

    def data_received(self, data: bytes) -> None:
        """Takes what comes, at most one request and a little more at a time."""
        self._pieces.append(data)
        self._size += len(data)
        if self._handling is None and self._takes_answers:
            self._advance()
        elif self._size > READ_AHEAD_BYTES_MAX and self._transport is not None:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """The client does not take answers: it gets no more of them for now."""
        self._takes_answers = False
        self._since = self._loop.time()

    def resume_writing(self) -> None:
        """It does again."""
        self._takes_answers = True
        self._await_next()

    def expire(self, now: float, idle_seconds: float) -> None:
        """Ends a connection that has waited for its client for too long."""
        if self._transport is None or self._handling is not None:
            return
        waited = now - self._since
        if not self._takes_answers:
            if waited >= SEND_SECONDS:
                self._transport.abort()
        elif self._head is not None:
            if waited >= BODY_SECONDS:
                self._send(error_response(HTTPStatus.REQUEST_TIMEOUT, body_too_slow()))
        elif waited >= idle_seconds:
            self._transport.close()

    def close(self) -> None:
        """Ends the connection when what was sent has been taken; gives up what is being handled."""
        if self._transport is not None:
            self._transport.close()
        if self._handling is not None:
            self._handling.cancel()

    def _advance(self) -> None:
        """Handles the next request if it is whole; leaves it to aiohttp if it is not plain."""
        if self._head is None:
            received = self._received()
            end = received.find(_END_OF_HEAD, 0, HEAD_BYTES_MAX)
            if end < 0:
                if len(received) >= HEAD_BYTES_MAX or not received.startswith(_METHOD[: len(received)]):
                    self._hand_over()
                return
            head = parse_head(received[:end])
            if head is None or not self._lanes.accepts(head):
                self._hand_over()
                return
            self._head, self._body_at = head, end + len(_END_OF_HEAD)
            self._lanes.requests.begin()
        end = self._body_at + self._head.body_bytes
        if not self._take_memory():
            self._hand_over()
            return
        if self._size < end:
            return
        body, rest = self._cut(self._body_at, end)
        self._pieces, self._size = [rest] if rest else [], len(rest)
        head, self._head = self._head, None
        self._give_back()
        self._handling = self._loop.create_task(self._handle(body, head.cluster))
        self._handling.add_done_callback(self._handled)

    def _received(self) -> bytes:
        """All that was received, in one piece."""
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""

    def _cut(self, begin: int, end: int) -> tuple[bytes, bytes]:
        """What was received from one position to another, and what is behind it; the end is in the last piece."""
        if len(self._pieces) == 1:
            return self._pieces[0][begin:end], self._pieces[0][end:]
        first, *middle, last = self._pieces  # one copy of a large body, and no more
        in_last = end - (self._size - len(last))
        return b"".join([memoryview(first)[begin:], *middle, memoryview(last)[:in_last]]), last[in_last:]

    def _take_memory(self) -> bool:
        """Takes memory for what there is of a body; if there is none, aiohttp refuses the request."""
        if not self._reserved:
            self._since = self._loop.time()
        taken, self._reserved = self._size - self._reserved, self._size
        return self._lanes.memory.take(taken)

    def _give_back(self) -> None:
        if self._reserved:
            self._lanes.memory.give_back(self._reserved)
            self._reserved = 0

    async def _handle(self, body: bytes, cluster: str) -> None:
        """Answers a request; see `WriteHandler.handle`."""
        try:
            report = await self._lanes.backend.write_lines(body, cluster)
        except Exception as error:
            self._send(failure_response(error, "POST /api/write"))
        else:
            self._send(report_response(report) if report.rejected else None)

    def _handled(self, _: asyncio.Task[None]) -> None:
        """A request has been handled, or given up, perhaps before that began."""
        self._lanes.requests.end()
        self._handling = None
        self._await_next()

    def _send(self, response: web.Response | None) -> None:
        """Sends an answer; None is the good one."""
        if self._transport is None:
            return
        if response is None and not self._lanes.requests.ending:
            self._transport.write(self._lanes.good_answer(self._loop.time()))
            return
        response = web.Response(content_type="application/json") if response is None else response
        if self._lanes.requests.ending or response.status == HTTPStatus.REQUEST_TIMEOUT:
            response.headers[hdrs.CONNECTION] = "close"
        self._transport.write(answer_bytes(response))
        if hdrs.CONNECTION in response.headers:
            self._transport.close()

    def _await_next(self) -> None:
        """Goes on with the next request, if the client takes answers and is still there."""
        if self._transport is None or self._transport.is_closing() or not self._takes_answers:
            return
        self._since = self._loop.time()
        if self._handling is None and self._pieces:
            self._advance()
        if self._transport is not None and (self._handling is None or self._size <= READ_AHEAD_BYTES_MAX):
            self._transport.resume_reading()

    def _hand_over(self) -> None:
        """Lets aiohttp have the connection, from the beginning of the request that is being received."""
        transport, received = self._transport, self._received()
        assert transport is not None, "there is a connection"
        self._leave()
        protocol = self._aiohttp_server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        protocol.data_received(received)

    def _leave(self) -> None:
        """The connection is not in the lane any more."""
        self._transport = None
        if self._head is not None:
            self._head = None
            self._lanes.requests.end()
        self._lanes.connections.discard(self)
        self._give_back()
        self._pieces, self._size = [], 0


def answer_bytes(response: web.Response) -> bytes:
    """An answer as aiohttp sends it over HTTP/1.1.

    Args:
        response: With its whole body, if any.
    """
    body = response.body or b""
    assert isinstance(body, bytes), type(body)
    headers = {
        **response.headers,
        hdrs.CONTENT_LENGTH: str(len(body)),
        hdrs.DATE: formatdate(usegmt=True),
        hdrs.SERVER: SERVER_SOFTWARE,
    }
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


WRITE_LANES: Final = web.AppKey("WRITE_LANES", WriteLanes)
"""Where an application has its lanes."""
