"""What can go wrong between a client and a server.

ClientError
├── InvalidRequestError     the request breaks a rule of the server, or is over a limit: mend it
├── UnauthenticatedError    the server wants a token, or another one
├── PermissionDeniedError   the token is good, but does not allow the call
├── ServerBusyError         the server is behind: send again later
├── ServerUnavailableError  the server cannot be reached, or is starting or stopping: try again
├── DeadlineError           no answer in the time allowed
└── ServerError             the server failed, or does not speak this protocol
"""

from typing import Final

from grpc import StatusCode, aio

_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"

_TOO_LARGE: Final = "message larger than max"
"""How gRPC itself refuses a message, with the status of a server that is behind."""


class ClientError(Exception):
    """Base of every error of this package.

    Attributes:
        retry_after_seconds: When the server wants to be asked again; None if it did not say.
    """

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class InvalidRequestError(ClientError):
    """The request breaks a rule; sending it again unchanged will fail again."""


class UnauthenticatedError(ClientError):
    """The server wants a token, or another one: it may have expired."""


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


_ERROR_BY_STATUS: Final = {
    StatusCode.INVALID_ARGUMENT: InvalidRequestError,
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
    return error_class(f"{error.code().name}: {error.details()}", _retry_after_seconds(error))


def _retry_after_seconds(error: aio.AioRpcError) -> float | None:
    pushback_ms = dict(error.trailing_metadata() or ()).get(_PUSHBACK_KEY, "")
    return int(pushback_ms) / 1000 if isinstance(pushback_ms, str) and pushback_ms.isdecimal() else None
