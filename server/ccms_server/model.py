"""The requests and answers every front end shares: plain data, no behaviour beyond adding up.

gRPC, REST and NATS translate their wire formats to and from these types; `service` works on nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_server.errors import RejectReason

REJECTIONS_KEPT_MAX = 16
"""Rejected samples that are explained one by one; the rest is only counted."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """One sample that was not stored."""

    index: int
    """Line number from 1 (line protocol), or number of the sample over all columns from 0."""
    reason: RejectReason
    message: str
    """Names the offending value and the rule."""


@dataclass(slots=True)
class WriteReport:
    """What became of the samples of one write."""

    stored: int = 0
    """Samples stored."""
    ignored: int = 0
    """Lines of metrics that are not configured, and NaN values of columns: nothing to store, no error."""
    rejected: dict[RejectReason, int] = field(default_factory=dict)
    """Samples not stored, by reason."""
    first_rejected: list[Rejection] = field(default_factory=list)
    """The first `REJECTIONS_KEPT_MAX` of them, in order of their index."""
    already_stored: bool = False
    """The write was known, and stored before; this is what became of it then."""

    @property
    def rejected_total(self) -> int:
        """Samples not stored, whatever the reason."""
        return sum(self.rejected.values())

    def reject(self, index: int, reason: RejectReason, message: str) -> None:
        """Counts one rejected sample, and explains it if it is among the first."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        if len(self.first_rejected) < REJECTIONS_KEPT_MAX:
            self.first_rejected.append(Rejection(index, reason, message))

    def merge(self, other: "WriteReport") -> None:
        """Adds what a later step of the same write found out."""
        self.stored += other.stored
        self.ignored += other.ignored
        for reason, count in other.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count
        both = sorted([*self.first_rejected, *other.first_rejected], key=lambda rejection: rejection.index)
        self.first_rejected = both[:REJECTIONS_KEPT_MAX]


class SeriesName(NamedTuple):
    """What a series is called, as a client spells it; names are checked when it is looked up."""

    metric: str
    cluster: str
    host: str
    component: str = ""
    """Level below the host, type and id run together (`hwthread3`); empty for the host itself."""
    subcomponent: str = ""
    """Level below the component; empty for none."""

    @property
    def path(self) -> tuple[str, ...]:
        """Cluster, host, and optionally component and sub-component."""
        return tuple(filter(None, self[1:]))


class SampleColumn(NamedTuple):
    """A run of samples of one series, as a typed client sends it."""

    series: SeriesName
    values: NDArray[np.float64]
    """float64 array of shape (n_samples,); NaN means no sample."""
    timestamps: NDArray[np.int64] | None = None
    """int64 array of shape (n_samples,), seconds since the epoch; None when the times are regular."""
    start: int = 0
    """Time of the first value when `timestamps` is None, in seconds."""
    interval: int = 0
    """Spacing when `timestamps` is None, in seconds; 0 means the interval of the metric."""

    @property
    def n_samples(self) -> int:
        """Samples it stands for; when times and values differ in number, the greater one."""
        return len(self.values) if self.timestamps is None else max(len(self.values), len(self.timestamps))


class SeriesQuery(NamedTuple):
    """One metric, and the part of a host's tree to read it from."""

    metric: str
    host: str
    type: str | None = None
    """Kind of component; None or `node`: the host itself."""
    type_ids: Sequence[str] = ()
    subtype: str | None = None
    subtype_ids: Sequence[str] = ()
    aggregate: bool = False
    """Aggregate all that is selected into one series; always so for the host itself."""
    resolution: int = 0
    """Spacing of the samples wanted, in seconds; 0: as stored."""
    scale_by: float = 0.0
    """Factor on the values and on each statistic; 0: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRequest:
    """Series of one cluster over the range [start, end)."""

    cluster: str
    start: int
    end: int
    queries: Sequence[SeriesQuery] = ()
    for_all_hosts: Sequence[str] = ()
    """Metrics: one query per (host, metric) is added behind `queries`, host by host."""
    with_values: bool = True
    with_statistics: bool = True
    with_padding: bool = False
    """Fill the front with NaN from `start` to the first sample, as REST does; `SeriesAnswer.start` stays unpadded."""


class SeriesErrorReason(IntEnum):
    """Why a series cannot be answered. Numbers and names are those of `ccms.v1.SeriesErrorReason`."""

    UNKNOWN_METRIC = 1
    NOT_FOUND = 2
    INVALID_RANGE = 3
    NO_AGGREGATION = 4
    INVALID_RESOLUTION = 5


@dataclass(frozen=True, slots=True)
class SeriesError:
    """Why one series cannot be answered; the others of the same query can."""

    reason: SeriesErrorReason
    message: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the samples of a series; missing samples do not count. All NaN when there is none."""

    min: float
    avg: float
    max: float
    count: int

    def scaled(self, factor: float) -> "Statistics":
        """Each value times a factor; with a negative one, `min` becomes the largest."""
        return Statistics(self.min * factor, self.avg * factor, self.max * factor, self.count)


