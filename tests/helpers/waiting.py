"""Waiting for something to become true, instead of waiting for some time."""

import asyncio

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
