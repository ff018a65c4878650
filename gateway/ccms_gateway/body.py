"""Reading request bodies, with a limit on size and time."""

import asyncio
from typing import Final

import aiohttp
from aiohttp import http_exceptions, web

BODY_SECONDS: Final = 30.0
"""Time a client has to send a body, as with the predecessor."""


async def read_body(request: web.Request, bytes_max: int) -> bytes:
    """Reads the whole body.

    Args:
        request: The request.
        bytes_max: Largest body that is read, in bytes after decompression.

    Raises:
        web.HTTPException: It is too large, too slow or cut short.
    """
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            # `request.read` would decompress in steps as large as the limit, and need a multiple of it.
            async for piece in request.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > bytes_max:
                    raise _too_large(bytes_max)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body took longer than {BODY_SECONDS:.0f} s") from None
    except (
        web.RequestPayloadError,
        aiohttp.ClientPayloadError,
        http_exceptions.HttpProcessingError,
        ConnectionError,
    ) as error:
        raise web.HTTPBadRequest(text=f"the body is incomplete or badly encoded: {error}") from None
    return b"".join(pieces)


def _too_large(bytes_max: int) -> web.HTTPException:
    return web.HTTPRequestEntityTooLarge(max_size=bytes_max, text=f"the body exceeds the limit of {bytes_max:,} bytes")
