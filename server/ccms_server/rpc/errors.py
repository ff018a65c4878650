"""Exceptions become gRPC statuses here, and nowhere else.

A status has details for programs (`google.rpc`) in its trailing metadata: an `ErrorInfo` with the reason and what the
error knows; beside it a `BadRequest` that names the field to mend, or a `RetryInfo` that says when to try again.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio, stream_stream_rpc_method_handler

from ccms_server.errors import (
    DiskUnavailableError,
    InvalidRequestError,
    LimitExceededError,
    MetricStoreError,
    NotFoundError,
    NotReadyError,
    PermissionDeniedError,
    QueueFullError,
    RequestError,
    SequenceGapError,
    TooManyCallsError,
    UnauthenticatedError,
)

logger = logging.getLogger(__name__)

STATUS_BY_ERROR: Final[dict[type[MetricStoreError], tuple[StatusCode, str]]] = {
    NotFoundError: (StatusCode.NOT_FOUND, "NOT_FOUND"),
    SequenceGapError: (StatusCode.ABORTED, "SEQUENCE_GAP"),  # the stream is to be opened again
    InvalidRequestError: (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    # OUT_OF_RANGE is for reading on where data ends, and may succeed later.
    LimitExceededError: (StatusCode.INVALID_ARGUMENT, "LIMIT_EXCEEDED"),
    RequestError: (StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    UnauthenticatedError: (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    PermissionDeniedError: (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    TooManyCallsError: (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
    QueueFullError: (StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    DiskUnavailableError: (StatusCode.RESOURCE_EXHAUSTED, "DISK_UNAVAILABLE"),
    NotReadyError: (StatusCode.UNAVAILABLE, "NOT_READY"),
}
"""Status, and reason for programs. The first class that fits decides; what is missing here is our fault: INTERNAL."""

ERROR_DOMAIN: Final = "ccms.v1"
"""Where the reasons belong to."""
DETAILS_KEY: Final = "grpc-status-details-bin"
"""Trailing metadata that holds a `google.rpc.Status`."""
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
"""Trailing metadata that tells gRPC clients when to try again."""
MESSAGE_BYTES_MAX: Final = 1024
"""Length of a message, which may quote the request: peers refuse metadata of 8 KiB, where it is three times over."""

Context = aio.ServicerContext[Any, Any]


@asynccontextmanager
async def errors_as_status(context: Context) -> AsyncIterator[None]:
    """Ends the call with the status that fits what is raised inside."""
    try:
        yield
    except aio.AbortError:
        raise
    except MetricStoreError as error:
        for error_class, (code, reason) in STATUS_BY_ERROR.items():
            if isinstance(error, error_class):
                message = _shortened(str(error))
                await context.abort(code, message, _trailing_metadata(error, code, reason, message))
        await _abort_unexpected(context)
    except Exception:
        await _abort_unexpected(context)


def refusal(error: MetricStoreError) -> Any:  # noqa: ANN401  untyped there
    """A handler that ends calls of any kind: only one that takes a stream is called before a request is read."""

    async def refuse(_: object, context: Context) -> None:
        async with errors_as_status(context):
            raise error

    return stream_stream_rpc_method_handler(refuse)


def _trailing_metadata(
    error: MetricStoreError, code: StatusCode, reason: str, message: str
) -> tuple[tuple[str, str | bytes], ...]:
    known = {name: str(value) for name, value in vars(error).items() if isinstance(value, int | str)}
    details: list[Message] = [ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=known)]
    if isinstance(error, InvalidRequestError):
        violation = BadRequest.FieldViolation(
            field=error.field, description=message.removeprefix(f"{error.field}: "), reason=reason
        )
        details.append(BadRequest(field_violations=[violation]))
    retry_after_seconds: int | None = getattr(error, "retry_after_seconds", None)
    if retry_after_seconds is not None:
        details.append(RetryInfo(retry_delay=Duration(seconds=retry_after_seconds)))
    status = Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    pushback = () if retry_after_seconds is None else ((PUSHBACK_KEY, str(1000 * retry_after_seconds)),)
    return (*pushback, (DETAILS_KEY, status.SerializeToString()))


def _shortened(text: str) -> str:
    """The text, or as much of it as a message may hold."""
    encoded = text.encode()
    if len(encoded) <= MESSAGE_BYTES_MAX:
        return text
    return encoded[: MESSAGE_BYTES_MAX - 4].decode(errors="ignore") + " ..."


async def _abort_unexpected(context: Context) -> None:
    logger.exception("call failed")
    await context.abort(StatusCode.INTERNAL, "the server failed to handle the call; its log says why")
