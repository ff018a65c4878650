"""Heads of plain requests: they have one meaning only, whoever reads them."""

import re
from typing import Final, NamedTuple

_REQUEST_LINE: Final = re.compile(rb"([A-Z]+) ((?:/[A-Za-z_-]+)+)/?(?:\?([A-Za-z_-]+)=([A-Za-z0-9_.-]*))? HTTP/1\.1")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*)")
_PLAIN_HEADERS: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"authorization",
        b"connection",
        b"content-length",
        b"content-type",
        b"host",
        b"user-agent",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
"""What collectors, front ends and the proxies before them send, each of it once at most."""
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class PlainHead(NamedTuple):
    """What the head of a plain request says."""

    method: str
    path: str
    """Without a slash at its end."""
    parameters: dict[str, str]
    """Those of the query string: one at most."""
    authorization: str | None
    body_bytes: int


def parse_head(head: bytes) -> PlainHead | None:
    """Reads the head of a request.

    Args:
        head: From the request line to the last header, without the line end behind it.

    Returns:
        What it says; None if it is anything but that of a plain request.
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
        if name not in _PLAIN_HEADERS or name in met:
            return None
        met[name] = header[2].rstrip(b" \t")
    length = met.get(b"content-length", b"")
    if b"host" not in met or _LENGTH.fullmatch(length) is None:
        return None
    if met.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    authorization = met.get(b"authorization")
    return PlainHead(
        request[1].decode(),
        request[2].decode(),
        {} if request[3] is None else {request[3].decode(): request[4].decode()},
        None if authorization is None else authorization.decode(),
        int(length),
    )
