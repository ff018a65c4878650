"""The forms in which callers may have times, and the one the server knows: whole seconds since the epoch."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Time: TypeAlias = float | datetime
"""Seconds since the epoch, or a datetime with a time zone."""

Times: TypeAlias = Sequence[float] | Sequence[datetime] | NDArray[np.integer | np.floating | np.datetime64]
"""Seconds since the epoch, datetimes with a time zone, or those of numpy, which are in UTC."""


def whole_seconds(time: Time) -> int:
    """The first whole second that is not before a time, so that a range keeps the samples it had.

    Raises:
        ValueError: A datetime has no time zone, or a number is none.

    >>> from datetime import datetime, UTC
    >>> whole_seconds(1700000000.25), whole_seconds(datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))
    (1700000001, 1700000000)
    """
    seconds = _seconds(time)
    if not math.isfinite(seconds):
        raise ValueError(f"{time} is not a time: seconds since the epoch are wanted")
    return math.ceil(seconds)


def seconds_array(times: Time | Times) -> NDArray[np.int64]:
    """Times of samples.

    Returns:
        int64 array of the same shape: seconds since the epoch, fractions cut off; may be the caller's array.

    Raises:
        ValueError: They are not times, some are not finite, or a datetime has no time zone.
    """
    given = np.asarray(times)
    if given.dtype.kind == "O":
        given = np.array([_seconds(time) for time in given.ravel()]).reshape(given.shape)
    if given.dtype.kind == "M":
        if np.isnat(given).any():
            raise ValueError("some timestamps are not a time (NaT): leave these samples out")
        return given.astype("datetime64[s]").astype(np.int64)
    if given.dtype.kind == "f" and not np.isfinite(given).all():
        raise ValueError("some timestamps are NaN or infinite: leave these samples out")
    if given.size and given.dtype.kind not in "iuf":
        raise ValueError(f"timestamps are seconds since the epoch, or datetimes, not {given.dtype}")
    return given.astype(np.int64, copy=False)


def _seconds(time: Time) -> float:
    if not isinstance(time, datetime):
        return time
    if time.utcoffset() is None:
        raise ValueError(f"{time} has no time zone: give it one, such as `tzinfo=datetime.UTC`")
    return time.timestamp()
