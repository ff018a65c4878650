"""`/api/debug`: what the store holds."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import msgspec
from aiohttp import web

from ccms_gateway.answer import AnswerSender
from ccms_gateway.backend import Backend
from ccms_gateway.dump_json import DumpEncoder
from ccms_server.errors import InvalidRequestError

_decoder: Final = msgspec.json.Decoder(list[str])


class DebugHandler:
    """Dumps what is held of each series: where it begins and ends."""

    def __init__(self, backend: Backend, answers: AnswerSender) -> None:
        self._backend = backend
        self._answers = answers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers with everything at the selector and below it."""
        path = selector_path(request.rel_url.query.get("selector", ""))
        async with aclosing(self._dump(path)) as text:
            return await self._answers.text(request, text, "application/json")

    async def _dump(self, path: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """The JSON text of the answer, piece by piece."""
        encoder = DumpEncoder(len(path))
        async with aclosing(self._backend.series_extents(path)) as chunks:
            async for extents in chunks:
                yield await asyncio.to_thread(encoder.encode, extents)
        yield encoder.finish()


def selector_path(selector: str) -> list[str]:
    """The names in a selector, from the cluster down.

    Args:
        selector: The names with colons between them; or a JSON list, for names with colons in them. Empty: none.

    Raises:
        InvalidRequestError: It begins like a JSON list and is none of names.
    """
    if not selector:
        return []
    if not selector.startswith("["):
        return selector.split(":")
    try:
        return _decoder.decode(selector)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequestError("selector", f"is no JSON list of names: {error}") from None
