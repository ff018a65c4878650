"""`/api/query`: JSON in, JSON out, for cc-backend and scripts."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

from aiohttp import web

from ccms_gateway.answer import AnswerSender
from ccms_gateway.answer_json import AnswerEncoder
from ccms_gateway.backend import Backend
from ccms_gateway.body import BodyReader
from ccms_gateway.json_body import decode_body
from ccms_gateway.query_json import decode_query
from ccms_server.model import QueryRequest, SeriesAnswer

QUERY_BYTES_MAX: Final = 4 << 20
"""Largest body of a query: about 100,000 series asked for one by one, parsed in 20 ms."""
INLINE_WEIGHT_MAX: Final = 32_768
"""Chunks that weigh less are encoded on the event loop, in less than a millisecond."""
_SERIES_WEIGHT: Final = 100
"""A series costs as much as this many values, beside its values."""


class QueryHandler:
    """Answers queries."""

    def __init__(self, backend: Backend, bodies: BodyReader, answers: AnswerSender) -> None:
        self._backend = backend
        self._bodies = bodies
        self._answers = answers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers with a series or an error for each series asked for."""
        body = await self._bodies.read(request, QUERY_BYTES_MAX)
        asked = await decode_body(partial(decode_query, resample=request.rel_url.query.get("version") != "v1"), body)
        async with aclosing(self._answer_text(asked)) as text:
            return await self._answers.text(request, text, "application/json")

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
