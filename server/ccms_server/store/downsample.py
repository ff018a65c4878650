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


def downsample(values: NDArray[np.float64], factor: int) -> NDArray[np.float64] | None:
    """Picks about one of `factor` samples so that the plot keeps its shape.

    Args:
        values: float64 array of shape (n_samples,); NaN marks a missing sample.
        factor: Samples for each one kept, >= 1.

    Returns:
        float64 array of shape (max(2, n_samples // factor),), the first and last sample among them; None when the
        series is too short, or the factor leaves it as it is. A bucket before one with a missing sample becomes NaN.
    """
    wanted = len(values) // factor
    if len(values) < DOWNSAMPLED_MIN or wanted == 0 or wanted >= len(values):
        return None
    return _largest_triangles(values, wanted)


@kernel
def _largest_triangles(values: NDArray[np.float64], wanted: int) -> NDArray[np.float64]:
    n = len(values)
    kept = np.empty(max(2, wanted))
    kept[0] = values[0]
    kept[-1] = values[n - 1]
    if wanted <= 2:
        return kept
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
    return kept
