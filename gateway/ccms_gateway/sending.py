"""Sending answers to clients that may not take them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

SEND_SECONDS: Final = 30.0
"""Time a client has to take what is sent in one go, as with the predecessor."""


@asynccontextmanager
async def sending(request: web.Request) -> AsyncIterator[None]:
    """Gives a client some time to take what is sent inside; then its connection is cut, as it holds memory meanwhile.

    Raises:
        ConnectionError: It went away, or took too long.
    """
    try:
        async with asyncio.timeout(SEND_SECONDS):
            yield
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError(f"{request.remote} took nothing for {SEND_SECONDS:.0f} s") from None
