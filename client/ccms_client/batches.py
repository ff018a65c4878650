"""Batches of a stream of writes, encoded when they are made: they may have to be sent more than once."""

from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ccms.v1.metric_store_service_pb2 import WriteStreamRequest
from ccms.v1.sample_pb2 import SampleBatch
from ccms_client.packed import bytes_field, packed_field

_Number = TypeVar("_Number", np.uint32, np.int64)

NO_NUMBERS: Final = np.empty(0, np.uint32)


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that are stored, acknowledged and sent again together."""

    sequence: int
    """Number within the stream, from 1."""
    sample_count: int
    """Samples, or lines."""
    field: int
    """Which field of `WriteStreamRequest` it is."""
    content: bytes
    """The message of that field, without the definitions of its numbers."""
    numbers: NDArray[np.uint32]
    """Numbers of series that have to be defined; empty for columns and line protocol."""

    @property
    def size(self) -> int:
        """Bytes it takes while it waits."""
        return len(self.content) + self.numbers.nbytes

    def request(self, definitions: bytes) -> bytes:
        """The message to send, with definitions of numbers that the call does not know yet."""
        head = WriteStreamRequest(sequence=self.sequence).SerializeToString()
        return head + bytes_field(self.field, definitions + self.content)


class SampleBuffer:
    """Samples that are not enough for a batch yet.

    Attributes:
        count: How many there are.
    """

    def __init__(self, capacity: int) -> None:
        self.count = 0
        self._numbers = np.empty(capacity, np.uint32)
        self._timestamps = np.empty(capacity, np.int64)
        self._values = np.empty(capacity, np.float64)

    @property
    def is_full(self) -> bool:
        """Whether no more samples fit in."""
        return self.count == len(self._values)

    def append(self, numbers: NDArray[np.uint32], timestamps: NDArray[np.int64], values: NDArray[np.float64]) -> int:
        """Copies as many samples as fit in from the beginning of three arrays of shape (n_samples,).

        Returns:
            How many did.
        """
        end = min(self.count + len(values), len(self._values))
        taken = end - self.count
        self._numbers[self.count : end] = numbers[:taken]
        self._timestamps[self.count : end] = timestamps[:taken]
        self._values[self.count : end] = values[:taken]
        self.count = end
        return taken

    def take(self, sequence: int) -> Batch:
        """Empties the buffer into a batch."""
        numbers = _once_if_equal(self._numbers[: self.count]).copy()
        timestamps = _once_if_equal(self._timestamps[: self.count])
        content = b"".join(
            (
                packed_field(SampleBatch.SERIES_NUMBERS_FIELD_NUMBER, numbers),
                packed_field(SampleBatch.TIMESTAMPS_SECONDS_FIELD_NUMBER, timestamps),
                packed_field(SampleBatch.VALUES_FIELD_NUMBER, self._values[: self.count]),
            )
        )
        batch = Batch(sequence, self.count, WriteStreamRequest.SAMPLES_FIELD_NUMBER, content, numbers)
        self.count = 0
        return batch


def _once_if_equal(column: NDArray[_Number]) -> NDArray[_Number]:
    """A single entry stands for all: collectors send whole cycles with one time."""
    return column[:1] if (column == column[0]).all() else column
