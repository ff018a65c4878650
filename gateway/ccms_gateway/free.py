"""`/api/free`: drops what is older than a time."""

import asyncio
import re
from collections.abc import Sequence
from itertools import islice
from typing import Final

import msgspec
from aiohttp import web

from ccms_gateway.answer import AnswerSender
from ccms_gateway.backend import Backend
from ccms_gateway.body import BodyReader
from ccms_gateway.json_body import decode_body
from ccms_gateway.schemas import FreeBody
from ccms_server.errors import InvalidRequestError, LimitExceededError

FREE_BYTES_MAX: Final = 1 << 20
SELECTORS_MAX: Final = 10_000
"""Selectors in one body."""
DEPTH_MAX: Final = 4
"""Names in a selector: cluster, host, component, sub-component."""
FREED_AT_ONCE: Final = 64
"""Selectors that wait to be freed at the same time: a sync of the log does for all of them."""

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
        freed = 0
        waiting = iter(selectors)
        while together := tuple(islice(waiting, FREED_AT_ONCE)):
            freed += sum(await asyncio.gather(*(self._backend.free(selector, before) for selector in together)))
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
    return _distinct(_decoder.decode(body) or ())


def _distinct(selectors: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The selectors that are not, or do not lie below, another one."""
    if len(selectors) > SELECTORS_MAX:
        raise LimitExceededError("selectors in one request", len(selectors), SELECTORS_MAX, "name fewer at a time")
    for number, selector in enumerate(selectors):
        if len(selector) > DEPTH_MAX:
            raise InvalidRequestError(
                f"body[{number}]", f"has {len(selector)} names; a selector is cluster, host, component, sub-component"
            )
    distinct = {tuple(selector): None for selector in selectors}
    return [path for path in distinct if not any(path[:length] in distinct for length in range(len(path)))]
