"""What happens around every call, whatever its method: it takes a place, and its errors become statuses."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from inspect import isasyncgenfunction
from typing import Any, Final

from grpc import Compression, StatusCode, aio

from ccms_server.auth import Access
from ccms_server.errors import MetricStoreError
from ccms_server.rpc.authentication import access_of
from ccms_server.rpc.call_limits import CallLimits, Places
from ccms_server.rpc.compression import response_compression
from ccms_server.rpc.errors import Context, errors_as_status, refusal
from ccms_server.rpc.undecodable import all_decoded, decoded, tolerant

REQUEST_BYTES_MAX: Final = 4 << 20
"""Longest request of calls that do not write: a query of about 200,000 series asked for one by one, parsed in 12 ms.

Parsing keeps the interpreter to itself, and empty queries take 0.16 s and 50 times their size in memory.
"""

_Behaviour = Callable[[Any, Context], Any]
_Around = Callable[[Context], AbstractAsyncContextManager[None]]


class AroundCalls(aio.ServerInterceptor):
    """Refuses calls there is no place for, and requests that cannot be decoded; compresses responses if asked to."""

    def __init__(self, limits: CallLimits) -> None:
        """Makes it.

        Args:
            limits: How many calls there may be.
        """
        self._limits = limits

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401  untyped there
        """Wraps the handler of a call; a method that does not exist stays gRPC's affair."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        places = self._limits.places(method)
        try:
            places.check()  # also before anything of the request is read
            compression = response_compression(dict(handler_call_details.invocation_metadata or ()))
        except MetricStoreError as error:
            return refusal(error)
        bytes_max = None if access_of(method) is Access.WRITE else REQUEST_BYTES_MAX
        return _wrapped(
            handler._replace(request_deserializer=tolerant(handler.request_deserializer, bytes_max)),
            lambda context: _around(context, places, compression),
        )


@asynccontextmanager
async def _around(context: Context, places: Places, compression: Compression | None) -> AsyncIterator[None]:
    async with errors_as_status(context):
        with places.one_taken():
            if compression is not None:
                context.set_compression(compression)
            try:
                yield
            except NotImplementedError:  # what a library left out
                await context.abort(StatusCode.UNIMPLEMENTED, "this method is not implemented")


def _wrapped(handler: Any, around: _Around) -> Any:  # noqa: ANN401  untyped there
    """A handler of the same kind, with something around it."""
    read = all_decoded if handler.request_streaming else decoded
    kind = f"{_form(handler.request_streaming)}_{_form(handler.response_streaming)}"
    behaviour = getattr(handler, kind)
    if isasyncgenfunction(behaviour):
        return handler._replace(**{kind: _stream(behaviour, read, around)})
    return handler._replace(**{kind: _single(behaviour, read, around)})  # or it writes its answers to the context


def _form(is_stream: bool) -> str:
    return "stream" if is_stream else "unary"


def _single(behaviour: _Behaviour, read: Callable[[Any], Any], around: _Around) -> _Behaviour:
    async def answer(request: Any, context: Context) -> Any:  # noqa: ANN401  any message
        async with around(context):
            return await behaviour(read(request), context)

    return answer


def _stream(behaviour: _Behaviour, read: Callable[[Any], Any], around: _Around) -> _Behaviour:
    async def answer(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401  any message
        async with around(context), aclosing(behaviour(read(request), context)) as responses:
            async for response in responses:
                yield response

    return answer
