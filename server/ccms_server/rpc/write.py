"""Write requests and reports, from and to their protobuf messages."""

from typing import Final

import numpy as np

from ccms.v1.metric_store_service_pb2 import WriteRequest
from ccms.v1.sample_pb2 import Component, RejectedCount, RejectedSample, RejectReason, WriteSummary
from ccms.v1.sample_pb2 import SampleColumn as SampleColumnMessage
from ccms_server.errors import InvalidRequestError, LimitExceededError
from ccms_server.model import SampleColumn, WriteReport

COLUMNS_MAX: Final = 65_536
"""Columns in one request."""


def read_columns(request: WriteRequest) -> list[SampleColumn]:
    """The columns of a request; their arrays are copies.

    Raises:
        RequestError: There are too many, or one lacks a required field; nothing of the request can be stored then.
    """
    if len(request.columns) > COLUMNS_MAX:
        raise LimitExceededError("columns in one request", len(request.columns), COLUMNS_MAX, "send several requests")
    return [_read_column(column, f"columns[{index}]") for index, column in enumerate(request.columns)]


def _read_column(column: SampleColumnMessage, path: str) -> SampleColumn:
    selector, times = column.selector, column.WhichOneof("times")
    if times is None:
        raise InvalidRequestError(f"{path}.times", "is required: `timestamps` or `regular_times`")
    if column.regular_times.interval_seconds < 0:
        raise InvalidRequestError(f"{path}.regular_times.interval_seconds", "must not be negative")
    is_host = selector.component.type == "node"
    component = "" if is_host else _level_name(selector.component, f"{path}.selector.component")
    subcomponent = _level_name(selector.subcomponent, f"{path}.selector.subcomponent")
    if subcomponent and not component:
        raise InvalidRequestError(f"{path}.selector.subcomponent", "needs a `component` that is not the host itself")
    return SampleColumn(
        metric=column.metric,
        cluster=selector.cluster,
        host=selector.host,
        component=component,
        subcomponent=subcomponent,
        timestamps=np.array(column.timestamps.seconds, dtype=np.int64) if times == "timestamps" else None,
        start=column.regular_times.start_seconds,
        interval=column.regular_times.interval_seconds,
        values=np.array(column.values, dtype=np.float64),
    )


def _level_name(component: Component, path: str) -> str:
    """Type and id run together; empty for an absent component."""
    if component.id and not component.type:
        raise InvalidRequestError(f"{path}.type", "is required with an id")
    return component.type + component.id


def write_summary(report: WriteReport) -> WriteSummary:
    """The message that says what a write did."""
    return WriteSummary(
        stored=report.stored,
        ignored=report.ignored,
        rejected=[
            RejectedCount(reason=RejectReason.ValueType(reason), count=count)
            for reason, count in sorted(report.rejected.items())
        ],
        first_rejected=[
            RejectedSample(
                index=rejection.index, reason=RejectReason.ValueType(rejection.reason), message=rejection.message
            )
            for rejection in report.first_rejected
        ],
    )
