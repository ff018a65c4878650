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

from ccms_server.errors import LimitExceededError
from ccms_server.model import QueryRequest, SeriesAnswer, SeriesError, SeriesErrorReason, SeriesQuery
from ccms_server.store.downsample import downsample
from ccms_server.store.read import Reader, Source
from ccms_server.store.statistics import statistics
from ccms_server.store.store import Store
from ccms_server.store.table import MetricTable
from ccms_server.store.tree import Level, SeriesIds

PLANNED_AT_ONCE: Final = 512
"""Series whose spans are found in one go."""

PADDING_MAX: Final = 1 << 22
"""Values in front of the first sample of a series: eight years of minutes."""


class PlannedSeries(NamedTuple):
    """One series that will be answered."""

    query: SeriesQuery
    query_index: int
    series_index: int
    component: str
    subcomponent: str
    source: Source | SeriesError
    n_points: int
    """Values that will be read or padded."""


@dataclass(slots=True)
class Plan:
    """Everything a request will be answered with, in order.

    Attributes:
        request: The request.
        added_queries: The queries made from `for_all_hosts`, behind those of the request.
        series: The series.
        n_points: Values that will be read or padded.
        n_samples: Samples that may have to be looked at to make them.
    """

    request: QueryRequest
    added_queries: list[SeriesQuery] = field(default_factory=list)
    series: list[PlannedSeries] = field(default_factory=list)
    n_points: int = 0
    n_samples: int = 0


class _Selection(NamedTuple):
    """Levels of a host that are made into one series."""

    components: Sequence[str]
    """Names of the components; empty for the host itself."""
    subcomponents: Sequence[str]
    """Names below each component; empty for the components themselves."""


class _Group(NamedTuple):
    """The series that make up one that was named."""

    table: MetricTable
    group: SeriesIds
    host: Level | None
    """The host, if its whole subtree is aggregated."""


class _NamedSeries(NamedTuple):
    """A series that a query names, and what was found of it."""

    query: SeriesQuery
    query_index: int
    series_index: int
    selection: _Selection
    found: _Group | SeriesError


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
    planned.added_queries = [
        SeriesQuery(metric=metric, host=host) for host in hosts for metric in request.for_all_hosts
    ]
    named = _named_series(store, request, [*request.queries, *planned.added_queries])
    while some := list(islice(named, PLANNED_AT_ONCE)):
        reader.cancellation.check()
        groups = [(each.found.table, each.found.group) for each in some if isinstance(each.found, _Group)]
        spans = iter(reader.spans(groups, request.start, request.end))
        for each in some:
            found = each.found
            source = Source(found.table, next(spans), found.host) if isinstance(found, _Group) else found
            _add(planned, each, source, points_max)
    return planned


def _add(planned: Plan, named: _NamedSeries, source: Source | SeriesError, points_max: int) -> None:
    """Adds a series to what will be answered.

    Raises:
        LimitExceededError: The answer would have more values than allowed.
    """
    request, n_points = planned.request, 0
    if isinstance(source, Source):
        n_points = source.span.n_slots
        planned.n_samples += source.span.n_slots * len(source.span.members)
        if request.with_padding and request.with_values:
            padding = _padding(source.span.start, request.start, source.table.metric.interval)
            if padding > PADDING_MAX:
                remedy = "start later, or ask without padding"
                raise LimitExceededError("values before the first sample", padding, PADDING_MAX, remedy)
            n_points += padding
        planned.n_points += n_points
        if planned.n_points > points_max:
            remedy = "ask for a shorter range or fewer series"
            raise LimitExceededError("values in one query", planned.n_points, points_max, remedy)
    components, subcomponents = named.selection
    planned.series.append(
        PlannedSeries(
            named.query,
            named.query_index,
            named.series_index,
            components[0] if components else "",
            subcomponents[0] if subcomponents else "",
            source,
            n_points,
        )
    )


def answers(reader: Reader, planned: Plan, *, chunk_points: int, chunk_series: int) -> Iterator[list[SeriesAnswer]]:
    """Reads the planned series in order, in chunks of about so many values or series.

    Raises:
        CancelledReadError: Nobody waits for them.
    """
    chunk: list[PlannedSeries] = []
    points = 0
    for series in planned.series:
        chunk.append(series)
        points += series.n_points
        if points >= chunk_points or len(chunk) >= chunk_series:
            yield _answer(reader, planned.request, chunk)
            chunk, points = [], 0
    if chunk:
        yield _answer(reader, planned.request, chunk)


