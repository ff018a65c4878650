"""Requests that cannot be decoded: the client's fault, which gRPC takes for a defect of ours."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from inspect import isasyncgenfunction
from typing import Any

from google.protobuf.message import DecodeError
from grpc import StatusCode, aio


@dataclass(frozen=True, slots=True)
class _Undecodable:
    """Stands for a request that could not be decoded."""

    message: str


class RefuseUndecodable(aio.ServerInterceptor):
    """Answers INVALID_ARGUMENT to requests that cannot be decoded, and UNIMPLEMENTED to calls that a library left out.

    Left alone, both are logged with a traceback for each request, and answered with UNKNOWN.
    """

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401  untyped there
        """Wraps the handler of a call that takes one request."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        deserialize = _tolerant(handler.request_deserializer)
        if handler.response_streaming:
            return handler._replace(request_deserializer=deserialize, unary_stream=_stream(handler.unary_stream))
        return handler._replace(request_deserializer=deserialize, unary_unary=_single(handler.unary_unary))


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def deserialize_or_tell(message: bytes) -> Any:  # noqa: ANN401  any message
        try:
            return deserialize(message)
        except DecodeError as error:
            return _Undecodable(f"the request is not the message it should be: {error}")

    return deserialize_or_tell


def _single(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Any, context: Any) -> Any:  # noqa: ANN401  any message
        if isinstance(request, _Undecodable):
            await context.abort(StatusCode.INVALID_ARGUMENT, request.message)
        try:
            return await behaviour(request, context)
        except NotImplementedError:
            await context.abort(StatusCode.UNIMPLEMENTED, "this method is not implemented")

    return answer


def _stream(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    if not isasyncgenfunction(behaviour):  # it writes its answers to the context
        return _single(behaviour)

    async def answer(request: Any, context: Any) -> Any:  # noqa: ANN401  any message
        if isinstance(request, _Undecodable):
            await context.abort(StatusCode.INVALID_ARGUMENT, request.message)
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                yield response

    return answer
