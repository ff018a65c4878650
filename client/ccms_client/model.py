"""What is sent and received, as plain typed data. Time is seconds since the epoch; NaN is a missing sample."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a host, or a part of such a part."""

    type: str
    """Kind: `socket`, `hwthread`, `accelerator`, ..."""
    id: str = ""
    """Which one of its kind; empty where there is only one."""


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
    """Line number from 1, or number of the sample over all columns from 0."""
    reason: str
    """`MALFORMED_LINE`, `TOO_OLD`, ...: a name of `ccms.v1.RejectReason`, without its prefix."""
    message: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of the samples of a write."""

    stored: int
    ignored: int
    """Lines of metrics that are not configured, and NaN values."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Samples not stored, by reason; see `Rejection.reason`."""
    first_rejected: list[Rejection] = field(default_factory=list)
    """The first of them, explained one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesQuery:
    """One metric, and the part of a host's tree to read it from."""

    metric: str
    host: str
    type: str = ""
    """Kind of component; empty: the host itself, with everything below it aggregated."""
    type_ids: Sequence[str] = ()
    """One series answers for each, unless `aggregate` is set."""
    subtype: str = ""
    subtype_ids: Sequence[str] = ()
    aggregate: bool = False
    """Aggregate all that is selected into one series."""
    resolution: int = 0
    """Spacing of the samples wanted, in seconds, a multiple of the metric's interval; 0: as stored."""
    scale_by: float = 0.0
    """Factor on values and statistics; 0: none."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the stored samples of a series, missing ones left out; all NaN when there is none."""

    min: float
    avg: float
    max: float
    count: int


@dataclass(frozen=True, slots=True)
class SeriesError:
    """Why one series could not be answered."""

    reason: str
    """`NOT_FOUND`, `UNKNOWN_METRIC`, ...: a name of `ccms.v1.SeriesErrorReason`, without its prefix."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series of an answer."""

    query_index: int
    """Which query it belongs to: first those asked for one by one, then those of `all_hosts_metrics`."""
    series_index: int
    """Which series of that query it is."""
    metric: str
    host: str
    component: str
    """Component selected (`hwthread3`), the first one when several are aggregated; empty for the host itself."""
    subcomponent: str
    start: int
    """Time of the first value, in seconds."""
    end: int
    """End (exclusive) of the last value's interval, in seconds."""
    interval: int
    """Spacing of the values, in seconds."""
    values: NDArray[np.float64]
    """float64 array of shape (n_values,), NaN where no sample is stored; empty if not asked for or on error."""
    statistics: Statistics | None
    """None if not asked for or on error."""
    error: SeriesError | None
    """Nothing else is meaningful when it is set."""

    @property
    def timestamps(self) -> NDArray[np.int64]:
        """int64 array of shape (n_values,): time of each value, in seconds."""
        return self.start + self.interval * np.arange(self.values.size, dtype=np.int64)
