"""Makes the JSON checkpoint of a host, see `json_checkpoint`, for the predecessor to load.

Values are printed with as many digits as tell a double from all others. Levels and metrics without samples are left
out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from ccms_server.store.tree import Level

Document = dict[str, Any]
"""A level with its metrics and children, as it is in the file."""


class Samples(NamedTuple):
    """Consecutive values of a series."""

    metric: str
    interval: int
    """Seconds."""
    start: int
    """Time of the first value, seconds since the epoch."""
    values: NDArray[np.float64]
    """float64 array of shape (n_values,), at least one; NaN where there is no sample."""


Read = Callable[[int, int], Samples | None]
"""The samples of a series, given its metric and its id; None if it has none."""


def document(level: Level, read: Read, start: int, end: int) -> Document | None:
    """Reads a level and all below it.

    Args:
        level: The level.
        read: Reads one series.
        start: Time from which on samples are read, seconds.
        end: Time before which they are, seconds.

    Returns:
        None if there are no samples.
    """
    metrics: Document = {}
    for metric_id, series in list(level.series.items()):
        samples = read(metric_id, series)
        if samples is not None:
            metrics[samples.metric] = {
                "frequency": samples.interval,
                "start": samples.start,
                "data": samples.values,
            }
    children: Document = {}
    for name, child in list(level.children.items()):
        below = document(child, read, start, end)
        if below is not None:
            children[name] = below
    if not metrics and not children:
        return None
    return {"from": start, "to": end, "metrics": metrics, "children": children}


def encode(host: Document) -> bytes:
    """The content of the file."""
    return orjson.dumps(host, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def on_grid(
    timestamps: NDArray[np.int64], values: NDArray[np.float64], interval: int
) -> tuple[int, NDArray[np.float64]]:
    """Puts samples side by side, as a checkpoint has them.

    A series whose collector was restarted may have its samples off the grid of those before; they go where they are
    nearest, one place each.

    Args:
        timestamps: int64 array of shape (n_samples,), seconds, ascending, at least one.
        values: float64 array of the same shape.
        interval: Seconds.

    Returns:
        Time of the first value, and a float64 array of all from the first to the last; NaN where there is none.
    """
    start = int(timestamps[0])
    places = (timestamps - start + (interval >> 1)) // interval
    ranks = np.arange(len(places))
    places = np.maximum.accumulate(places - ranks) + ranks  # no two in one place
    spread = np.full(int(places[-1]) + 1, np.nan)
    spread[places] = values
    return start, spread
