"""The REST API as an aiohttp application."""

from aiohttp import hdrs, web

from ccms_gateway.auth import guarded
from ccms_gateway.backend import Backend
from ccms_gateway.body import BodyReader
from ccms_gateway.errors import Handler, errors_as_json
from ccms_gateway.query import QueryHandler
from ccms_gateway.write import WriteHandler
from ccms_server.auth import Access, Guard


def create_app(backend: Backend, guard: Guard, *, request_bytes: int, bodies_bytes: int) -> web.Application:
    """Builds the application.

    Args:
        backend: Where samples go to and come from.
        guard: Decides who may do what.
        request_bytes: Largest body of a write.
        bodies_bytes: Size of all bodies that are being read at the same time.
    """
    app = web.Application(middlewares=[errors_as_json])
    bodies = BodyReader(bodies_bytes)
    write, query = WriteHandler(backend, bodies, request_bytes), QueryHandler(backend, bodies)
    # The predecessor answers GET, which browsers cannot send with a body, and Go's router makes that HEAD as well.
    _add_routes(
        app, (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_POST), "api/query", guarded(query.handle, Access.READ, guard)
    )
    _add_routes(app, (hdrs.METH_POST,), "api/write", guarded(write.handle, Access.WRITE, guard))
    return app


def _add_routes(app: web.Application, methods: tuple[str, ...], path: str, handler: Handler) -> None:
    """Routes a path with one leading slash or two (base URLs that end in one), and with or without a trailing slash."""
    for spelling in (f"/{path}", f"/{path}/", f"//{path}", f"//{path}/"):
        for method in methods:
            app.router.add_route(method, spelling, handler)
