"""Answers as aiohttp sends them over HTTP/1.1, made with less work."""

import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Final

from aiohttp import hdrs, web
from aiohttp.http import SERVER_SOFTWARE

_GOOD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

END_OF_PIECES: Final = b"0\r\n\r\n"
"""Behind the last piece of an answer that is sent in pieces."""


class GoodAnswers:
    """The beginnings of good answers. Their last lines are made once a second: they tell the time."""

    def __init__(self) -> None:
        self._second = -1
        self._last_lines = b""

    def whole(self, body: bytes) -> bytes:
        """An answer whose body is known: JSON, or nothing."""
        return b"%bContent-Length: %d\r\n%b%b" % (_GOOD, len(body), self._last(), body)

    def in_pieces(self) -> bytes:
        """What comes before the pieces of an answer; see `piece`."""
        return b"%bTransfer-Encoding: chunked\r\n%b" % (_GOOD, self._last())

    def _last(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._last_lines = _lines(_last_headers())
        return self._last_lines


def piece(some: bytes) -> bytes:
    """A piece of an answer that is sent in pieces; an empty one would end it."""
    return b"%x\r\n%b\r\n" % (len(some), some)


def answer_bytes(response: web.Response, *, closes: bool) -> bytes:
    """An answer of any kind.

    Args:
        response: With its whole body, if any.
        closes: Whether the connection is closed behind it.
    """
    body = response.body or b""
    assert isinstance(body, bytes), type(body)
    headers = {**response.headers, hdrs.CONTENT_LENGTH: str(len(body)), **_last_headers()}
    if closes:
        headers[hdrs.CONNECTION] = "close"
    return f"HTTP/1.1 {response.status} {response.reason}\r\n".encode() + _lines(headers) + body


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {text}\r\n" for name, text in headers.items()).encode() + b"\r\n"


def _last_headers() -> dict[str, str]:
    return {hdrs.DATE: formatdate(usegmt=True), hdrs.SERVER: SERVER_SOFTWARE}
