"""Queries over a store: which series a request names, how much that is, and the answer of each.

Pure computation, meant for any thread. `plan` finds everything out that costs no memory, so that limits are kept before
anything is read; `answers` reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_server.answer_heads import change_intervals, fill_heads
from ccms_server.errors import LimitExceededError
from ccms_server.model import (
    AVG,
    FIRST,
    HEAD_COLUMNS,
    INTERVAL,
    IS_ERROR,
    MAX,
    MIN,
    N_VALUES,
    QUERY,
    SERIES,
    STATISTICS_COLUMNS,
    Label,
    QueryRequest,
    SeriesAnswers,
    SeriesError,
    SeriesErrorReason,
    SeriesQuery,
)
from ccms_server.store.downsample import downsample, downsampled_sizes
from ccms_server.store.gather import Sources
from ccms_server.store.read import Reader
from ccms_server.store.statistics import statistics
from ccms_server.store.store import Store
from ccms_server.store.table import MetricTable
from ccms_server.store.tree import NO_SERIES, Level, SeriesIds

PLANNED_AT_ONCE: Final = 512
"""Series whose spans are found in one go."""

PADDING_MAX: Final = 1 << 22
"""Values in front of the first sample of a series: eight years of minutes."""


@dataclass(slots=True)
class Plan:
    """Everything a request will be answered with, in order.

    Attributes:
        request: The request.
        parts: The series, some at a time.
        n_points: Values that will be read or padded.
        n_samples: Samples that may have to be looked at to make them.
    """

    request: QueryRequest
    parts: list["_Part"] = field(default_factory=list)
    n_points: int = 0
    n_samples: int = 0


class _Part(NamedTuple):
    """Some series that follow each other, column by column."""

    labels: Sequence[Label]
    heads: NDArray[np.int64]
    """See `SeriesAnswers.heads`; without what is known only when they are read."""
    sources: Sources
    resolutions: NDArray[np.int64] | None
    """int64 array of shape (n_series,): seconds between two values asked for; 0: as stored, as all if it is None."""
    factors: NDArray[np.float64] | None
    """float64 array of the same shape; 1: none, as for all if it is None."""
    errors: dict[int, SeriesError]
    """By position."""
    n_points: NDArray[np.int64]
    """int64 array of the same shape: values of each that will be read or padded."""

    def some(self, first: int, last: int) -> "_Part":
        """Those from `first` to `last` (exclusive)."""
        if (first, last) == (0, len(self.labels)):
            return self
        here = slice(first, last)
        return _Part(
            self.labels[here],
            self.heads[here],
            self.sources.some(first, last),
            None if self.resolutions is None else self.resolutions[here],
            None if self.factors is None else self.factors[here],
            {position - first: error for position, error in self.errors.items() if first <= position < last},
            self.n_points[here],
        )


class _Selection(NamedTuple):
    """Levels of a host that are made into one series."""

    components: Sequence[str]
    """Names of the components; empty for the host itself."""
    subcomponents: Sequence[str]
    """Names below each component; empty for the components themselves."""

    @property
    def first_names(self) -> tuple[str, str]:
        """Of the first component and sub-component; empty for none."""
        return (self.components[0] if self.components else "", self.subcomponents[0] if self.subcomponents else "")


_WHOLE_HOST: Final = _Selection((), ())


class _Group(NamedTuple):
    """The series that make up one that was named."""

    table: MetricTable | None
    group: SeriesIds
    host: Level | None
    """The host, if its whole subtree is aggregated."""


_NO_GROUP: Final = _Group(None, NO_SERIES, None)


class _Named:
    """Series that a request names, as they are found one after another."""

    def __init__(self) -> None:
        self.labels: list[Label] = []
        self.query_indexes: list[int] = []
        self.series_indexes: list[int] = []
        self.tables: list[MetricTable | None] = []
        self.groups: list[SeriesIds] = []
        self.hosts: list[Level | None] = []
        self.resolutions: list[int] = []
        self.factors: list[float] = []
        self.errors: dict[int, SeriesError] = {}

    def add(
        self, query: SeriesQuery, query_index: int, series_index: int, names: Label, found: _Group | SeriesError
    ) -> None:
        """Adds one that a query names."""
        if isinstance(found, SeriesError):
            self.errors[len(self.labels)] = found
            found = _NO_GROUP
        self.labels.append(names)
        self.query_indexes.append(query_index)
        self.series_indexes.append(series_index)
        self.tables.append(found.table)
        self.groups.append(found.group)
        self.hosts.append(found.host)
        self.resolutions.append(query.resolution)
        self.factors.append(query.scale_by or 1.0)


def plan(store: Store, reader: Reader, request: QueryRequest, *, points_max: int, series_max: int) -> Plan:
    """Finds the series a request names, and how many values they have.

    Raises:
        LimitExceededError: The answer would have more series or values than allowed.
    """
    planned = Plan(request)
    hosts = store.hosts(request.cluster) if request.for_all_hosts else []
    queries = len(request.queries) + len(hosts) * len(request.for_all_hosts)
    n_series = sum(_count(query) for query in request.queries) + len(hosts) * len(request.for_all_hosts)
    if max(queries, n_series) > series_max:
        raise LimitExceededError("series in one query", max(queries, n_series), series_max, "ask for fewer at a time")
    for named in _named(store, request, hosts):
        reader.cancellation.check()
        _add(planned, reader, named, points_max)
    return planned


def _add(planned: Plan, reader: Reader, named: _Named, points_max: int) -> None:
    """Adds series to what will be answered.

    Raises:
        LimitExceededError: The answer would have more values than allowed.
    """
    request = planned.request
    spans = reader.spans(named.tables, named.groups, request.start, max(request.start, request.end))
    heads, n_points = np.zeros((len(named.labels), HEAD_COLUMNS), np.int64), np.empty(len(named.labels), np.int64)
    heads[:, QUERY], heads[:, SERIES] = named.query_indexes, named.series_indexes
    heads[:, INTERVAL] = [0 if table is None else table.metric.interval for table in named.tables]
    if named.errors:
        heads[list(named.errors), IS_ERROR] = 1
    is_padded = request.with_padding and request.with_values
    n_values, n_samples, padding_max = fill_heads(spans.table, request.start, is_padded, heads, n_points)
    planned.n_points += n_values
    planned.n_samples += n_samples
    if padding_max > PADDING_MAX:
        remedy = "start later, or ask without padding"
        raise LimitExceededError("values before the first sample", padding_max, PADDING_MAX, remedy)
    if planned.n_points > points_max:
        remedy = "ask for a shorter range or fewer series"
        raise LimitExceededError("values in one query", planned.n_points, points_max, remedy)
    planned.parts.append(
        _Part(
            named.labels,
            heads,
            Sources(named.tables, named.hosts, spans),
            np.array(named.resolutions, np.int64) if any(named.resolutions) else None,
            np.array(named.factors) if named.factors.count(1.0) < len(named.factors) else None,
            named.errors,
            n_points,
        )
    )


def answers(reader: Reader, planned: Plan, *, chunk_points: int, chunk_series: int) -> Iterator[SeriesAnswers]:
    """Reads the planned series in order, in chunks of about so many values or series.

    Raises:
        CancelledReadError: Nobody waits for them.
    """
    for part in planned.parts:
        total, first = np.cumsum(part.n_points), 0
        while first < len(part.labels):
            before = int(total[first - 1]) if first else 0
            last = int(np.searchsorted(total, before + chunk_points)) + 1
            last = min(last, first + chunk_series, len(part.labels))
            yield _answer(reader, planned.request, part.some(first, last))
            first = last


def _answer(reader: Reader, request: QueryRequest, part: _Part) -> SeriesAnswers:
    """Reads some series together, and makes of each what was asked for."""
    heads, found = part.heads.copy(), np.zeros((len(part.labels), STATISTICS_COLUMNS))
    values, edges = np.empty(0), np.zeros(len(part.labels) + 1, np.int64)
    if request.with_values or request.with_statistics:
        # Sums of huge values are infinite, as in any arithmetic.
        with np.errstate(over="ignore", invalid="ignore"):
            values, edges = reader.read(part.sources)
            if request.with_statistics:
                found = statistics(values, edges)
                if part.factors is not None:
                    found[:, [MIN, AVG, MAX]] *= part.factors[:, None]
                if part.errors:
                    found[list(part.errors)] = 0
            if part.factors is not None:
                values *= np.repeat(part.factors, np.diff(edges))
    if part.resolutions is not None and (request.with_values or request.with_statistics):
        values, edges = _downsampled(request, part.resolutions, heads, values, edges)
    if request.with_values:
        heads[:, FIRST], heads[:, N_VALUES] = edges[:-1], np.diff(edges)
    return SeriesAnswers(part.labels, heads, values, found, part.errors, request.with_values, request.with_statistics)


def _downsampled(
    request: QueryRequest,
    resolutions: NDArray[np.int64],
    heads: NDArray[np.int64],
    values: NDArray[np.float64],
    edges: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Fewer values of the series that were asked for at a larger interval, and their edges; notes the interval."""
    intervals, sizes = heads[:, INTERVAL], np.diff(edges)
    factors = np.where(resolutions > intervals, resolutions // np.maximum(intervals, 1), 1)
    is_sampled = downsampled_sizes(sizes, factors) < sizes
    if not is_sampled.any():
        return values, edges
    change_intervals(heads, request.start, request.with_padding and request.with_values, is_sampled, resolutions)
    return downsample(values, edges, factors) if request.with_values else (values, edges)


def _count(query: SeriesQuery) -> int:
    """Levels a query selects: it answers with a series for each, or with one of all."""
    if query.type is None or (query.type == "node" and (query.aggregate or not query.type_ids)):
        return 1
    return max(1, len(query.type_ids)) * (1 if query.subtype is None else max(1, len(query.subtype_ids)))


def _selections(query: SeriesQuery) -> Iterator[_Selection]:
    if query.type is None or (query.type == "node" and (query.aggregate or not query.type_ids)):
        yield _WHOLE_HOST
        return
    # `type=node` with ids is the node itself, once for each id: positions in the answer match the ids.
    components = [query.type + name for name in query.type_ids] if query.type != "node" else None
    subcomponents = [query.subtype + name for name in query.subtype_ids] if query.subtype is not None else None
    if query.aggregate:
        yield _Selection(tuple(dict.fromkeys(components or ())), tuple(dict.fromkeys(subcomponents or ())))
        return
    for component in components if components is not None else [None] * len(query.type_ids):
        below: Sequence[str | None] = [None] if subcomponents is None else subcomponents
        for subcomponent in below:
            yield _Selection(
                () if component is None else (component,),
                () if component is None or subcomponent is None else (subcomponent,),
            )


def _named(store: Store, request: QueryRequest, hosts: Sequence[str]) -> Iterator[_Named]:
    """The series that queries name, in order, PLANNED_AT_ONCE at a time."""
    named = _Named()
    for query_index, query in enumerate(request.queries):
        for series_index, selection in enumerate(_selections(query)):
            found = _find(store, request, query, selection)
            named.add(query, query_index, series_index, (query.metric, query.host, *selection.first_names), found)
            if len(named.labels) == PLANNED_AT_ONCE:
                yield named
                named = _Named()
    if named.labels:
        yield named
    yield from _whole_hosts(store, request, hosts)


def _whole_hosts(store: Store, request: QueryRequest, hosts: Sequence[str]) -> Iterator[_Named]:
    """The metrics of whole hosts, host by host, PLANNED_AT_ONCE at a time: as good as if a query named each."""
    metric_ids = [store.metric_id(metric) for metric in request.for_all_hosts]
    metrics = [
        (metric, None if number is None else store.tables[number])
        for metric, number in zip(request.for_all_hosts, metric_ids, strict=True)
    ]
    levels = ((host, store.tree.find((request.cluster, host))) for host in hosts)
    pairs = ((host, level, metric, table) for host, level in levels for metric, table in metrics)
    first = len(request.queries)
    while some := list(islice(pairs, PLANNED_AT_ONCE)):
        named = _Named()
        named.labels = [(metric, host, "", "") for host, _, metric, _ in some]
        named.query_indexes, named.series_indexes = list(range(first, first + len(some))), [0] * len(some)
        named.hosts, named.tables = [level for _, level, _, _ in some], [table for _, _, _, table in some]
        named.groups = [
            NO_SERIES if level is None or table is None else store.group_at(table.metric_id, level)
            for _, level, _, table in some
        ]
        for position, (group, table) in enumerate(zip(named.groups, named.tables, strict=True)):
            if not len(group) or request.start > request.end or not _can_aggregate(table, group):
                metric, host, _, _ = named.labels[position]
                found = _find(store, request, SeriesQuery(metric, host), _WHOLE_HOST)
                if isinstance(found, SeriesError):
                    named.errors[position], found = found, _NO_GROUP
                named.tables[position], named.groups[position], named.hosts[position] = found
        named.resolutions, named.factors = [0] * len(some), [1.0] * len(some)
        yield named
        first += len(some)


def _can_aggregate(table: MetricTable | None, group: SeriesIds) -> bool:
    return len(group) < 2 or (table is not None and table.metric.aggregation is not None)


def _find(store: Store, request: QueryRequest, query: SeriesQuery, selection: _Selection) -> _Group | SeriesError:
    if request.start > request.end:
        return SeriesError(
            SeriesErrorReason.INVALID_RANGE,
            f"invalid time range: it ends at {request.end}, before it starts at {request.start}",
        )
    metric_id = store.metric_id(query.metric)
    if metric_id is None:
        return SeriesError(SeriesErrorReason.UNKNOWN_METRIC, f"unknown metric: {query.metric}")
    table = store.tables[metric_id]
    metric = table.metric
    host = store.tree.find((request.cluster, query.host))
    if host is None:
        group = NO_SERIES
    elif query.type is None or query.type == "node":
        group = store.group_at(metric_id, host)
    else:
        group = _group(store, metric_id, request.cluster, query, selection)
    if host is None or not len(group):
        return SeriesError(SeriesErrorReason.NOT_FOUND, "metric or host not found")
    if not _can_aggregate(table, group):
        return SeriesError(
            SeriesErrorReason.NO_AGGREGATION,
            f"invalid aggregation: {len(group)} series match, and {query.metric} is configured without aggregation",
        )
    if query.resolution > metric.interval and query.resolution % metric.interval:
        return SeriesError(
            SeriesErrorReason.INVALID_RESOLUTION,
            f"resolution {query.resolution} s is not a multiple of the metric's interval of {metric.interval} s",
        )
    return _Group(table, group, host if not selection.components else None)


def _group(store: Store, metric_id: int, cluster: str, query: SeriesQuery, selection: _Selection) -> SeriesIds:
    """The series of components of a host."""
    paths = [
        (cluster, query.host, component, *below)
        for component in selection.components
        for below in ([(name,) for name in selection.subcomponents] if query.subtype is not None else [()])
    ]
    groups = [store.group(metric_id, each) for each in paths]
    return groups[0] if len(groups) == 1 else np.concatenate([np.empty(0, np.int32), *groups])
