"""Write requests and reports, from and to their protobuf messages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ccms.v1.sample_pb2 import (
    RejectedCount,
    RejectedSample,
    RejectReason,
    SeriesDefinition,
    SeriesSelector,
    WriteSummary,
)
from ccms.v1.sample_pb2 import SampleBatch as SampleBatchMessage
from ccms.v1.sample_pb2 import SampleColumn as SampleColumnMessage
from ccms_server.errors import InvalidRequestError, LimitExceededError
from ccms_server.errors import RejectReason as Reason
from ccms_server.model import SampleColumn, SeriesName, WriteReport

_Scalar = TypeVar("_Scalar", bound=np.generic)

COLUMNS_MAX: Final = 65_536
"""Columns in one request."""


def read_columns(columns: Sequence[SampleColumnMessage]) -> list[SampleColumn]:
    """The columns of a request; their arrays are copies.

    Raises:
        RequestError: There are too many, or one lacks a required field; nothing of the request can be stored then.
    """
    if len(columns) > COLUMNS_MAX:
        raise LimitExceededError("columns in one request", len(columns), COLUMNS_MAX, "send several requests")
    return [_read_column(column, index) for index, column in enumerate(columns)]


def _read_column(column: SampleColumnMessage, index: int) -> SampleColumn:
    series = _series_name(column.metric, column.selector, "columns", index)
    values = np.array(column.values, np.float64)
    match column.WhichOneof("times"):
        case "timestamps":
            return SampleColumn(series, values, timestamps=np.array(column.timestamps.seconds, np.int64))
        case "regular_times":
            times = column.regular_times
            if times.interval_seconds < 0:
                raise InvalidRequestError(f"columns[{index}].regular_times.interval_seconds", "must not be negative")
            return SampleColumn(series, values, start=times.start_seconds, interval=times.interval_seconds)
        case _:
            raise InvalidRequestError(f"columns[{index}].times", "is required: `timestamps` or `regular_times`")


def read_definitions(definitions: Iterable[SeriesDefinition]) -> list[tuple[int, SeriesName]]:
    """Numbers, and the series they stand for.

    Raises:
        InvalidRequestError: One lacks a required field.
    """
    return [
        (definition.number, _series_name(definition.metric, definition.selector, "new_series", index))
        for index, definition in enumerate(definitions)
    ]


def read_samples(samples: SampleBatchMessage) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.float64]]:
    """Numbers of series, times in seconds, and values: arrays of shape (n_samples,), copies.

    Raises:
        InvalidRequestError: The columns differ in length.
    """
    values = np.array(samples.values, np.float64)
    numbers = np.array(samples.series_numbers, np.uint32)
    timestamps = np.array(samples.timestamps_seconds, np.int64)
    return (
        _for_each("series_numbers", numbers, len(values)),
        _for_each("timestamps_seconds", timestamps, len(values)),
        values,
    )


def _for_each(field: str, column: NDArray[_Scalar], n_samples: int) -> NDArray[_Scalar]:
    """A column with an entry for each sample; a single one is for all of them."""
    if len(column) == n_samples:
        return column
    if len(column) != 1:
        raise InvalidRequestError(field, f"has {len(column):,} entries for {n_samples:,} values; one for each, or one")
    return np.full(n_samples, column[0])


def _series_name(metric: str, selector: SeriesSelector, field: str, index: int) -> SeriesName:
    """Name of the series in a repeated field of a request; ids and types of components are run together."""
    component, subcomponent = selector.component, selector.subcomponent
    for name, level in (("component", component), ("subcomponent", subcomponent)):
        if level.id and not level.type:
            raise InvalidRequestError(f"{field}[{index}].selector.{name}.type", "is required with an id")
    below_host = "" if component.type == "node" else component.type + component.id
    below_component = subcomponent.type + subcomponent.id
    if below_component and not below_host:
        raise InvalidRequestError(
            f"{field}[{index}].selector.subcomponent", "needs a `component` that is not the host itself"
        )
    return SeriesName(metric, selector.cluster, selector.host, below_host, below_component)


def write_summary(report: WriteReport) -> WriteSummary:
    """The message that says what a write did."""
    return WriteSummary(
        stored=report.stored,
        ignored=report.ignored,
        rejected=rejected_counts(report.rejected),
        first_rejected=[
            RejectedSample(
                index=rejection.index, reason=RejectReason.ValueType(rejection.reason), message=rejection.message
            )
            for rejection in report.first_rejected
        ],
    )


def rejected_counts(rejected: Mapping[Reason, int]) -> list[RejectedCount]:
    """Numbers of samples that were not stored, in order of their reasons."""
    return [
        RejectedCount(reason=RejectReason.ValueType(reason), count=count) for reason, count in sorted(rejected.items())
    ]
