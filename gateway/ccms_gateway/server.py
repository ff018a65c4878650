"""Serving the application on sockets, and ending that without cutting requests short."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import http_exceptions, web

from ccms_gateway.plain.connection import PLAIN_CONNECTIONS
from ccms_server.listen import BACKLOG

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 180.0
"""A connection is closed when no request is complete up to its body for so long: collectors send every minute or so."""


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
    plain, loop = app[PLAIN_CONNECTIONS], asyncio.get_running_loop()
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
    assert runner.server is not None, "it is set up"
    connect = partial(plain.connection, runner.server)
    listeners = [await loop.create_server(connect, sock=each, ssl=ssl_context, backlog=BACKLOG) for each in sockets]
    async with asyncio.TaskGroup() as tasks:
        sweeping = tasks.create_task(plain.sweep(IDLE_SECONDS))
        try:
            yield
        finally:
            for listener in listeners:
                listener.close()
            await plain.requests.finish(grace_seconds)
            sweeping.cancel()
            plain.close()
            await runner.cleanup()


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
