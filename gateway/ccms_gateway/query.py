"""`/api/query`: JSON in, JSON out, for cc-backend and scripts."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from ccms_gateway.answer_json import AnswerEncoder
from ccms_gateway.backend import Backend
from ccms_gateway.body import BodyReader
from ccms_gateway.query_json import decode_query
from ccms_gateway.sending import sending
from ccms_server.model import QueryRequest, SeriesAnswer

logger = logging.getLogger(__name__)

QUERY_BYTES_MAX: Final = 4 << 20
"""Largest body of a query: about 100,000 series asked for one by one, parsed in 20 ms."""
INLINE_BYTES_MAX: Final = 16 << 10
"""Bodies up to this size are decoded on the event loop, in a millisecond."""
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
        decode = partial(decode_query, body, resample=request.rel_url.query.get("version") != "v1")
        asked = decode() if len(body) <= INLINE_BYTES_MAX else await asyncio.to_thread(decode)
        pieces: list[bytes] = []
        size = 0
        async with aclosing(self._answer_text(asked)) as text:
            async for piece in text:
                pieces.append(piece)
                size += len(piece)
                if size > WHOLE_ANSWER_BYTES_MAX:
                    return await _send_in_pieces(request, pieces, text)
        return web.Response(body=b"".join(pieces), content_type="application/json")

    async def _answer_text(self, asked: QueryRequest) -> AsyncGenerator[bytes, None]:
        """The JSON text of the answer, piece by piece."""
        encoder = AnswerEncoder(asked)
        async with aclosing(self._backend.query(asked)) as chunks:
            async for answers in chunks:
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
    if request.version < HttpVersion11:
        response.force_close()  # which is what ends an answer without a length there
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    try:
        for piece in pieces:
            async with sending(request):
                await response.write(piece)
        async for piece in rest:
            async with sending(request):
                await response.write(piece)
    except ConnectionError as error:
        logger.debug("an answer was not taken: %s", error)
    except Exception:
        logger.exception("%s %s failed while its answer was being sent", request.method, request.path)
        if request.transport is not None:
            request.transport.abort()
    return response
