"""Counting the requests that are being handled, so that none of them is cut short at the end."""

import asyncio
import logging

from aiohttp import web

from ccms_gateway.errors import Handler
from ccms_gateway.sending import sending

logger = logging.getLogger(__name__)


class RunningRequests:
    """Counts the requests that are being handled.

    aiohttp's own shutdown stops reading from all connections at once, so a request whose body is still under way would
    wait in vain and be cut.

    Attributes:
        ending: Whether no further request is wanted on the connections there are.
    """

    def __init__(self) -> None:
        self.ending = False
        self._count = 0
        self._none_left = asyncio.Event()
        self._none_left.set()

    def begin(self) -> None:
        """A request is going to be handled."""
        self._count += 1
        self._none_left.clear()

    def end(self) -> None:
        """A request has been handled."""
        self._count -= 1
        if not self._count:
            self._none_left.set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Counts a request as long as it runs; at the end, asks its client to close the connection."""
        self.begin()
        try:
            response = await handler(request)
            if self.ending:
                response.force_close()
            await _finish(request, response)
            return response
        finally:
            self.end()

    async def finish(self, grace_seconds: float) -> None:
        """Waits until no request is left, or for so long."""
        self.ending = True
        try:
            async with asyncio.timeout(grace_seconds):
                await self._none_left.wait()
        except TimeoutError:
            logger.warning("%d requests did not end within %.0f s", self._count, grace_seconds)


async def _finish(request: web.Request, response: web.StreamResponse) -> None:
    """Sends what is left of an answer."""
    try:
        async with sending(request):
            await response.prepare(request)
            await response.write_eof()
    except ConnectionError as error:
        logger.debug("an answer was not taken: %s", error)
