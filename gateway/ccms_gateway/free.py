"""`/api/free`: drops what is older than a time."""

import re
from typing import Final

import msgspec
from aiohttp import web

from ccms_gateway.answer import AnswerSender
from ccms_gateway.backend import Backend
from ccms_gateway.body import BodyReader
from ccms_gateway.json_body import decode_body
from ccms_gateway.schemas import FreeBody
from ccms_server.errors import InvalidRequestError
from ccms_server.freeing import distinct_levels, free_levels

FREE_BYTES_MAX: Final = 1 << 20

_decoder: Final = msgspec.json.Decoder(FreeBody)


class FreeHandler:
    """Drops samples."""

    def __init__(self, backend: Backend, bodies: BodyReader, answers: AnswerSender) -> None:
        self._backend = backend
        self._bodies = bodies
        self._answers = answers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers once everything selected is dropped, with the number of series that lost samples."""
        before = _before(request.rel_url.query.get("to", ""))
        body = await self._bodies.read(request, FREE_BYTES_MAX)
        selectors = await decode_body(_decode_selectors, body)
        freed = await free_levels(self._backend.free, selectors, before)
        return await self._answers.whole(request, b"buffers freed: %d\n" % freed, "text/plain")


def _before(text: str) -> int:
    """The time in the parameter `to`."""
    if not text:
        raise InvalidRequestError("to", "is required: add `?to=` and a time in seconds since the epoch")
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or not -(2**63) <= int(text) < 2**63:
        raise InvalidRequestError("to", f"{text[:40]!r} is no time in seconds since the epoch, a 64-bit integer")
    return int(text)


def _decode_selectors(body: bytes) -> list[tuple[str, ...]]:
    """What the body selects, each level once."""
    return distinct_levels(_decoder.decode(body) or (), "body")
