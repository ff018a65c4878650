"""Asking the guard about a request, before anything of its body is read."""

from aiohttp import hdrs, web

from ccms_gateway.errors import Handler
from ccms_server.auth import Access, Guard


def guarded(handler: Handler, access: Access, guard: Guard) -> Handler:
    """Makes a handler that only sees requests that the guard lets pass.

    Args:
        handler: What answers them.
        access: What they are about to do.
        guard: Raises for the others, see `Guard.check`.
    """

    async def ask_and_handle(request: web.Request) -> web.StreamResponse:
        guard.check(request.headers.get(hdrs.AUTHORIZATION), access)
        return await handler(request)

    return ask_and_handle
