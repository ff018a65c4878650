"""What can go wrong between a client and a server.

ClientError
├── InvalidRequestError     the request breaks a rule of the server, or is over a limit: mend it
├── NotFoundError           what the request names does not exist: look it up
├── UnauthenticatedError    the server wants a token, or another one
│   └── TokenFileError      the file with the token cannot be read
├── PermissionDeniedError   the token is good, but does not allow the call
├── ServerBusyError         the server is behind: send again later
├── ServerUnavailableError  the server cannot be reached, or is starting or stopping: try again
├── DeadlineError           no answer in the time allowed
├── ServerError             the server failed, or does not speak this protocol
├── SeriesUnansweredError   an answer has series that could not be answered
└── StreamBrokenError       a stream of writes ended before all was acknowledged
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode, aio

logger = logging.getLogger(__name__)

_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
_DETAILS_KEY: Final = "grpc-status-details-bin"

_TOO_LARGE: Final = "message larger than max"
"""How gRPC itself refuses a message, with the status of a server that is behind."""


_LOST: Final = "Internal error from Core"
"""How gRPC itself tells of a message that could not be sent because the connection broke off, with status INTERNAL."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request that breaks a rule."""

    field: str
    """Path of the field within the request: `columns[3].times`."""
    description: str
    """The rule."""


class ClientError(Exception):
    """Base of every error of this package.

    Attributes:
        code: Status of the call; None for what the client itself has found.
        reason: Kind of the error as the server names it, for programs: `LIMIT_EXCEEDED`, ...; empty if it did not say.
        metadata: What belongs to the reason; for a limit, `what` has one, what was `asked`, and what the `limit` is.
        field_violations: Fields of the request that have to be mended.
        retry_after_seconds: When the server wants to be asked again; None if it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        field_violations: Iterable[FieldViolation] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.field_violations = list(field_violations)
        self.retry_after_seconds = retry_after_seconds


class InvalidRequestError(ClientError):
    """The request breaks a rule; sending it again unchanged will fail again."""


class NotFoundError(ClientError):
    """What the request names does not exist."""


class UnauthenticatedError(ClientError):
    """The server wants a token, or another one: it may have expired."""


class TokenFileError(UnauthenticatedError):
    """The file with the token cannot be read; nothing was sent."""


class PermissionDeniedError(ClientError):
    """The token is good, but does not allow the call."""


class ServerBusyError(ClientError):
    """The server is behind with writing; nothing of the request was stored."""


class ServerUnavailableError(ClientError):
    """The server cannot be reached, or is starting or stopping."""


class DeadlineError(ClientError):
    """No answer came in time; a write may have been stored all the same."""


class ServerError(ClientError):
    """The server failed to handle the call; its log says why."""


class SeriesUnansweredError(ClientError):
    """Some series of an answer have an error instead of values.

    Attributes:
        messages: What is wrong, for each of them.
    """

    def __init__(self, messages: Sequence[str], n_series: int) -> None:
        shown = "; ".join(messages[:3]) + ("; ..." if len(messages) > 3 else "")
        super().__init__(f"{len(messages)} of {n_series} series have no answer: {shown}")
        self.messages = list(messages)


class StreamBrokenError(ClientError):
    """A stream of writes ended before all was acknowledged; the cause says why.

    Attributes:
        unacknowledged_samples: Samples (or lines) that were taken and not acknowledged; they may be stored or not.
    """

    def __init__(self, cause: BaseException, unacknowledged_samples: int) -> None:
        super().__init__(
            f"the stream ended, {unacknowledged_samples:,} samples are not acknowledged: {cause}",
            code=getattr(cause, "code", None),
            reason=getattr(cause, "reason", ""),
            metadata=getattr(cause, "metadata", None),
            field_violations=getattr(cause, "field_violations", ()),
        )
        self.unacknowledged_samples = unacknowledged_samples


_ERROR_BY_STATUS: Final = {
    StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    StatusCode.OUT_OF_RANGE: InvalidRequestError,
    StatusCode.FAILED_PRECONDITION: InvalidRequestError,
    StatusCode.NOT_FOUND: NotFoundError,
    StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    StatusCode.RESOURCE_EXHAUSTED: ServerBusyError,
    StatusCode.UNAVAILABLE: ServerUnavailableError,
    StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}


def client_error(error: aio.AioRpcError) -> ClientError:
    """The exception that fits the status of a failed call."""
    error_class = _ERROR_BY_STATUS.get(error.code(), ServerError)
    if error_class is ServerBusyError and _TOO_LARGE in (error.details() or ""):
        error_class = InvalidRequestError
    if error_class is ServerError and error.details() == _LOST:
        error_class = ServerUnavailableError
    trailing = dict(error.trailing_metadata() or ())
    details = _Details(trailing.get(_DETAILS_KEY, b""))
    pushback_seconds = _pushback_seconds(trailing.get(_PUSHBACK_KEY, ""))
    return error_class(
        f"{error.code().name}: {error.details()}",
        code=error.code(),
        reason=details.info.reason,
        metadata=details.info.metadata,
        field_violations=[FieldViolation(each.field, each.description) for each in details.request.field_violations],
        retry_after_seconds=pushback_seconds if pushback_seconds is not None else details.retry_after_seconds,
    )


class _Details:
    """What a `google.rpc.Status` has beside code and text; empty when there is none, or none that can be read."""

    def __init__(self, status_bytes: str | bytes) -> None:
        self.info = error_details_pb2.ErrorInfo()
        self.request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        try:
            status = status_pb2.Status.FromString(status_bytes if isinstance(status_bytes, bytes) else b"")
            for detail in status.details:
                for known in (self.info, self.request, retry):
                    detail.Unpack(known)  # does nothing to one of another type
        except DecodeError:
            logger.warning("the details of a failed call cannot be read", exc_info=True)
        self.retry_after_seconds = retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None


def _pushback_seconds(milliseconds: str | bytes) -> float | None:
    is_number = isinstance(milliseconds, str) and milliseconds.isdecimal()
    return int(milliseconds) / 1000 if is_number else None
