"""Exceptions become gRPC statuses here, and nowhere else."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from grpc import StatusCode, aio

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

STATUS_BY_ERROR: Final[dict[type[MetricStoreError], StatusCode]] = {
    # Also for requests over a limit: OUT_OF_RANGE is for reading on where data ends, and may succeed later.
    RequestError: StatusCode.INVALID_ARGUMENT,
    UnauthenticatedError: StatusCode.UNAUTHENTICATED,
    PermissionDeniedError: StatusCode.PERMISSION_DENIED,
    QueueFullError: StatusCode.RESOURCE_EXHAUSTED,
    DiskUnavailableError: StatusCode.RESOURCE_EXHAUSTED,
    NotReadyError: StatusCode.UNAVAILABLE,
}
"""The first class that fits decides. What is missing here is our fault: INTERNAL."""

PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
"""Trailing metadata that tells gRPC clients when to try again."""

Context = aio.ServicerContext[Any, Any]


@asynccontextmanager
async def errors_as_status(context: Context) -> AsyncIterator[None]:
    """Ends the call with the status that fits what is raised inside."""
    try:
        yield
    except aio.AbortError:
        raise
    except MetricStoreError as error:
        for error_class, status in STATUS_BY_ERROR.items():
            if isinstance(error, error_class):
                await context.abort(status, str(error), _trailing_metadata(error))
        await _abort_unexpected(context)
    except Exception:
        await _abort_unexpected(context)


def _trailing_metadata(error: MetricStoreError) -> tuple[tuple[str, str], ...]:
    if isinstance(error, QueueFullError | NotReadyError | DiskUnavailableError):
        return ((PUSHBACK_KEY, str(1000 * error.retry_after_seconds)),)
    return ()


async def _abort_unexpected(context: Context) -> None:
    logger.exception("call failed")
    await context.abort(StatusCode.INTERNAL, "the server failed to handle the call; its log says why")
