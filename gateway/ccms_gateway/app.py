"""The REST API as an aiohttp application."""

from aiohttp import hdrs, web

from ccms_gateway.answer import AnswerSender
from ccms_gateway.auth import guarded
from ccms_gateway.backend import Backend
from ccms_gateway.body import BodyMemory, BodyReader
from ccms_gateway.debug import DebugHandler
from ccms_gateway.errors import Handler, errors_as_json
from ccms_gateway.free import FreeHandler
from ccms_gateway.healthcheck import HealthHandler
from ccms_gateway.openapi import OpenApiHandler
from ccms_gateway.operations import OPERATIONS
from ccms_gateway.plain.connection import PLAIN_CONNECTIONS, PlainConnections, PlainOperation
from ccms_gateway.query import QUERY_BYTES_MAX, QueryHandler
from ccms_gateway.running import RunningRequests
from ccms_gateway.swagger import swagger_handlers
from ccms_gateway.write import WriteHandler
from ccms_server.auth import Access, Guard


def create_app(
    backend: Backend,
    guard: Guard,
    *,
    request_bytes: int,
    bodies_bytes: int,
    compression: bool = False,
    swagger: bool = False,
) -> web.Application:
    """Builds the application.

    Args:
        backend: Where samples go to and come from.
        guard: Decides who may do what.
        request_bytes: Largest body of a write.
        bodies_bytes: Size of all bodies that are being read at the same time.
        compression: Whether answers are compressed for clients that ask for it.
        swagger: Whether there is a page to try the API.

    Raises:
        ConfigError: The files of that page are not installed.
    """
    requests, memory = RunningRequests(), BodyMemory(bodies_bytes)
    app = web.Application(middlewares=[requests.middleware, errors_as_json])
    bodies, answers = BodyReader(memory), AnswerSender(compression=compression)
    query, write = QueryHandler(backend, bodies, answers), WriteHandler(backend, bodies, request_bytes)
    plain = [PlainOperation(hdrs.METH_POST, "/api/write", Access.WRITE, request_bytes, write.answer)]
    if not compression:
        plain += [
            PlainOperation(method, "/api/query", Access.READ, QUERY_BYTES_MAX, query.answer)
            for method in (hdrs.METH_GET, hdrs.METH_POST)
        ]
    app[PLAIN_CONNECTIONS] = PlainConnections(plain, guard, memory, requests)
    handlers: dict[str, Handler] = {
        "/api/query": query.handle,
        "/api/write": write.handle,
        "/api/free": FreeHandler(backend, bodies, answers).handle,
        "/api/debug": DebugHandler(backend, answers).handle,
        "/api/healthcheck": HealthHandler(backend, bodies, answers).handle,
        "/api/openapi.json": OpenApiHandler(guard, answers).handle,
    }
    for operation in OPERATIONS:
        handler = handlers[operation.path]
        if operation.access is not None:
            handler = guarded(handler, operation.access, guard)
        for path in (operation.path, f"{operation.path}/"):
            _add_route(app, operation.method, path, handler)
    if swagger:
        for path, handler in swagger_handlers().items():
            _add_route(app, hdrs.METH_GET, path, handler)
    return app


def _add_route(app: web.Application, method: str, path: str, handler: Handler) -> None:
    """Routes a path with one leading slash or two: base URLs may end in one."""
    for spelling in (path, f"/{path}"):
        app.router.add_route(method, spelling, handler)
        if method == hdrs.METH_GET:  # as the predecessor's router has it
            app.router.add_route(hdrs.METH_HEAD, spelling, handler)
