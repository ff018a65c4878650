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


class BodyReader:
    """Reads bodies, as many at a time as there is memory for."""

    def __init__(self, bytes_max: int) -> None:
        """Makes a reader for all requests of an application.

        Args:
            bytes_max: Size of all bodies that are being read at the same time.
        """
        self._bytes_max = bytes_max
        self._bytes = 0

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
                    self._bytes += len(piece)
                    if size > bytes_max:
                        raise _too_large(bytes_max)
                    if self._bytes > self._bytes_max:
                        raise QueueFullError(self._bytes, self._bytes_max)
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"the body took longer than {BODY_SECONDS:.0f} s") from None
        except (
            web.RequestPayloadError,
            aiohttp.ClientPayloadError,
            http_exceptions.HttpProcessingError,
            ConnectionError,
            zlib.error,
        ) as error:
            raise web.HTTPBadRequest(text=f"the body is incomplete or badly encoded: {error}") from None
        finally:
            self._bytes -= size
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


def _too_large(bytes_max: int) -> web.HTTPException:
    return web.HTTPRequestEntityTooLarge(max_size=bytes_max, text=f"the body exceeds the limit of {bytes_max:,} bytes")
