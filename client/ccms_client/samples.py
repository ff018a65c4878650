"""What is written, and what became of it. Time is seconds since the epoch; NaN is a missing sample."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_client.keys import Component, SeriesKey

REJECTIONS_KEPT_MAX: Final = 16
"""Rejected samples that are explained one by one; as many as the server does."""


class Sample(NamedTuple):
    """One value of a series at one time."""

    series: SeriesKey
    timestamp: float
    """Seconds since the epoch; fractions are cut off."""
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleColumn:
    """A run of samples of one series.

    The times are either `timestamps`, or `start` and `interval`; one of them must be given.
    """

    metric: str
    cluster: str
    host: str
    component: Component | None = None
    """None: the host itself."""
    subcomponent: Component | None = None
    timestamps: Sequence[int] | NDArray[np.int64] | None = None
    """One time for each value, in seconds; None: they are regular."""
    start: int | None = None
    """Time of the first value of a regular column, in seconds; None: `timestamps` has the times."""
    interval: int = 0
    """Spacing of a regular column, in seconds; 0: the interval of the metric."""
    values: Sequence[float] | NDArray[np.float64]
    """NaN: no sample at that time."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """One sample that was not stored."""

    index: int
    """Line number from 1, or number of the sample over all columns from 0; of a batch, for a `StreamWriter`."""
    reason: str
    """`MALFORMED_LINE`, `TOO_OLD`, ...: a name of `ccms.v1.RejectReason`, without its prefix."""
    message: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of the samples of a write.

    Results add up: `sum(results, WriteResult())`.
    """

    stored: int = 0
    ignored: int = 0
    """Lines of metrics that are not configured, and NaN values."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Samples not stored, by reason; see `Rejection.reason`."""
    first_rejected: list[Rejection] = field(default_factory=list)
    """The first of them, explained one by one."""
    already_stored: bool = False
    """The server knew the write from a try whose answer was lost; of several writes, any of them."""

    def __add__(self, other: "WriteResult") -> "WriteResult":
        return WriteResult(
            self.stored + other.stored,
            self.ignored + other.ignored,
            dict(Counter(self.rejected) + Counter(other.rejected)),
            [*self.first_rejected, *other.first_rejected][:REJECTIONS_KEPT_MAX],
            self.already_stored or other.already_stored,
        )


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one batch of a `StreamWriter`."""

    sequence: int
    """Number of the batch, from 1."""
    sample_count: int
    """Samples it had, or lines."""
    result: WriteResult | None
    """None: it is stored, but the answer that said more was lost with a connection."""
