"""Statistics of series in one pass."""

import numpy as np
from numpy.typing import NDArray

from ccms_server.jit import kernel
from ccms_server.model import AVG, COUNT, MAX, MIN, STATISTICS_COLUMNS


def statistics(values: NDArray[np.float64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Minimum, mean, maximum and number of the samples of some series.

    Args:
        values: float64 array, the samples of all series; NaN marks a missing sample and does not count.
        edges: int64 array of shape (n_series + 1,): those of series k are `values[edges[k]:edges[k + 1]]`.

    Returns:
        float64 array of shape (n_series, STATISTICS_COLUMNS). Without samples, all is NaN but their number, 0.
    """
    found = np.empty((len(edges) - 1, STATISTICS_COLUMNS))
    _summarise(values, edges, found)
    return found


@kernel
def _summarise(values: NDArray[np.float64], edges: NDArray[np.int64], found: NDArray[np.float64]) -> None:
    for series in range(len(found)):
        low, high, total, count = np.inf, -np.inf, 0.0, 0
        for i in range(edges[series], edges[series + 1]):
            value = values[i]
            if value == value:  # not NaN
                low = min(low, value)
                high = max(high, value)
                total += value
                count += 1
        mean = total / count
        if count == 0:
            low, mean, high = np.nan, np.nan, np.nan
        elif np.isinf(total):  # only the sum is too large: the mean of finite samples is finite
            mean = 0.0
            for i in range(edges[series], edges[series + 1]):
                value = values[i]
                if value == value:
                    mean += value / count
        found[series, MIN], found[series, AVG], found[series, MAX], found[series, COUNT] = low, mean, high, count
