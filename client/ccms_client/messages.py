"""Requests and answers, to and from their protobuf messages."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ccms.v1 import metric_store_service_pb2 as service_pb
from ccms.v1 import sample_pb2 as sample_pb
from ccms_client.errors import ServerError
from ccms_client.model import (
    Component,
    Rejection,
    SampleColumn,
    Series,
    SeriesError,
    SeriesQuery,
    Statistics,
    WriteResult,
)


def write_request(columns: Iterable[SampleColumn]) -> service_pb.WriteRequest:
    """The message for a batch of columns."""
    return service_pb.WriteRequest(columns=[_column_message(column) for column in columns])


def _column_message(column: SampleColumn) -> sample_pb.SampleColumn:
    message = sample_pb.SampleColumn(
        metric=column.metric,
        selector=sample_pb.SeriesSelector(
            cluster=column.cluster,
            host=column.host,
            component=_component_message(column.component),
            subcomponent=_component_message(column.subcomponent),
        ),
        values=np.asarray(column.values, dtype=np.float64).tolist(),
    )
    if (column.timestamps is None) == (column.start is None):
        raise ValueError(f"{column.metric} of {column.host}: a column has either `timestamps` or a `start`")
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


def write_result(summary: sample_pb.WriteSummary) -> WriteResult:
    """What the server says it did."""
    return WriteResult(
        stored=summary.stored,
        ignored=summary.ignored,
        rejected={_reject_reason(counted.reason): counted.count for counted in summary.rejected},
        first_rejected=[
            Rejection(rejected.index, _reject_reason(rejected.reason), rejected.message)
            for rejected in summary.first_rejected
        ],
    )


def query_request(
    cluster: str,
    start: int,
    end: int,
    queries: Sequence[SeriesQuery],
    *,
    all_hosts_metrics: Sequence[str],
    with_values: bool,
    with_statistics: bool,
) -> service_pb.QueryRequest:
    """The message for a query."""
    return service_pb.QueryRequest(
        cluster=cluster,
        start_seconds=start,
        end_seconds=end,
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
    )


async def assemble(parts: AsyncIterable[service_pb.QueryResponse]) -> AsyncIterator[Series]:
    """Puts streamed parts together, one series at a time.

    Raises:
        ServerError: The parts do not follow the contract.
    """
    header: service_pb.QueryResponse | None = None
    values = np.empty(0)
    filled = 0
    async for part in parts:
        if part.HasField("header"):
            header = part
            values = np.empty(part.header.value_count)
            filled = 0
        arrived = np.array(part.values, dtype=np.float64)
        if header is None or part.offset != filled or filled + arrived.size > values.size:
            raise ServerError("the server sent parts of a series out of order")
        values[filled : filled + arrived.size] = arrived
        filled += arrived.size
        if filled == values.size:
            yield _series(header, values)
            header = None
    if header is not None:
        raise ServerError("the server ended the answer in the middle of a series")


def _series(first: service_pb.QueryResponse, values: NDArray[np.float64]) -> Series:
    header = first.header
    statistics = error = None
    if header.HasField("statistics"):
        found = header.statistics
        statistics = Statistics(min=found.min, avg=found.avg, max=found.max, count=found.count)
    if header.HasField("error"):
        error = SeriesError(_series_error_reason(header.error.reason), header.error.message)
    return Series(
        query_index=first.query_index,
        series_index=first.series_index,
        metric=header.metric,
        host=header.host,
        component=header.component,
        subcomponent=header.subcomponent,
        start=header.start_seconds,
        end=header.end_seconds,
        interval=header.interval_seconds,
        values=values,
        statistics=statistics,
        error=error,
    )


def _reject_reason(number: sample_pb.RejectReason.ValueType) -> str:
    """Name of a reason; that of a newer server may have none here."""
    known = number in sample_pb.RejectReason.values()
    return sample_pb.RejectReason.Name(number).removeprefix("REJECT_REASON_") if known else str(number)


def _series_error_reason(number: service_pb.SeriesErrorReason.ValueType) -> str:
    """Name of a reason; that of a newer server may have none here."""
    known = number in service_pb.SeriesErrorReason.values()
    return service_pb.SeriesErrorReason.Name(number).removeprefix("SERIES_ERROR_REASON_") if known else str(number)
