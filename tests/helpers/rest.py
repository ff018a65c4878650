"""A client for the REST API that sends GET requests with bodies, as cc-backend does."""

import asyncio
import io
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class RestClient:
    def __init__(self, session, base_url, ssl_context):
        self.base_url = base_url
        self._ssl_context = ssl_context
        self._session = session

    async def send(self, method, path, body=b"", headers=None):
        """Sends a request without any headers but those needed, and reads the answer."""
        data = body.encode() if isinstance(body, str) else body
        data = io.BytesIO(data) if isinstance(data, bytes) and len(data) > 1 << 20 else data  # as aiohttp wants it
        # A plain string would be normalised, and lose its doubled slash.
        url = f"{self.base_url}{path}"
        async with self._session.request(
            method, url, data=data, headers=headers, skip_auto_headers=("Content-Type", "User-Agent")
        ) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def connect(self):
        """A connection of its own, to say on it what no client would."""
        host, port = self.base_url.partition("://")[2].split(":")
        return await asyncio.open_connection(host, int(port), ssl=self._ssl_context)

    async def write(self, lines, path="/api/write"):
        return await self.send("POST", path, lines)

    async def query(self, body, path="/api/query"):
        return await self.send("GET", path, json.dumps(body))


@asynccontextmanager
async def rest_client(base_url, *, token=None, ssl_context=None):
    """A client for a server.

    Args:
        base_url: Where it is.
        token: Sent with every request, unless it has other `Authorization`.
        ssl_context: For HTTPS; None: the base URL is one of HTTP.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connector = aiohttp.TCPConnector(ssl=ssl_context or True)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        yield RestClient(session, base_url, ssl_context)
