"""What can go wrong between a client and a server.

ClientError
├── InvalidRequestError     the request breaks a rule of the server, or is over a limit: mend it
├── ServerBusyError         the server is behind: send again later
├── ServerUnavailableError  the server cannot be reached, or is starting or stopping: try again
├── DeadlineError           no answer in the time allowed
└── ServerError             the server failed, or does not speak this protocol
"""

from typing import Final

from grpc import StatusCode, aio

_PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"


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
    StatusCode.RESOURCE_EXHAUSTED: ServerBusyError,
    StatusCode.UNAVAILABLE: ServerUnavailableError,
    StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}


def client_error(error: aio.AioRpcError) -> ClientError:
    """The exception that fits the status of a failed call."""
    pushback_ms = dict(error.trailing_metadata() or ()).get(_PUSHBACK_KEY)
    retry_after_seconds = int(pushback_ms) / 1000 if pushback_ms is not None else None
    error_class = _ERROR_BY_STATUS.get(error.code(), ServerError)
    return error_class(f"{error.code().name}: {error.details()}", retry_after_seconds)
