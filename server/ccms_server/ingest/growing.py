"""Arrays that grow in place: the system moves their pages, so nothing is copied, and no page is taken twice.

What lies behind the part in use takes no memory before it is written to.
"""

import mmap
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item", bound=np.generic)


class GrowingArray(Generic[Item]):
    """A one-dimensional array, zero at first.

    Attributes:
        array: The array. Nobody else may keep it: it is another one after `reserve`.
    """

    def __init__(self, dtype: "np.dtype[Item]", size: int) -> None:
        self._dtype = dtype
        self._memory = mmap.mmap(-1, size * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.array: NDArray[Item] = np.frombuffer(self._memory, dtype)

    def reserve(self, size: int) -> None:
        """Makes the array at least so long; what is added is zero.

        Raises:
            BufferError: Somebody has kept the array.
        """
        if size <= len(self.array):
            return
        larger = max(size, 2 * len(self.array)) * self._dtype.itemsize
        none: NDArray[Any] = np.empty(0, self._dtype)
        self.array = none  # memory that is in use cannot be moved
        try:
            self._memory.resize(larger)
        finally:
            self.array = np.frombuffer(self._memory, self._dtype)