@dataclass(slots=True, kw_only=True)
class SeriesAnswer:
    """One series of an answer."""

    query_index: int
    """Which query it belongs to: first `queries`, then those of `for_all_hosts`."""
    series_index: int
    """Which series of that query it is."""
    metric: str
    host: str
    component: str = ""
    """Component selected (`hwthread3`), the first one when several are aggregated; empty for the host itself."""
    subcomponent: str = ""
    start: int = 0
    """Time of the first unpadded value, in seconds."""
    end: int = 0
    """End (exclusive) of the last value's interval, in seconds."""
    interval: int = 0
    """Spacing of `values`, in seconds."""
    values: NDArray[np.float64] | None = None
    """float64 array of shape (n_values,), NaN where no sample is stored; None if not asked for or on error."""
    statistics: Statistics | None = None
    """None if not asked for or on error."""
    error: SeriesError | None = None


Label = tuple[str, str, str, str]
"""What a series of an answer is called: metric, host, component and sub-component."""

QUERY, SERIES, START, END, INTERVAL, PADDING, FIRST, N_VALUES, IS_ERROR, HEAD_COLUMNS = range(10)
"""Columns of `SeriesAnswers.heads`, and how many there are. QUERY and SERIES are the indexes of `SeriesAnswer`; START,
END and INTERVAL the same as there. PADDING counts missing values in front; FIRST and N_VALUES say where the others
are."""

MIN, AVG, MAX, COUNT, STATISTICS_COLUMNS = range(5)
"""Columns of `SeriesAnswers.statistics`, and how many there are."""


@dataclass(frozen=True, slots=True)
class SeriesAnswers:
    """Some series of an answer that follow each other, column by column: kernels work on many of them at once."""

    labels: Sequence[Label]
    heads: NDArray[np.int64]
    """int64 array of shape (n_series, HEAD_COLUMNS)."""
    values: NDArray[np.float64]
    """float64 array of all values, NaN where no sample is stored. Nobody else writes to it."""
    statistics: NDArray[np.float64]
    """float64 array of shape (n_series, STATISTICS_COLUMNS), see `Statistics`; zeros if they were not asked for."""
    errors: Mapping[int, SeriesError]
    """By position, those of the series that cannot be answered; IS_ERROR is 1 for these."""
    has_values: bool
    """Whether values were asked for."""
    has_statistics: bool
    """Whether statistics were."""

    def __len__(self) -> int:
        """Number of series."""
        return len(self.heads)

    def __iter__(self) -> Iterator[SeriesAnswer]:
        """The series one by one, padded."""
        for position, (label, head, found) in enumerate(
            zip(self.labels, self.heads.tolist(), self.statistics.tolist(), strict=True)
        ):
            metric, host, component, subcomponent = label
            query_index, series_index, start, end, interval, padding, first, n_values, is_error = head
            values, statistics = None, None
            if self.has_values and not is_error:
                values = _padded(self.values[first : first + n_values], padding)
            if self.has_statistics and not is_error:
                statistics = Statistics(found[MIN], found[AVG], found[MAX], int(found[COUNT]))
            yield SeriesAnswer(
                query_index=query_index,
                series_index=series_index,
                metric=metric,
                host=host,
                component=component,
                subcomponent=subcomponent,
                start=start,
                end=end,
                interval=interval,
                values=values,
                statistics=statistics,
                error=self.errors.get(position),
            )


def _padded(values: NDArray[np.float64], padding: int) -> NDArray[np.float64]:
    """Values with NaN in front."""
    return values if not padding else np.concatenate([np.full(padding, np.nan), values])


@dataclass(frozen=True, slots=True)
class SeriesExtent:
    """A series, and the time its samples span."""

    path: tuple[str, ...]
    """Cluster, host, and optionally component and sub-component."""
    metric: str
    start: int
    """Time at which the slot of the first sample begins, in seconds."""
    n_slots: int
    """Slots from the first sample to the last one, at least 1."""
    interval: int
    """Seconds of one slot."""

    @property
    def end(self) -> int:
        """Time at which the slot of the last sample ends, in seconds."""
        return self.start + self.n_slots * self.interval


class MonitoringState(StrEnum):
    """How completely a host is monitored."""

    FULL = "full"
    """Every metric asked for arrives."""
    PARTIAL = "partial"
    """Some do."""
    FAILED = "failed"
    """None does, or the host is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostHealth:
    """Which metrics of a host arrive."""

    host: str
    known: bool
    """Whether the host ever sent a sample; False: the rest is empty."""
    degraded: Sequence[str] = ()
    """Metrics asked for of which at least one series ended a while ago."""
    missing: Sequence[str] = ()
    """Metrics asked for without any series."""
    n_arriving: int = 0
    """Metrics asked for that are neither."""
    n_series: int = 0
    """Series of all metrics."""
    n_stale: int = 0
    """Those of them that ended a while ago."""

    @property
    def state(self) -> MonitoringState:
        """Taken together. A known host that nothing is asked of is fully monitored."""
        if not self.known:
            return MonitoringState.FAILED
        if not self.degraded and not self.missing:
            return MonitoringState.FULL
        return MonitoringState.PARTIAL if self.n_arriving else MonitoringState.FAILED
