"""Heads of plain requests: what is taken for one means the same to aiohttp."""

import asyncio

import pytest
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from ccms_gateway.plain.head import PlainHead, parse_head

PLAIN = b"POST /api/write?cluster=alex HTTP/1.1\r\nHost: x\r\nContent-Length: 12"
QUERY = b"GET /api/query/?version=v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2"

PIECES = [
    b"POST /api/write",
    b"GET /api/query",
    b"PRI * HTTP/2.0",
    b"/",
    b"?",
    b"&a=b",
    b"?cluster=alex",
    b"?version=v1",
    b"?cluster=al%65x",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b"\r\n",
    b"\n",
    b"\r",
    b"Content-Length:",
    b"content-length: 7",
    b"Content-Length: +7",
    b"Transfer-Encoding: chunked",
    b"Authorization: Bearer a.b",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Host: x",
    b"X-\xff: y",
    b"X: \x00",
    b" folded",
    b"Expect: 100-continue",
    b" ",
    b"12",
    b":",
]


def write_head(cluster, authorization, body_bytes):
    return PlainHead("POST", "/api/write", {"cluster": cluster}, authorization, body_bytes)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (PLAIN, write_head("alex", None, 12)),
        (b"POST /api/write/ HTTP/1.1\r\nhost:\r\ncontent-length:0", PlainHead("POST", "/api/write", {}, None, 0)),
        (PLAIN + b"\r\nAuthorization: Bearer a.b \r\nConnection: Keep-Alive", write_head("alex", "Bearer a.b", 12)),
        (PLAIN + b"\r\nAccept-Encoding: gzip\r\nUser-Agent: curl/8", write_head("alex", None, 12)),
        (QUERY, PlainHead("GET", "/api/query", {"version": "v1"}, None, 2)),
    ],
)
def test_what_the_head_of_a_plain_request_says(head, expected):
    assert parse_head(head) == expected


@pytest.mark.parametrize(
    "head",
    [
        QUERY.replace(b"/api", b"http://x/api"),
        QUERY.replace(b"\r\nContent-Length: 2", b""),
        QUERY.replace(b"GET", b"get"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"?cluster", b"#?cluster"),
        PLAIN.replace(b"/api", b"/api/.."),
        PLAIN.replace(b"/api", b"//api"),
        PLAIN.replace(b"alex", b"al%65x"),
        PLAIN.replace(b"alex", b"a&cluster=b"),
        b"POST /api/write HTTP/1.1\r\nHost: x",
        PLAIN + b"\r\nContent-Length: 12",
        PLAIN + b"\r\nTransfer-Encoding: chunked",
        PLAIN + b"\r\nContent-Encoding: gzip",
        PLAIN + b"\r\nExpect: 100-continue",
        PLAIN + b"\r\nConnection: close",
        PLAIN + b"\r\nUpgrade: websocket",
        PLAIN + b"\r\n folded: yes",
        PLAIN + b"\r\nName : value",
        PLAIN + b"\r\nName: a\x00b",
        PLAIN + b"\r\nHost: y",
        PLAIN.replace(b"Host: x\r\n", b""),
        PLAIN + b"\r\nProxy-Connection: close",
        PLAIN + b"\r\nSec-WebSocket-Key1: x",
        PLAIN + b"\r\nAccept: a\r\naccept: b",
        PLAIN.replace(b"\r\n", b"\n"),
        PLAIN.replace(b"12", b"-12"),
        PLAIN.replace(b"12", b"1_2"),
        PLAIN.replace(b"12", b""),
        b"",
    ],
)
def test_everything_else_is_left_to_aiohttp(head):
    assert parse_head(head) is None


@given(st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join), st.sampled_from([PLAIN, QUERY, None]))
def test_a_head_means_to_aiohttp_what_it_means_here(more, before):
    head = more if before is None else before + b"\r\n" + more
    found = parse_head(head)
    if found is None:
        return
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(_Protocol(), loop, 2**16)
        [(message, payload)], upgraded, tail = parser.feed_data(head + b"\r\n\r\n")
        assert (message.method, upgraded, tail) == (found.method, False, b"")
        assert message.url.path in {found.path, f"{found.path}/"}
        assert message.version == (1, 1)
        assert not message.should_close
        assert not message.chunked
        assert message.compression is None
        assert dict(message.url.query) == found.parameters
        assert message.headers.get("Authorization") == found.authorization
        assert int(message.headers["Content-Length"]) == found.body_bytes
        assert payload.is_eof() == (found.body_bytes == 0)
    finally:
        loop.close()


class _Protocol:
    """What the parser needs of a connection."""

    _reading_paused = False

    def pause_reading(self):
        """Nothing is read."""

    resume_reading = pause_reading
