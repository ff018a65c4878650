"""Kernels that make heads of answers out of spans: where each series begins and ends, and how many values it has."""

import numpy as np
from numpy.typing import NDArray

from ccms_server.jit import kernel
from ccms_server.model import END, INTERVAL, IS_ERROR, PADDING, START
from ccms_server.store.span import BEGIN, N_MEMBERS, N_SLOTS

_LONG_AGO = -(1 << 62)
"""A time from which on no difference of times overflows, in seconds."""


@kernel
def fill_heads(
    spans: NDArray[np.int64], start: int, is_padded: bool, heads: NDArray[np.int64], n_points: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Notes what spans say.

    Args:
        spans: See `Spans.table`.
        start: Start asked for, in seconds.
        is_padded: Whether the values begin there.
        heads: See `SeriesAnswers.heads`; their intervals and errors are known, the rest is written.
        n_points: int64 array of shape (n_series,); the values of each, padding included, are written there.

    Returns:
        Number of all values, of all samples that they are made of, and of values in front of the first sample of a
        series at most.
    """
    total, n_samples, padding_max = 0, 0, 0
    for number in range(len(heads)):
        head, span = heads[number], spans[number]
        n_points[number] = span[N_SLOTS]
        if head[IS_ERROR]:
            continue
        head[START], head[END] = span[BEGIN], span[BEGIN] + span[N_SLOTS] * head[INTERVAL]
        if is_padded:
            head[PADDING] = padding(span[BEGIN], start, head[INTERVAL])
            n_points[number] += head[PADDING]
            padding_max = max(padding_max, head[PADDING])
        total += n_points[number]
        n_samples += span[N_SLOTS] * span[N_MEMBERS]
    return total, n_samples, padding_max


@kernel
def padding(begin: int, start: int, interval: int) -> int:
    """Values from the start asked for to the first one there is."""
    return max(0, begin // interval - max(start, _LONG_AGO) // interval)


@kernel
def change_intervals(
    heads: NDArray[np.int64], start: int, is_padded: bool, is_sampled: NDArray[np.bool_], intervals: NDArray[np.int64]
) -> None:
    """Notes that some series have other intervals now.

    Args:
        heads: Of all series.
        start: See `fill_heads`.
        is_padded: See `fill_heads`.
        is_sampled: bool array of shape (n_series,): which ones.
        intervals: int64 array of shape (n_series,): their intervals, seconds.
    """
    for number in np.flatnonzero(is_sampled):
        head = heads[number]
        head[INTERVAL] = intervals[number]
        if is_padded:
            head[PADDING] = padding(head[START], start, head[INTERVAL])
