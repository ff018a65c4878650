"""Fewer samples in time: Largest Triangle Three Buckets.

Sveinn Steinarsson, "Downsampling Time Series for Visual Representation", MSc thesis, University of Iceland, 2013.
The bucket borders, and what happens around missing samples, are those of the predecessor: its users compare plots.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.jit import kernel

DOWNSAMPLED_MIN: Final = 100
"""Series with fewer samples are left as they are."""


def downsampled_sizes(sizes: NDArray[np.int64], factors: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many samples of some series are picked.

    Args:
        sizes: int64 array of shape (n_series,): the samples of each.
        factors: int64 array of the same shape: samples for each one kept, >= 1.

    Returns:
        int64 array of the same shape: the size itself of series that are too short, or that the factor leaves as they
        are; else `max(2, size // factor)`.
    """
    wanted = sizes // factors
    is_left = (sizes < DOWNSAMPLED_MIN) | (wanted == 0) | (wanted >= sizes)
    return np.where(is_left, sizes, np.maximum(2, wanted))


def downsample(
    values: NDArray[np.float64], edges: NDArray[np.int64], factors: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Picks about one of `factor` samples so that the plot keeps its shape, of each of some series.

    Args:
        values: float64 array, the samples of all series; NaN marks a missing sample.
        edges: int64 array of shape (n_series + 1,): those of series k are `values[edges[k]:edges[k + 1]]`.
        factors: See `downsampled_sizes`.

    Returns:
        What was picked, and its edges, in new arrays. The first and last sample of a series are among them. A bucket
        before one with a missing sample becomes NaN.
    """
    sizes = np.diff(edges)
    picked_edges = np.zeros_like(edges)
    np.cumsum(downsampled_sizes(sizes, factors), out=picked_edges[1:])
    picked = np.empty(int(picked_edges[-1]))
    _downsample(values, edges, sizes // factors, picked, picked_edges)
    return picked, picked_edges


@kernel
def _downsample(
    values: NDArray[np.float64],
    edges: NDArray[np.int64],
    wanted: NDArray[np.int64],
    picked: NDArray[np.float64],
    picked_edges: NDArray[np.int64],
) -> None:
    for series in range(len(wanted)):
        exact = values[edges[series] : edges[series + 1]]
        kept = picked[picked_edges[series] : picked_edges[series + 1]]
        if len(kept) == len(exact):
            kept[:] = exact
        else:
            _largest_triangles(exact, wanted[series], kept)


@kernel
def _largest_triangles(values: NDArray[np.float64], wanted: int, kept: NDArray[np.float64]) -> None:
    n = len(values)
    kept[0] = values[0]
    kept[-1] = values[n - 1]
    if wanted <= 2:
        return
    size = (n - 2) / (wanted - 2)
    low, middle, before = 1, int(size) + 1, 0
    for bucket in range(wanted - 2):
        high = min(int((bucket + 2) * size) + 1, n - 2)
        # The third corner is the mean of the next bucket; of nothing, it is undefined like that of a gap.
        mean_x, mean_y, count = 0.0, 0.0, 0
        for i in range(middle, high + 1):
            mean_x += i
            mean_y += values[i]
            count += 1
        if count == 0:
            mean_x, mean_y = np.nan, np.nan
        else:
            mean_x, mean_y = mean_x / count, mean_y / count
        largest, chosen = -1.0, 0
        for i in range(low, middle):
            area = abs((before - i) * (mean_y - values[before]) - (before - mean_x) * (values[i] - values[before])) / 2
            if area > largest:
                largest, chosen = area, i
        kept[bucket + 1] = np.nan if np.isnan(mean_y) and low < middle else values[chosen]
        before = chosen
        low, middle = middle, high
