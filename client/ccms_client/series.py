"""What is asked for, and the series that answer. Time is seconds since the epoch; NaN is a missing sample."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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


def queries_of(
    metrics: Iterable[str],
    hosts: Iterable[str],
    *,
    type: str = "",  # noqa: A002  the word of the contract
    type_ids: Sequence[str] = (),
    aggregate: bool = False,
    resolution: int = 0,
) -> list[SeriesQuery]:
    """A query for each metric of each host, host by host; what a job's plots are made from.

    Args:
        metrics: Names of metrics.
        hosts: Names of hosts.
        type: Kind of component; empty: the hosts themselves.
        type_ids: Components of that kind, see `SeriesQuery`.
        aggregate: See `SeriesQuery`.
        resolution: See `SeriesQuery`.

    >>> [(query.host, query.metric) for query in queries_of(["cpu_load", "mem_bw"], ["n1", "n2"])]
    [('n1', 'cpu_load'), ('n1', 'mem_bw'), ('n2', 'cpu_load'), ('n2', 'mem_bw')]
    """
    for name, given in (("metrics", metrics), ("hosts", hosts), ("type_ids", type_ids)):
        if isinstance(given, str):
            raise TypeError(f"`{name}` is a list of names, not a single one: write [{given!r}]")
    names = list(metrics)
    return [
        SeriesQuery(metric=metric, host=host, type=type, type_ids=type_ids, aggregate=aggregate, resolution=resolution)
        for host in hosts
        for metric in names
    ]


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
class SeriesHeader:
    """What is known of a series of an answer beside its values."""

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
    statistics: Statistics | None
    """None if not asked for or on error."""
    error: SeriesError | None
    """Nothing else is meaningful when it is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series(SeriesHeader):
    """One series of an answer."""

    values: NDArray[np.float64]
    """float64 array of shape (n_values,), NaN where no sample is stored; empty if not asked for or on error."""

    @property
    def timestamps(self) -> NDArray[np.int64]:
        """int64 array of shape (n_values,): time of each value, in seconds."""
        return self.start + self.interval * np.arange(self.values.size, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPart(SeriesHeader):
    """Some consecutive values of a series; the header is that of the whole series."""

    value_count: int
    """Values in all parts of the series."""
    offset: int
    """Number of the first value of this part within the series, from 0; the part with 0 is the first one."""
    values: NDArray[np.float64]
    """float64 array of shape (n_values,), NaN where no sample is stored."""

    @property
    def timestamps(self) -> NDArray[np.int64]:
        """int64 array of shape (n_values,): time of each value, in seconds."""
        return self.start + self.interval * np.arange(self.offset, self.offset + self.values.size, dtype=np.int64)
