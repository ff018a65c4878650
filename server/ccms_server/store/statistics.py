"""Statistics of a series in one pass."""

import numpy as np
from numpy.typing import NDArray

from ccms_server.jit import kernel
from ccms_server.model import Statistics


def statistics(values: NDArray[np.float64]) -> Statistics:
    """Minimum, mean, maximum and number of the samples.

    Args:
        values: float64 array of shape (n_samples,); NaN marks a missing sample and does not count.
    """
    low, mean, high, count = _summarise(values)
    return Statistics(low, mean, high, count)


@kernel
def _summarise(values: NDArray[np.float64]) -> tuple[float, float, float, int]:
    low, high, total, count = np.inf, -np.inf, 0.0, 0
    for value in values:
        if value == value:  # not NaN
            low = min(low, value)
            high = max(high, value)
            total += value
            count += 1
    if count == 0:
        return np.nan, np.nan, np.nan, 0
    if np.isinf(total):  # only the sum is too large: the mean of finite samples is finite
        mean = 0.0
        for value in values:
            if value == value:
                mean += value / count
        return low, mean, high, count
    return low, total / count, high, count
