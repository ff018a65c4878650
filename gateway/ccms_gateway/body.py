"""Reading request bodies, with limits on size and time."""

import asyncio
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import aiohttp
from aiohttp import hdrs, http_exceptions, web

from ccms_gateway.inflate import ENCODINGS, Inflater
from ccms_server.errors import QueueFullError

BODY_SECONDS: Final = 30.0
"""Time a client has to send a body, as with the predecessor."""


class BodyMemory:
    """The memory for all bodies that are being read at the same time."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max: Final = bytes_max
        self.bytes = 0

    def take(self, n_bytes: int) -> bool:
        """Takes memory, which has to be given back even if the answer is no: there is not enough of it."""
        self.bytes += n_bytes
        return self.bytes <= self.bytes_max

    def give_back(self, n_bytes: int) -> None:
        """Gives back what was taken."""
        self.bytes -= n_bytes


class BodyReader:
    """Reads bodies, as many at a time as there is memory for."""

    def __init__(self, memory: BodyMemory) -> None:
        """Makes a reader.

        Args:
            memory: For all bodies that are being read.
        """
        self._memory = memory

    async def read(self, request: web.Request, bytes_max: int) -> bytes:
        """Reads the whole body.

        Args:
            request: The request.
            bytes_max: Largest body that is read, in bytes after decompression.

        Raises:
            web.HTTPException: It is too large, too slow, cut short or of an unknown encoding.
            QueueFullError: Too much is being read already.
        """
        if (request.content_length or 0) > bytes_max:
            raise _too_large(bytes_max)
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS), aclosing(_pieces(request)) as content:
                async for piece in content:
                    pieces.append(piece)
                    size += len(piece)
                    is_enough = self._memory.take(len(piece))
                    if size > bytes_max:
                        raise _too_large(bytes_max)
                    if not is_enough:
                        raise QueueFullError(self._memory.bytes, self._memory.bytes_max)
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=body_too_slow()) from None
        except (
            web.RequestPayloadError,
            aiohttp.ClientPayloadError,
            http_exceptions.HttpProcessingError,
            ConnectionError,
            zlib.error,
        ) as error:
            raise web.HTTPBadRequest(text=f"the body is incomplete or badly encoded: {error}") from None
        finally:
            self._memory.give_back(size)
        return b"".join(pieces)


async def _pieces(request: web.Request) -> AsyncGenerator[bytes, None]:
    """The body, decompressed. aiohttp's own decompression does not tell when the compressed data end early."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower() or "identity"
    if encoding == "identity":
        async for piece in request.content.iter_any():
            yield piece
        return
    if encoding not in ENCODINGS:
        raise web.HTTPUnsupportedMediaType(
            text=f"Content-Encoding {encoding!r} is none of {', '.join(sorted(ENCODINGS))}"
        )
    inflater = Inflater()
    async for compressed in request.content.iter_any():
        for piece in inflater.pieces(compressed):
            yield piece
            await asyncio.sleep(0)  # a little data may become a lot
    if not inflater.complete:
        raise web.HTTPBadRequest(text="the compressed body is cut short")


def body_too_slow() -> str:
    """What a client is told that does not send its body in time."""
    return f"the body took longer than {BODY_SECONDS:.0f} s"


def _too_large(bytes_max: int) -> web.HTTPException:
    return web.HTTPRequestEntityTooLarge(max_size=bytes_max, text=f"the body exceeds the limit of {bytes_max:,} bytes")
