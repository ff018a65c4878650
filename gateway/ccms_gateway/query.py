"""`/api/query`: JSON in, JSON out, for cc-backend and scripts."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

from aiohttp import web

from ccms_gateway.answer_json import AnswerEncoder
from ccms_gateway.backend import Backend
from ccms_gateway.body import BodyReader
from ccms_gateway.query_json import decode_query
from ccms_server.model import QueryRequest, SeriesAnswer

logger = logging.getLogger(__name__)

QUERY_BYTES_MAX: Final = 8 << 20
"""Largest body of a query: about 200,000 series asked for one by one."""
WHOLE_ANSWER_BYTES_MAX: Final = 1 << 20
"""Answers up to this size are sent with their length; larger ones are sent in pieces while the rest is being read."""
INLINE_WEIGHT_MAX: Final = 32_768
"""Chunks that weigh less are encoded on the event loop, in less than a millisecond."""
_SERIES_WEIGHT: Final = 100
"""A series costs as much as this many values, beside its values."""


class QueryHandler:
    """Answers queries."""

    def __init__(self, backend: Backend, bodies: BodyReader) -> None:
        self._backend = backend
        self._bodies = bodies

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers with a series or an error for each series asked for."""
        body = await self._bodies.read(request, QUERY_BYTES_MAX)
        asked = decode_query(body, resample=request.rel_url.query.get("version") != "v1")
        pieces: list[bytes] = []
        size = 0
        text = self._answer_text(asked)
        async for piece in text:
            pieces.append(piece)
            size += len(piece)
            if size > WHOLE_ANSWER_BYTES_MAX:
                return await _send_in_pieces(request, pieces, text)
        return web.Response(body=b"".join(pieces), content_type="application/json")

    async def _answer_text(self, asked: QueryRequest) -> AsyncIterator[bytes]:
        """The JSON text of the answer, piece by piece."""
        encoder = AnswerEncoder(asked)
        async for answers in self._backend.query(asked):
            if _weight(answers) > INLINE_WEIGHT_MAX:
                yield await asyncio.to_thread(encoder.encode, answers)
            else:
                yield encoder.encode(answers)
        yield encoder.finish()


def _weight(answers: Sequence[SeriesAnswer]) -> int:
    """How much work encoding is, in values."""
    values = sum(answer.values.size for answer in answers if answer.values is not None)
    return values + _SERIES_WEIGHT * len(answers)


async def _send_in_pieces(
    request: web.Request, pieces: Sequence[bytes], rest: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Sends an answer of unknown length. An error cuts the connection, so that the client sees the end is missing."""
    response = web.StreamResponse()
    response.content_type = "application/json"
    await response.prepare(request)
    try:
        for piece in pieces:
            await response.write(piece)
        async for piece in rest:
            await response.write(piece)
        await response.write_eof()
    except ConnectionError:
        logger.debug("%s went away while its answer was being sent", request.remote)
    except Exception:
        logger.exception("%s %s failed while its answer was being sent", request.method, request.path)
        if request.transport is not None:
            request.transport.abort()
    return response
