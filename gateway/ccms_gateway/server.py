"""Serving the application on sockets, and ending that without cutting requests short."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import http_exceptions, web

from ccms_gateway.errors import Handler
from ccms_gateway.sending import sending

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 180.0
"""A connection is closed when no request is complete up to its body for so long: collectors send every minute or so."""


class RunningRequests:
    """Counts the requests that are being handled.

    aiohttp's own shutdown stops reading from all connections at once, so a request whose body is still under way would
    wait in vain and be cut.
    """

    def __init__(self) -> None:
        self._count = 0
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._ending = False

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Counts a request as long as it runs; at the end, asks its client to close the connection."""
        self._count += 1
        self._none_left.clear()
        try:
            response = await handler(request)
            if self._ending:
                response.force_close()
            await _finish(request, response)
            return response
        finally:
            self._count -= 1
            if not self._count:
                self._none_left.set()

    async def finish(self, grace_seconds: float) -> None:
        """Waits until no request is left, or for so long."""
        self._ending = True
        try:
            async with asyncio.timeout(grace_seconds):
                await self._none_left.wait()
        except TimeoutError:
            logger.warning("%d requests did not end within %.0f s", self._count, grace_seconds)


@asynccontextmanager
async def serving(
    app: web.Application,
    sockets: Sequence[socket.socket],
    *,
    grace_seconds: float,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[None]:
    """Serves an application while the context lasts; at its end, running requests have some time to finish.

    Args:
        app: The application.
        sockets: Listen already; closed at the end.
        grace_seconds: Time for running requests.
        ssl_context: For HTTPS; None: plain HTTP.
    """
    requests = RunningRequests()
    app.middlewares.insert(0, requests.middleware)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # `BodyReader` does, and notices what is missing
        handle_signals=False,
        keepalive_timeout=IDLE_SECONDS,
        logger=_connection_logger(),
        handler_cancellation=True,  # nobody waits for the answer to a closed connection
        shutdown_timeout=0.1,  # `finish` has waited by then; 0 would wait for ever
    )
    await runner.setup()
    try:
        for each in sockets:
            await web.SockSite(runner, each, ssl_context=ssl_context).start()
        yield
    finally:
        for site in tuple(runner.sites):
            await site.stop()
        await requests.finish(grace_seconds)
        await runner.cleanup()


async def _finish(request: web.Request, response: web.StreamResponse) -> None:
    """Sends what is left of an answer."""
    try:
        async with sending(request):
            await response.prepare(request)
            await response.write_eof()
    except ConnectionError as error:
        logger.debug("an answer was not taken: %s", error)


def _connection_logger() -> logging.Logger:
    """What aiohttp logs of connections, but no traceback for each client that does not speak HTTP."""

    def shorten(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, http_exceptions.HttpProcessingError | web.RequestPayloadError):
            record.msg, record.args = f"{record.getMessage()}: {error!r}", ()
            record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        return True

    connection_logger = logger.getChild("connection")
    connection_logger.filters = [shorten]
    return connection_logger
