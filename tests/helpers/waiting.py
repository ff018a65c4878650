"""Waiting for something to become true, instead of waiting for some time."""

import asyncio
from contextlib import asynccontextmanager

DEADLINE_SECONDS = 30.0


async def eventually(condition, what, *, seconds=DEADLINE_SECONDS):
    """Returns the first true value of `condition`, which may be async; after a while fails, saying what was awaited."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert loop.time() < until, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(0.01)


class Lag:
    """How long the event loop was kept from other work at most, in seconds."""

    def __init__(self):
        self.longest = 0.0


@asynccontextmanager
async def lag_measured():
    """Measures the lag of the running event loop while the context lasts."""
    loop, lag = asyncio.get_running_loop(), Lag()

    async def tick():
        while True:
            before = loop.time()
            await asyncio.sleep(0.001)
            lag.longest = max(lag.longest, loop.time() - before)

    ticking = asyncio.create_task(tick())
    try:
        yield lag
        await asyncio.sleep(0.002)  # what has just ended may have kept the last tick
    finally:
        ticking.cancel()
