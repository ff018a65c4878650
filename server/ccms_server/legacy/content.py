"""What readers of the predecessor's files find in them, in the shape that samples are stored in.

A file belongs to a host and holds columns: consecutive values of one series. Stored column by column, they would jump
from window to window and fill the WAL with jumps; so columns that cover the same time are turned into blocks, in which
all series come one after another for every time, as collectors send them.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_SAMPLES_MAX: Final = 1 << 17
"""Samples of a block, but for a single column that is longer."""

LEVELS_MAX: Final = 8
"""Levels below a host that are followed; the store has two."""

TIME_MAX: Final = 1 << 60
"""Times are between 0 and this, in seconds, so that sums of them never overflow."""

Report = Callable[[int, int, str], None]
"""Is told of damage: offset of the first byte that is lost, number of lost bytes, and what they held."""


class Series(NamedTuple):
    """A series of the file's host."""

    path: tuple[str, ...]
    """Levels below the host; empty for the host itself."""
    metric: str
    interval: int | None
    """Spacing that the file gives for it, in seconds; None: it gives none."""


class Column(NamedTuple):
    """Consecutive values of a series: number i was taken at `start + i * interval`, as the predecessor answers it."""

    series: Series
    start: int
    """Seconds since the epoch."""
    interval: int
    """Seconds."""
    values: NDArray[np.float64]
    """float64 array of shape (n_values,); NaN where there is no sample."""


class Block(NamedTuple):
    """Samples of several series: arrays of shape (n_samples,), to be stored in this order."""

    series: list[Series]
    numbers: NDArray[np.intp]
    """Which of `series` a sample is of."""
    timestamps: NDArray[np.int64]
    """Seconds since the epoch."""
    values: NDArray[np.float64]
    """NaN where there is no sample."""


def column(series: Series, start: int, interval: int, values: NDArray[np.float64]) -> Column:
    """Makes a column of what a file says.

    Raises:
        ValueError: The times are none; the message says why.
    """
    if not 1 <= interval <= TIME_MAX:
        raise ValueError(f"its frequency is {interval} s")
    if not 0 <= start <= TIME_MAX or start + len(values) * interval > TIME_MAX:
        raise ValueError(f"it begins {start} s after the epoch, and has {len(values):,} values {interval} s apart")
    return Column(series, start, interval, values)


def blocks(columns: Iterable[Column]) -> Iterator[Block]:
    """Puts neighbouring columns of the same times together; takes them one by one."""
    gathered: list[Column] = []
    for each in columns:
        if gathered and not _is_beside(gathered, each):
            yield _block(gathered)
            gathered = []
        gathered.append(each)
    if gathered:
        yield _block(gathered)


def _is_beside(gathered: list[Column], each: Column) -> bool:
    first = gathered[0]
    return (each.start, each.interval, len(each.values)) == (first.start, first.interval, len(first.values)) and (
        len(gathered) + 1
    ) * len(first.values) <= BLOCK_SAMPLES_MAX


def _block(columns: list[Column]) -> Block:
    first = columns[0]
    times = first.start + np.arange(len(first.values), dtype=np.int64) * first.interval
    return Block(
        [each.series for each in columns],
        np.tile(np.arange(len(columns)), len(times)),
        np.repeat(times, len(columns)),
        np.stack([each.values for each in columns], axis=1).ravel(),
    )
