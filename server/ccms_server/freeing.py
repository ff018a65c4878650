"""Which levels a request to free samples may name, and how they are freed: the same for every front end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Final

from ccms_server.errors import InvalidRequestError, LimitExceededError

LEVELS_MAX: Final = 10_000
"""Levels in one request."""
DEPTH_MAX: Final = 4
"""Names of a level: cluster, host, component, sub-component."""
FREED_AT_ONCE: Final = 64
"""Levels that wait to be freed at the same time: a sync of the log does for all of them."""

Path = tuple[str, ...]


def distinct_levels(paths: Sequence[Sequence[str]], field: str) -> list[Path]:
    """The levels that are not, or do not lie below, another one.

    Args:
        paths: Names of each level.
        field: What the list is called in the request.

    Raises:
        LimitExceededError: There are too many.
        InvalidRequestError: One has too many names.
    """
    if len(paths) > LEVELS_MAX:
        raise LimitExceededError("selectors in one request", len(paths), LEVELS_MAX, "name fewer at a time")
    for number, path in enumerate(paths):
        if len(path) > DEPTH_MAX:
            raise InvalidRequestError(
                f"{field}[{number}]", f"has {len(path)} names; a selector is cluster, host, component, sub-component"
            )
    distinct = {tuple(path): None for path in paths}
    return [path for path in distinct if not any(path[:length] in distinct for length in range(len(path)))]


async def free_levels(free: Callable[[Path, int], Awaitable[int]], levels: Sequence[Path], before: int) -> int:
    """Frees levels, some at a time.

    Args:
        free: Frees one; see `MetricService.free`.
        levels: The levels.
        before: Samples older than this are dropped, in seconds.

    Returns:
        Number of series that lost samples.
    """
    freed = 0
    waiting = iter(levels)
    while together := tuple(islice(waiting, FREED_AT_ONCE)):
        freed += sum(await asyncio.gather(*(free(level, before) for level in together)))
    return freed
