"""What is written: samples in the forms in which senders have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.ingest.numbered_series import NumberedSeries
from ccms_server.model import SampleColumn, SeriesName

OVERHEAD_BYTES: Final = 256
"""What a waiting batch, a column or the definition of a series takes beside its payload."""

SAMPLE_BYTES: Final = 24
"""What a waiting sample takes in arrays: number of its series, time, value."""


@dataclass(frozen=True, slots=True)
class LineBatch:
    """Line protocol."""

    payload: bytes
    """UTF-8 text, one sample a line."""
    default_cluster: str
    """Cluster of lines without a `cluster` tag; empty: such lines are rejected."""

    @property
    def size(self) -> int:
        """Bytes it takes while it waits."""
        return len(self.payload) + len(self.default_cluster) + OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class ColumnBatch:
    """Runs of samples of a series each."""

    columns: Sequence[SampleColumn]

    @property
    def size(self) -> int:
        """Bytes it takes while it waits."""
        return sum(
            SAMPLE_BYTES * column.n_samples + OVERHEAD_BYTES + sum(map(len, column.series)) for column in self.columns
        )


@dataclass(frozen=True, slots=True)
class NumberedBatch:
    """Samples of series that are numbers."""

    known: NumberedSeries
    """What numbers stand for, in this batch and others of the same sender."""
    definitions: Sequence[tuple[int, SeriesName]]
    """Numbers, and what they stand for from this batch on."""
    numbers: NDArray[np.uint32]
    """uint32 array of shape (n_samples,)."""
    timestamps: NDArray[np.int64]
    """int64 array of shape (n_samples,), seconds since the epoch."""
    values: NDArray[np.float64]
    """float64 array of shape (n_samples,); NaN is no sample."""

    @property
    def size(self) -> int:
        """Bytes it takes while it waits."""
        names = sum(OVERHEAD_BYTES + sum(map(len, name)) for _, name in self.definitions)
        return SAMPLE_BYTES * len(self.values) + OVERHEAD_BYTES + names


Batch = LineBatch | ColumnBatch | NumberedBatch
