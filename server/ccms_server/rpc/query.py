"""Query requests, from their protobuf messages; see `answers` for what they are answered with."""

from typing import Final

from ccms.v1.metric_store_service_pb2 import QueryRequest as QueryRequestMessage
from ccms.v1.metric_store_service_pb2 import SeriesQuery as SeriesQueryMessage
from ccms_server.errors import LimitExceededError
from ccms_server.model import QueryRequest, SeriesQuery

INLINE_ITEMS_MAX: Final = 256
"""Queries, and ids of each, that are translated on the event loop, in about a millisecond."""


def is_small(request: QueryRequestMessage) -> bool:
    """Whether translating a request takes no time worth mentioning."""
    return len(request.queries) <= INLINE_ITEMS_MAX and all(
        len(query.type_ids) + len(query.subtype_ids) <= INLINE_ITEMS_MAX for query in request.queries
    )


def read_query(request: QueryRequestMessage, series_max: int) -> QueryRequest:
    """The same request in the words of the store.

    Raises:
        LimitExceededError: It asks for more series than that.
    """
    _check_count(len(request.queries), series_max)
    _check_count(sum(max(1, len(query.type_ids), len(query.subtype_ids)) for query in request.queries), series_max)
    return QueryRequest(
        cluster=request.cluster,
        start=request.start_seconds,
        end=request.end_seconds,
        queries=[_read_series_query(query) for query in request.queries],
        for_all_hosts=list(request.all_hosts_metrics),
        with_values=not request.omit_values,
        with_statistics=not request.omit_statistics,
    )


def _check_count(n_series: int, series_max: int) -> None:
    if n_series > series_max:
        raise LimitExceededError("series in one query", n_series, series_max, "ask for fewer at a time")


def _read_series_query(query: SeriesQueryMessage) -> SeriesQuery:
    if not query.type:  # by far the most frequent ones
        return SeriesQuery(
            metric=query.metric,
            host=query.host,
            aggregate=query.aggregate,
            resolution=query.resolution_seconds,
            scale_by=query.scale_by,
        )
    return SeriesQuery(
        metric=query.metric,
        host=query.host,
        type=query.type,
        type_ids=list(query.type_ids),
        subtype=query.subtype or None,
        subtype_ids=list(query.subtype_ids),
        aggregate=query.aggregate,
        resolution=query.resolution_seconds,
        scale_by=query.scale_by,
    )
