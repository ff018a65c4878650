"""Numbers that stand for series in a stream of writes."""

from collections.abc import Collection
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms.v1.sample_pb2 import SampleBatch
from ccms_client.keys import SeriesKey, definition_of_key
from ccms_client.packed import bytes_field

NUMBER_LIMIT: Final = 1 << 22
"""Numbers are smaller; a rule of the contract."""


class SeriesNumbers:
    """Counts series up from 0, in the order in which they are first named; a number is for good.

    What a number stands for has to be told once in every call; `undefined` finds what is left to tell.
    """

    def __init__(self) -> None:
        self._numbers = _Numbers()

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, key: SeriesKey) -> int:
        """Number of a series."""
        return self._numbers[key]

    def numbers(self, keys: Collection[SeriesKey]) -> NDArray[np.uint32]:
        """Numbers of series: uint32 array of shape (n_keys,)."""
        return np.fromiter(map(self._numbers.__getitem__, keys), np.uint32, len(keys))

    def definitions(self, numbers: NDArray[np.uint32]) -> bytes:
        """Lets numbers stand for their series, as the field of a `SampleBatch`."""
        return b"".join([self._numbers.definitions[number] for number in numbers.tolist()])


class DefinedNumbers:
    """Which numbers one call was told the meaning of."""

    def __init__(self) -> None:
        self._defined = np.zeros(64, bool)

    def add(self, numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Those among some numbers that were not added before, each once."""
        if not numbers.size:
            return numbers
        highest = int(numbers.max())
        if highest >= len(self._defined):
            self._defined = np.pad(self._defined, (0, 2 * highest - len(self._defined)))
        missing = np.unique(numbers[~self._defined[numbers]])
        self._defined[missing] = True
        return missing


class _Numbers(dict[SeriesKey, int]):
    """Gives a key that is looked up for the first time the next number."""

    def __init__(self) -> None:
        super().__init__()
        self.definitions: list[bytes] = []

    def __missing__(self, key: SeriesKey) -> int:
        number = len(self)
        if not isinstance(key, SeriesKey):
            raise TypeError(f"{key!r} names no series: use SeriesKey(metric, cluster, host, component)")
        if number >= NUMBER_LIMIT:
            raise ValueError(f"a writer has at most {NUMBER_LIMIT:,} series: use several")
        definition = definition_of_key(number, key).SerializeToString()
        self.definitions.append(bytes_field(SampleBatch.NEW_SERIES_FIELD_NUMBER, definition))
        self[key] = number
        return number
