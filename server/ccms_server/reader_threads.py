"""Threads that read the store for the event loop, some work at a time."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

AHEAD_SECONDS: Final = 0.002
"""A thread goes on for so long before it hands over what it has made: a hand-over takes a tenth of a millisecond, and a
chunk of an answer of the largest size about that long."""

STEPS_SECONDS: Final = 0.01
"""A thread makes steps for so long before its work can be given up."""

_Chunk = TypeVar("_Chunk")
_Made = TypeVar("_Made")


class ReaderThreads:
    """A number of threads, and those who wait for one of them."""

    def __init__(self, workers: int) -> None:
        """Makes the threads.

        Args:
            workers: How many.
        """
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="reader")
        # Waiting here rather than for a thread, what is given up leaves the line.
        self._free = asyncio.Semaphore(workers)

    async def call(self, work: Callable[[], _Made]) -> _Made:
        """What a function returns."""
        async with self._free:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def make(self, steps: Generator[None, None, _Made]) -> _Made:
        """What a generator returns, made some steps at a time."""
        while True:
            made = await self.call(lambda: _step(steps))
            if made is not None:
                return made[0]

    async def read(self, chunks: Iterator[_Chunk]) -> AsyncGenerator[_Chunk, None]:
        """What an iterator makes, a little ahead of whoever takes it."""
        made, is_end = await self._some(chunks)
        if is_end:
            for chunk in made:
                yield chunk
            return
        ahead = asyncio.create_task(self._some(chunks))
        try:
            while True:
                for chunk in made:
                    yield chunk
                if is_end:
                    break
                made, is_end = await ahead
                if not is_end:
                    ahead = asyncio.create_task(self._some(chunks))
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)  # nobody waits for it, nor for its errors

    async def _some(self, chunks: Iterator[_Chunk]) -> tuple[list[_Chunk], bool]:
        return await self.call(lambda: _some(chunks))

    def close(self) -> None:
        """Ends the threads when they have done what they are at."""
        self._executor.shutdown(wait=False)


def _some(chunks: Iterator[_Chunk]) -> tuple[list[_Chunk], bool]:
    """What an iterator makes in a while, at least one thing, and whether that was all."""
    until, made = time.perf_counter() + AHEAD_SECONDS, []
    for chunk in chunks:
        made.append(chunk)
        if time.perf_counter() >= until:
            return made, False
    return made, True


def _step(steps: Generator[None, None, _Made]) -> tuple[_Made] | None:
    """Makes steps for a while; what the generator returns if it came to its end."""
    until = time.perf_counter() + STEPS_SECONDS
    try:
        while time.perf_counter() < until:
            next(steps)
    except StopIteration as end:
        return (end.value,)
    return None
