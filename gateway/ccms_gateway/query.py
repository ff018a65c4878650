"""`/api/query`: JSON in, JSON out, for cc-backend and scripts."""

from collections.abc import AsyncGenerator, Mapping
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

QUERY_BYTES_MAX: Final = 4 << 20
"""Largest body of a query: about 100,000 series asked for one by one, parsed in 20 ms."""


class QueryHandler:
    """Answers queries."""

    def __init__(self, backend: Backend, bodies: BodyReader, answers: AnswerSender) -> None:
        self._backend = backend
        self._bodies = bodies
        self._answers = answers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers a request."""
        body = await self._bodies.read(request, QUERY_BYTES_MAX)
        async with aclosing(await self.answer(body, request.rel_url.query)) as text:
            return await self._answers.text(request, text, "application/json")

    async def answer(self, body: bytes, parameters: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """The text of an answer, with a series or an error for each series asked for."""
        asked = await decode_body(partial(decode_query, resample=parameters.get("version") != "v1"), body)
        return self._backend.encoded_query(asked, AnswerEncoder(asked).pieces)