def _answer(reader: Reader, request: QueryRequest, chunk: Sequence[PlannedSeries]) -> list[SeriesAnswer]:
    """Reads some series together, and makes of each what was asked for."""
    found = [_head(series) for series in chunk]
    if not request.with_values and not request.with_statistics:
        return found
    # Sums of huge values are infinite, as in any arithmetic.
    with np.errstate(over="ignore", invalid="ignore"):
        values = iter(reader.read([series.source for series in chunk if isinstance(series.source, Source)]))
        for series, answer in zip(chunk, found, strict=True):
            if isinstance(series.source, Source):
                _fill(request, series.query, next(values), answer)
    return found


def _head(planned: PlannedSeries) -> SeriesAnswer:
    """The answer without values."""
    query, source = planned.query, planned.source
    answer = SeriesAnswer(
        query_index=planned.query_index,
        series_index=planned.series_index,
        metric=query.metric,
        host=query.host,
        component=planned.component,
        subcomponent=planned.subcomponent,
    )
    if isinstance(source, SeriesError):
        answer.error = source
    else:
        answer.interval = source.table.metric.interval
        answer.start, answer.end = source.span.start, source.span.end(answer.interval)
    return answer


def _fill(request: QueryRequest, query: SeriesQuery, values: NDArray[np.float64], answer: SeriesAnswer) -> None:
    """Adds what was read to an answer."""
    if request.with_statistics:
        answer.statistics = statistics(values)
    if query.scale_by not in (0.0, 1.0):
        values *= query.scale_by
        if answer.statistics is not None:
            answer.statistics = answer.statistics.scaled(query.scale_by)
    if query.resolution > answer.interval:
        picked = downsample(values, query.resolution // answer.interval)
        if picked is not None:
            values, answer.interval = picked, query.resolution
    if request.with_values:
        padding = _padding(answer.start, request.start, answer.interval) if request.with_padding else 0
        answer.values = _with_front(values, padding)


def _count(query: SeriesQuery) -> int:
    """Levels a query selects: it answers with a series for each, or with one of all."""
    if query.type is None or (query.type == "node" and (query.aggregate or not query.type_ids)):
        return 1
    return max(1, len(query.type_ids)) * (1 if query.subtype is None else max(1, len(query.subtype_ids)))


def _selections(query: SeriesQuery) -> Iterator[_Selection]:
    if query.type is None or (query.type == "node" and (query.aggregate or not query.type_ids)):
        yield _Selection((), ())
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


def _named_series(store: Store, request: QueryRequest, queries: Sequence[SeriesQuery]) -> Iterator[_NamedSeries]:
    """The series that queries name, in order."""
    for query_index, query in enumerate(queries):
        for series_index, selection in enumerate(_selections(query)):
            found = _find(store, request, query, selection)
            yield _NamedSeries(query, query_index, series_index, selection, found)


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
    group = _group(store, metric_id, request.cluster, query, selection)
    if host is None or not len(group):
        return SeriesError(SeriesErrorReason.NOT_FOUND, "metric or host not found")
    if len(group) > 1 and metric.aggregation is None:
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
    path = (cluster, query.host)
    if query.type is None or query.type == "node":
        return store.group(metric_id, path)
    paths = [
        (*path, component, *below)
        for component in selection.components
        for below in ([(name,) for name in selection.subcomponents] if query.subtype is not None else [()])
    ]
    groups = [store.group(metric_id, each) for each in paths]
    return groups[0] if len(groups) == 1 else np.concatenate([np.empty(0, np.int32), *groups])


def _padding(first: int, start: int, interval: int) -> int:
    """Values from the start asked for to the first one there is."""
    return max(0, first // interval - start // interval)


def _with_front(values: NDArray[np.float64], padding: int) -> NDArray[np.float64]:
    if not padding:
        return values
    padded = np.empty(padding + len(values))
    padded[:padding] = np.nan
    padded[padding:] = values
    return padded
