"""Sending answers: short ones whole, long ones in pieces while the rest is being made; compressed for who asks."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from ccms_gateway.compression import GzipStream, accepts_gzip
from ccms_gateway.sending import sending

logger = logging.getLogger(__name__)

WHOLE_BYTES_MAX: Final = 1 << 20
"""Answers up to this size are sent with their length; larger ones are sent in pieces while the rest is being read."""

COMPRESSED_BYTES_MIN: Final = 1024
"""Shorter answers fit into one packet as they are."""


class AnswerSender:
    """Sends the answers of all requests of an application."""

    def __init__(self, *, compression: bool) -> None:
        """Makes a sender.

        Args:
            compression: Whether answers are compressed for clients that ask for it.
        """
        self._compression = compression

    async def whole(self, request: web.Request, body: bytes, content_type: str) -> web.StreamResponse:
        """An answer that is known at once."""
        headers = self._headers()
        if len(body) >= COMPRESSED_BYTES_MIN and self._is_compressed(request):
            stream = GzipStream()
            body = await stream.add(body) + stream.finish()
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        charset = "utf-8" if content_type == "text/plain" else None
        return web.Response(body=body, content_type=content_type, charset=charset, headers=headers)

    async def text(
        self, request: web.Request, text: AsyncGenerator[bytes, None], content_type: str
    ) -> web.StreamResponse:
        """An answer that is made piece by piece.

        Args:
            request: What is answered.
            text: The answer. What it raises is raised here while nothing was sent; later it cuts the connection, so
                that the client sees that the end is missing.
            content_type: What the answer is.
        """
        pieces, is_whole = await first_pieces(text)
        if not is_whole:
            return await self._in_pieces(request, pieces, text, content_type)
        return await self.whole(request, b"".join(pieces), content_type)

    async def _in_pieces(
        self, request: web.Request, pieces: Sequence[bytes], rest: AsyncIterator[bytes], content_type: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=self._headers())
        response.content_type = content_type
        stream = GzipStream() if self._is_compressed(request) else None
        if stream is not None:
            response.headers[hdrs.CONTENT_ENCODING] = "gzip"
        if request.version < HttpVersion11:
            response.force_close()  # which is what ends an answer without a length there
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:
            return response
        try:
            async for piece in chained(pieces, rest):
                await _write(request, response, piece if stream is None else await stream.add(piece))
            if stream is not None:
                await _write(request, response, stream.finish())
        except ConnectionError as error:
            logger.debug("an answer was not taken: %s", error)
        except Exception:
            logger.exception("%s %s failed while its answer was being sent", request.method, request.path)
            if request.transport is not None:
                request.transport.abort()
        return response

    def _headers(self) -> dict[str, str]:
        return {hdrs.VARY: hdrs.ACCEPT_ENCODING} if self._compression else {}

    def _is_compressed(self, request: web.Request) -> bool:
        return self._compression and accepts_gzip(",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, ())))


async def first_pieces(text: AsyncIterator[bytes]) -> tuple[list[bytes], bool]:
    """The first pieces of an answer, up to WHOLE_BYTES_MAX or a little more, and whether there are no others."""
    pieces: list[bytes] = []
    size = 0
    async for piece in text:
        pieces.append(piece)
        size += len(piece)
        if size > WHOLE_BYTES_MAX:
            return pieces, False
    return pieces, True


async def chained(pieces: Sequence[bytes], rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The first pieces of an answer, and the rest."""
    for piece in pieces:
        yield piece
    async for piece in rest:
        yield piece


async def _write(request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
    if piece:  # an empty one would end the answer
        async with sending(request):
            await response.write(piece)
