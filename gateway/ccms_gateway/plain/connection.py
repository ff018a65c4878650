"""The connections, from their first byte to the last answer or until aiohttp takes over."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Final, NamedTuple, cast

from aiohttp import web

from ccms_gateway.answer import chained, first_pieces
from ccms_gateway.body import BODY_SECONDS, BodyMemory, body_too_slow
from ccms_gateway.errors import error_response, failure_response
from ccms_gateway.plain.answers import END_OF_PIECES, GoodAnswers, answer_bytes, piece
from ccms_gateway.plain.head import PlainHead, parse_head
from ccms_gateway.running import RunningRequests
from ccms_gateway.sending import SEND_SECONDS
from ccms_server.auth import Access, Guard
from ccms_server.errors import MetricStoreError

logger = logging.getLogger(__name__)

HEAD_BYTES_MAX: Final = 4096
"""Longer heads are left to aiohttp, which has a limit of its own."""
READ_AHEAD_BYTES_MAX: Final = 1 << 16
"""What is taken of the requests behind one that is being handled."""
SWEEP_SECONDS: Final = 0.5
"""How often connections are looked at for being idle or slow."""

_LINE_END: Final = b"\r\n"
_END_OF_HEAD: Final = _LINE_END * 2

Answer = AsyncGenerator[bytes, None] | web.Response | None
"""The pieces of a good one, a whole one of any kind, or None: a good one that is empty."""


class PlainOperation(NamedTuple):
    """What a plain request may ask for."""

    method: str
    path: str
    access: Access
    """What it is about to do."""
    body_bytes_max: int
    """Largest body."""
    answer: Callable[[bytes, Mapping[str, str]], Awaitable[Answer]]
    """Handles a body, with the parameters of the query string."""


class PlainConnections:
    """All connections that brought plain requests only, and what they share.

    Attributes:
        memory: For the bodies that are being received.
        requests: Counts requests that are being handled.
        good_answers: What most requests are answered.
    """

    def __init__(
        self,
        operations: Sequence[PlainOperation],
        guard: Guard,
        memory: BodyMemory,
        requests: RunningRequests,
    ) -> None:
        """Nobody is connected yet.

        Args:
            operations: What plain requests may ask for; everything else is aiohttp's.
            guard: Decides who may do what.
            memory: For the bodies that are being received; shared with aiohttp's requests.
            requests: Counts requests that are being handled; shared as well.
        """
        self.memory = memory
        self.requests = requests
        self.good_answers = GoodAnswers()
        self.connections: set[_Connection] = set()
        self._operations = {(each.method, each.path): each for each in operations}
        self._beginnings = [f"{each.method} {each.path}".encode() for each in operations]
        self._guard = guard

    def connection(self, aiohttp_server: web.Server) -> "_Connection":
        """The protocol of a new connection.

        Args:
            aiohttp_server: Takes over what is not plain.
        """
        return _Connection(self, aiohttp_server)

    def may_begin(self, received: bytes) -> bool:
        """Whether this may be the beginning of a plain request."""
        return any(received.startswith(each[: len(received)]) for each in self._beginnings)

    def operation(self, head: PlainHead) -> PlainOperation | None:
        """What a request asks for; None: it will not get as far as to its body."""
        operation = self._operations.get((head.method, head.path))
        if operation is None or head.body_bytes > operation.body_bytes_max:
            return None
        try:
            self._guard.check(head.authorization, operation.access)
        except MetricStoreError:  # aiohttp asks the same guard, and answers
            return None
        return operation

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
    """A connection that brought plain requests only."""

    def __init__(self, shared: PlainConnections, aiohttp_server: web.Server) -> None:
        self._shared = shared
        self._aiohttp_server = aiohttp_server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None  # before a client is there, and once it is gone or aiohttp's
        self._pieces: list[bytes] = []  # received, of requests that are not being handled yet
        self._size = 0
        self._awaited: _Request | None = None  # whose body is not whole yet
        self._reserved = 0  # bytes of the memory for bodies
        self._handling: asyncio.Task[None] | None = None
        self._taken = asyncio.Event()  # is set while the client takes answers
        self._taken.set()
        self._since = self._loop.time()  # when what the client is waited for began

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; nobody waits for the answer any more."""
        self._leave()
        if self._handling is not None:
            self._handling.cancel()

    def data_received(self, data: bytes) -> None:
        """Takes what comes, at most one request and a little more at a time."""
        self._pieces.append(data)
        self._size += len(data)
        if self._handling is None and self._taken.is_set():
            self._advance()
        elif self._size > READ_AHEAD_BYTES_MAX and self._transport is not None:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """The client does not take answers: it gets no more of them for now."""
        self._taken.clear()
        self._since = self._loop.time()

    def resume_writing(self) -> None:
        """It does again."""
        self._taken.set()
        self._await_next()

    def expire(self, now: float, idle_seconds: float) -> None:
        """Ends a connection that has waited for its client for too long."""
        if self._transport is None:
            return
        waited = now - self._since
        if self._transport.is_closing() or not self._taken.is_set():
            if waited >= SEND_SECONDS:
                self._transport.abort()
        elif self._handling is not None:
            return
        elif self._awaited is not None:
            if waited >= BODY_SECONDS:
                self._send(error_response(HTTPStatus.REQUEST_TIMEOUT, body_too_slow()))
                self._await_nothing()
        elif waited >= idle_seconds:
            self._end()

    def close(self) -> None:
        """Ends the connection when what was sent has been taken; gives up what is being handled."""
        self._end()
        if self._handling is not None:
            self._handling.cancel()

    def _advance(self) -> None:
        """Handles the next request if it is whole; leaves it to aiohttp if it is not plain."""
        if self._awaited is None:
            received = self._received()
            end = received.find(_END_OF_HEAD, 0, HEAD_BYTES_MAX)
            if end < 0:
                if (
                    len(received) >= HEAD_BYTES_MAX
                    or not self._shared.may_begin(received)
                    or _has_bare_line_end(received)
                ):
                    self._hand_over()
                return
            head = parse_head(received[:end])
            operation = None if head is None else self._shared.operation(head)
            if head is None or operation is None:
                self._hand_over()
                return
            self._awaited = _Request(head, operation, end + len(_END_OF_HEAD))
            self._shared.requests.begin()
        if not self._take_memory():
            self._hand_over()
            return
        request = self._awaited
        end = request.body_at + request.head.body_bytes
        if self._size < end:
            return
        body, rest = self._cut(request.body_at, end)
        self._pieces, self._size = [rest] if rest else [], len(rest)
        self._awaited = None
        self._give_back()
        self._handling = self._loop.create_task(self._handle(request, body))
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
        return self._shared.memory.take(taken)

    def _give_back(self) -> None:
        if self._reserved:
            self._shared.memory.give_back(self._reserved)
            self._reserved = 0

    async def _handle(self, request: "_Request", body: bytes) -> None:
        """Answers a request; it has been handled when its client has taken the answer."""
        name = f"{request.head.method} {request.head.path}"
        try:
            answer = await request.operation.answer(body, request.head.parameters)
            if not isinstance(answer, AsyncGenerator):
                self._send(answer)
            else:
                async with aclosing(answer):
                    pieces, is_whole = await first_pieces(answer)
                    if is_whole:
                        self._send_good(b"".join(pieces))
                    else:
                        await self._send_pieces(chained(pieces, answer), name)
        except Exception as error:
            self._send(failure_response(error, name))
        await self._taken.wait()

    def _handled(self, _: asyncio.Task[None]) -> None:
        """A request has been handled, or given up, perhaps before that began."""
        self._shared.requests.end()
        self._handling = None
        self._await_next()

    def _send(self, response: web.Response | None) -> None:
        """Sends an answer; None is a good one that is empty."""
        if response is None:
            self._send_good(b"")
        elif self._transport is not None:
            closes = self._shared.requests.ending or response.status == HTTPStatus.REQUEST_TIMEOUT
            self._transport.write(answer_bytes(response, closes=closes))
            if closes:
                self._end()

    def _send_good(self, body: bytes) -> None:
        """Sends a good answer that is whole."""
        if self._shared.requests.ending:
            self._send(web.Response(body=body, content_type="application/json"))
        elif self._transport is not None:
            self._transport.write(self._shared.good_answers.whole(body))

    async def _send_pieces(self, pieces: AsyncGenerator[bytes, None], name: str) -> None:
        """Sends a good answer while it is being made; cuts the connection if that fails: its end is missing then."""
        assert self._transport is not None, "its loss cancels the task"
        self._transport.write(self._shared.good_answers.in_pieces())
        try:
            async for each in pieces:
                if each:
                    self._transport.write(piece(each))
                    await self._taken.wait()
        except Exception:
            logger.exception("%s failed while its answer was being sent", name)
            self._transport.abort()
            return
        self._transport.write(END_OF_PIECES)
        if self._shared.requests.ending:
            self._end()

    def _end(self) -> None:
        """Closes the connection as soon as its client has taken what was sent, for which it has some time."""
        if self._transport is not None:
            self._since = self._loop.time()
            self._transport.close()

    def _await_next(self) -> None:
        """Goes on with the next request, if the client takes answers and is still there."""
        if self._transport is None or self._transport.is_closing() or not self._taken.is_set():
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
        """The connection is gone, or aiohttp's."""
        self._transport = None
        self._shared.connections.discard(self)
        self._await_nothing()

    def _await_nothing(self) -> None:
        """Drops what was received of a request that is not whole."""
        if self._awaited is not None:
            self._awaited = None
            self._shared.requests.end()
        self._give_back()
        self._pieces, self._size = [], 0


def _has_bare_line_end(head: bytes) -> bool:
    """Whether a line ends without the carriage return that belongs there: the end of such a head is not found."""
    return head.count(b"\n") > head.count(_LINE_END)


class _Request(NamedTuple):
    """A plain request whose head has been read."""

    head: PlainHead
    operation: PlainOperation
    body_at: int
    """Where its body begins in what was received."""


PLAIN_CONNECTIONS: Final = web.AppKey("PLAIN_CONNECTIONS", PlainConnections)
"""Where an application has them."""
