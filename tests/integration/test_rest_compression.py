"""Answers with gzip: for clients that ask, if the configuration allows it, and not for small ones."""

import gzip
import json
import zlib

import aiohttp
import pytest
from helpers.server import config_text, server_inside
from helpers.waiting import lag_measured

START = 1_500_000_000
API = {"address": "127.0.0.1:0", "compression": True}


class Raw:
    """Sends requests, and leaves answers as they come."""

    def __init__(self, session, base_url):
        self._session = session
        self._base_url = base_url

    async def send(self, method, path, body=None, accept="gzip"):
        headers = {"Accept-Encoding": accept} if accept is not None else {}
        data = json.dumps(body).encode() if body is not None else None
        async with self._session.request(
            method, f"{self._base_url}{path}", data=data, headers=headers, skip_auto_headers=("Accept-Encoding",)
        ) as response:
            return response.status, response.headers, await response.read()

    async def query(self, samples, accept="gzip", **more):
        body = {"cluster": "c", "from": START, "to": START + 60 * samples, **more}
        body["queries"] = [{"metric": "cpu_load", "host": "n1"}]
        return await self.send("POST", "/api/query", body, accept)


async def fill(rest, n_samples):
    for first in range(0, n_samples, 10_000):
        lines = "".join(
            f"cpu_load,cluster=c,hostname=n1 value={number % 1000 / 8} {START + 60 * number}\n"
            for number in range(first, min(n_samples, first + 10_000))
        )
        assert (await rest.write(lines)).status == 200


@pytest.fixture
async def raw():
    async with server_inside(**{"http-api": API}) as server:
        await fill(server.rest, 200_000)
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Raw(session, server.rest.base_url)


def values(body):
    return json.loads(body)["results"][0][0]["data"]


async def test_a_whole_answer_is_compressed(raw):
    status, headers, body = await raw.query(1000)
    assert (status, headers["Content-Encoding"], headers["Vary"]) == (200, "gzip", "Accept-Encoding")
    assert headers["Content-Type"] == "application/json"
    assert int(headers["Content-Length"]) == len(body)
    plain = (await raw.query(1000, accept=None))[2]
    assert gzip.decompress(body) == plain
    assert len(body) < len(plain) / 2


async def test_a_streamed_answer_is_compressed(raw):
    async with lag_measured() as lag:
        status, headers, body = await raw.query(200_000)
    assert (status, headers["Content-Encoding"], headers["Vary"]) == (200, "gzip", "Accept-Encoding")
    assert "Content-Length" not in headers
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    text = decompressor.decompress(body)
    assert decompressor.eof
    assert values(text) == [number % 1000 / 8 for number in range(200_000)]
    assert lag.longest < 0.5


@pytest.mark.parametrize("accept", [None, "identity", "deflate", "gzip;q=0", "identity, gzip;q=0.1"])
@pytest.mark.parametrize("samples", [1000, 200_000])
async def test_those_who_do_not_ask_get_it_plain(raw, accept, samples):
    status, headers, body = await raw.query(samples, accept)
    assert (status, headers["Vary"]) == (200, "Accept-Encoding")
    assert "Content-Encoding" not in headers
    assert len(values(body)) == samples


async def test_short_answers_are_not_compressed(raw):
    status, headers, body = await raw.query(10)
    assert (status, headers["Vary"]) == (200, "Accept-Encoding")
    assert "Content-Encoding" not in headers
    assert len(values(body)) == 10


@pytest.mark.parametrize("samples", [1000, 200_000])
async def test_head_announces_what_get_sends(raw, samples):
    body = {"cluster": "c", "from": START, "to": START + 60 * samples}
    body["queries"] = [{"metric": "cpu_load", "host": "n1"}]
    _, expected, _ = await raw.send("GET", "/api/query", body)
    status, headers, content = await raw.send("HEAD", "/api/query", body)
    assert (status, content) == (200, b"")
    for name in ("Content-Encoding", "Content-Length", "Vary"):
        assert headers.get(name) == expected.get(name)


async def test_the_document_of_the_api_is_compressed(raw):
    _, headers, body = await raw.send("GET", "/api/openapi.json")
    assert headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(body))["openapi"].startswith("3.1")


async def test_without_being_told_nothing_is_compressed():
    assert "compression" not in config_text()
    async with server_inside() as server:
        await fill(server.rest, 1000)
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            status, headers, body = await Raw(session, server.rest.base_url).query(1000)
    assert status == 200
    assert "Content-Encoding" not in headers
    assert "Vary" not in headers
    assert len(values(body)) == 1000
