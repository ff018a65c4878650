"""Blocking methods made from those of asyncio, with the same arguments, types and documentation."""

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from ccms_client.event_loop_thread import EventLoopThread

_Inner = TypeVar("_Inner")
_Inner_co = TypeVar("_Inner_co", covariant=True)
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Made = TypeVar("_Made")
_Wrapped = TypeVar("_Wrapped")


class Blocking(Generic[_Inner_co]):
    """An object of asyncio, and the thread in which its methods run."""

    def __init__(self, inner: _Inner_co, thread: EventLoopThread) -> None:
        self._inner = inner
        self._thread = thread


def blocking(
    method: Callable[Concatenate[_Inner, _Parameters], Coroutine[Any, Any, _Result]],
) -> Callable[Concatenate[Blocking[_Inner], _Parameters], _Result]:
    """The method that waits for what a method of asyncio returns."""

    @functools.wraps(method)
    def wait(self: Blocking[_Inner], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        return self._thread.run(method(self._inner, *args, **kwargs))

    return wait


def iterating(
    method: Callable[Concatenate[_Inner, _Parameters], AsyncGenerator[_Result, None]],
) -> Callable[Concatenate[Blocking[_Inner], _Parameters], Generator[_Result, None, None]]:
    """The method that iterates over what a method of asyncio yields; nothing is fetched before it is asked for.

    Closing the generator, or dropping it, cancels the call.
    """

    @functools.wraps(method)
    def iterate(
        self: Blocking[_Inner], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> Generator[_Result, None, None]:
        iterator = method(self._inner, *args, **kwargs)
        try:
            while (found := self._thread.run(_next(iterator))) is not None:
                yield found[0]
        finally:
            self._thread.start(iterator.aclose())  # does not wait: the garbage collector may be who closes it

    return iterate


async def _next(iterator: AsyncGenerator[_Result, None]) -> tuple[_Result] | None:
    """The next item; None: there is none."""
    async for item in iterator:
        return (item,)
    return None


def making(
    method: Callable[Concatenate[_Inner, _Parameters], _Made], wrap: Callable[[_Made, EventLoopThread], _Wrapped]
) -> Callable[Concatenate[Blocking[_Inner], _Parameters], _Wrapped]:
    """The method that wraps what a method makes."""

    @functools.wraps(method)
    def make(self: Blocking[_Inner], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Wrapped:
        return wrap(method(self._inner, *args, **kwargs), self._thread)

    return make
