"""An event loop in a thread of its own, for callers that have none."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

_Result = TypeVar("_Result")

_WAIT_SECONDS: Final = 0.5
"""Time after which Ctrl-C is noticed at the latest: not every system interrupts a wait for it."""


class EventLoopThread:
    """Runs coroutines for other threads. Its thread is a daemon: it does not keep a process from ending."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return not self._loop.is_closed()

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Waits for a coroutine. Ctrl-C ends the waiting, and cancels the coroutine.

        Raises:
            RuntimeError: The loop has been closed, or this is its own thread.
        """
        if self._loop.is_closed():
            coroutine.close()
            raise RuntimeError("the client is closed: make another one")
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a callback cannot wait for the client that calls it: hand the work to another thread")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            while not concurrent.futures.wait((future,), _WAIT_SECONDS).done:
                pass
            return future.result()
        except BaseException:
            future.cancel()  # without effect on one that has ended
            raise

    def start(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Runs a coroutine without waiting for it; if the loop has been closed, there is nothing left to do."""
        if self._loop.is_closed():
            coroutine.close()
        else:
            asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Ends the loop and its thread; closing again does nothing."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._cancel_tasks())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _cancel_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
