"""Requests and answers of `MetricStoreService`, to and from their protobuf messages."""

from collections.abc import AsyncGenerator, AsyncIterable, Sequence

import numpy as np

from ccms.v1 import metric_store_service_pb2 as service_pb
from ccms.v1 import sample_pb2 as sample_pb
from ccms_client.enums import enum_name
from ccms_client.errors import ServerError
from ccms_client.keys import Component
from ccms_client.packed import packed_field
from ccms_client.samples import Rejection, SampleColumn, WriteResult
from ccms_client.series import Series, SeriesError, SeriesPart, SeriesQuery, Statistics
from ccms_client.times import Time, whole_seconds


def column_message(column: SampleColumn) -> sample_pb.SampleColumn:
    """The message for a column.

    Raises:
        ValueError: It has no times, or both kinds.
    """
    if (column.timestamps is None) == (column.start is None):
        raise ValueError(f"{column.metric} of {column.host}: a column has either `timestamps` or a `start`")
    message = sample_pb.SampleColumn(
        metric=column.metric,
        selector=sample_pb.SeriesSelector(
            cluster=column.cluster,
            host=column.host,
            component=_component_message(column.component),
            subcomponent=_component_message(column.subcomponent),
        ),
    )
    values = np.asarray(column.values, dtype=np.float64)
    message.MergeFromString(packed_field(sample_pb.SampleColumn.VALUES_FIELD_NUMBER, values))
    if column.timestamps is not None:
        message.timestamps.seconds.extend(np.asarray(column.timestamps, dtype=np.int64).tolist())
        message.timestamps.SetInParent()
    else:
        message.regular_times.start_seconds = column.start or 0
        message.regular_times.interval_seconds = column.interval
        message.regular_times.SetInParent()
    return message


def _component_message(component: Component | None) -> sample_pb.Component | None:
    return sample_pb.Component(type=component.type, id=component.id) if component is not None else None


def write_result(summary: sample_pb.WriteSummary, *, already_stored: bool) -> WriteResult:
    """What the server says it did."""
    return WriteResult(
        stored=summary.stored,
        ignored=summary.ignored,
        rejected={_reject_reason(counted.reason): counted.count for counted in summary.rejected},
        first_rejected=[
            Rejection(rejected.index, _reject_reason(rejected.reason), rejected.message)
            for rejected in summary.first_rejected
        ],
        already_stored=already_stored,
    )


def query_request(
    cluster: str,
    start: Time,
    end: Time,
    queries: Sequence[SeriesQuery],
    *,
    all_hosts_metrics: Sequence[str],
    with_values: bool,
    with_statistics: bool,
) -> service_pb.QueryRequest:
    """The message for a query."""
    return service_pb.QueryRequest(
        cluster=cluster,
        start_seconds=whole_seconds(start),
        end_seconds=whole_seconds(end),
        queries=[
            service_pb.SeriesQuery(
                metric=query.metric,
                host=query.host,
                type=query.type,
                type_ids=query.type_ids,
                subtype=query.subtype,
                subtype_ids=query.subtype_ids,
                aggregate=query.aggregate,
                resolution_seconds=query.resolution,
                scale_by=query.scale_by,
            )
            for query in queries
        ],
        all_hosts_metrics=all_hosts_metrics,
        omit_values=not with_values,
        omit_statistics=not with_statistics,
        bundle_parts=True,
    )


async def parts_of_series(responses: AsyncIterable[service_pb.QueryResponse]) -> AsyncGenerator[SeriesPart, None]:
    """Gives every part the header of its series.

    Raises:
        ServerError: The parts do not follow the contract.
    """
    first: service_pb.QueryResponse | None = None
    filled = 0
    async for received in _unbundled(responses):
        if received.HasField("header"):
            if first is not None:
                raise ServerError("the server began a series before it had sent all of the one before")
            first, filled = received, 0
        values = np.array(received.values, dtype=np.float64)
        if first is None or received.offset != filled or filled + values.size > first.header.value_count:
            raise ServerError("the server sent parts of a series out of order")
        header = first.header
        yield SeriesPart(
            query_index=first.query_index,
            series_index=first.series_index,
            metric=header.metric,
            host=header.host,
            component=header.component,
            subcomponent=header.subcomponent,
            start=header.start_seconds,
            end=header.end_seconds,
            interval=header.interval_seconds,
            statistics=_statistics(header),
            error=_series_error(header),
            value_count=header.value_count,
            offset=filled,
            values=values,
        )
        filled += values.size
        if filled == header.value_count:
            first = None
    if first is not None:
        raise ServerError("the server ended the answer in the middle of a series")


async def _unbundled(
    responses: AsyncIterable[service_pb.QueryResponse],
) -> AsyncGenerator[service_pb.QueryResponse, None]:
    """The parts of all messages, one by one."""
    async for response in responses:
        yield response
        for part in response.following:
            yield part


async def assemble(parts: AsyncIterable[SeriesPart]) -> AsyncGenerator[Series, None]:
    """Puts parts together, one series at a time."""
    values = np.empty(0)
    async for part in parts:
        if part.offset == 0:
            values = np.empty(part.value_count)
        end = part.offset + part.values.size
        values[part.offset : end] = part.values
        if end == part.value_count:
            yield Series(
                query_index=part.query_index,
                series_index=part.series_index,
                metric=part.metric,
                host=part.host,
                component=part.component,
                subcomponent=part.subcomponent,
                start=part.start,
                end=part.end,
                interval=part.interval,
                statistics=part.statistics,
                error=part.error,
                values=values,
            )


def _statistics(header: service_pb.SeriesHeader) -> Statistics | None:
    found = header.statistics
    if not header.HasField("statistics"):
        return None
    return Statistics(min=found.min, avg=found.avg, max=found.max, count=found.count)


def _series_error(header: service_pb.SeriesHeader) -> SeriesError | None:
    if not header.HasField("error"):
        return None
    reason = enum_name(service_pb.SeriesErrorReason, header.error.reason, "SERIES_ERROR_REASON_")
    return SeriesError(reason, header.error.message)


def _reject_reason(number: sample_pb.RejectReason.ValueType) -> str:
    return enum_name(sample_pb.RejectReason, number, "REJECT_REASON_")
