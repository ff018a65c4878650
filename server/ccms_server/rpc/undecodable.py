"""Requests that cannot be decoded: the client's fault, which gRPC takes for a defect of ours.

Left alone, gRPC logs each of them with a traceback, and answers UNKNOWN. So they are handed on in place of the request,
and refused by whoever looks at them first.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from ccms_server.errors import LimitExceededError, RequestError


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands for a request that could not be decoded, or is too long to be."""

    error: RequestError
    """What is wrong."""


def tolerant(deserialize: Callable[[bytes], Any], bytes_max: int | None) -> Callable[[bytes], Any]:
    """Deserializes requests, and never raises what gRPC would take for a defect.

    Args:
        deserialize: Deserializes a request.
        bytes_max: Length of the longest one; None: that of the server decides.
    """

    def deserialize_or_tell(message: bytes) -> Any:  # noqa: ANN401  any message
        if bytes_max is not None and len(message) > bytes_max:
            remedy = "ask for less at a time"
            return Undecodable(LimitExceededError("bytes in this request", len(message), bytes_max, remedy))
        try:
            return deserialize(message)
        except DecodeError as error:
            return Undecodable(RequestError(f"the request is not the message it should be: {error}"))

    return deserialize_or_tell


def decoded(request: Any) -> Any:  # noqa: ANN401  any message
    """A request that could be decoded.

    Raises:
        RequestError: It could not.
    """
    if isinstance(request, Undecodable):
        raise request.error
    return request


async def all_decoded(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The requests of a stream.

    Raises:
        RequestError: The next one could not be decoded.
    """
    async for request in requests:
        yield decoded(request)
