"""Exceptions become HTTP answers here, and nowhere else."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import orjson
from aiohttp import hdrs, web

from ccms_server.errors import (
    DiskUnavailableError,
    MetricStoreError,
    NotReadyError,
    PermissionDeniedError,
    QueueFullError,
    RequestError,
    UnauthenticatedError,
)

logger = logging.getLogger(__name__)

STATUS_BY_ERROR: Final[dict[type[MetricStoreError], HTTPStatus]] = {
    RequestError: HTTPStatus.BAD_REQUEST,
    UnauthenticatedError: HTTPStatus.UNAUTHORIZED,
    PermissionDeniedError: HTTPStatus.FORBIDDEN,
    QueueFullError: HTTPStatus.SERVICE_UNAVAILABLE,
    DiskUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The first class that fits decides. What is missing here is our fault: 500."""

CHALLENGE_BY_SCHEME: Final = {"Bearer": "Bearer", "Basic": 'Basic realm="cc-metric-store", charset="UTF-8"'}
"""What asks a client to authenticate, for each scheme."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def error_response(status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """The predecessor's form of an error: `{"status": "Bad Request", "error": "what is wrong"}`."""
    body = orjson.dumps({"status": status.phrase, "error": message})
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever a handler raises into an error response."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.path} does not answer {request.method}, but {allowed}"
        return error_response(HTTPStatus.METHOD_NOT_ALLOWED, message, {hdrs.ALLOW: allowed})
    except web.HTTPNotFound:
        return error_response(HTTPStatus.NOT_FOUND, f"there is nothing at {request.path}")
    except web.HTTPException as error:
        status = HTTPStatus(error.status)
        return error_response(status, error.text or status.phrase)
    except Exception as error:
        return failure_response(error, f"{request.method} {request.path}")


def failure_response(error: Exception, request: str) -> web.Response:
    """The answer to a request that failed; what is our fault is logged.

    Args:
        error: Why.
        request: Method and path.
    """
    for error_class, status in STATUS_BY_ERROR.items():
        if isinstance(error, error_class):
            return error_response(status, str(error), _headers(error))
    logger.error("%s failed", request, exc_info=error)
    return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed to handle the request; its log says why")


def _headers(error: Exception) -> Mapping[str, str] | None:
    if isinstance(error, QueueFullError | NotReadyError | DiskUnavailableError):
        return {hdrs.RETRY_AFTER: str(error.retry_after_seconds)}
    if isinstance(error, UnauthenticatedError):
        return {hdrs.WWW_AUTHENTICATE: ", ".join(CHALLENGE_BY_SCHEME[scheme] for scheme in error.schemes)}
    return None
