"""Places for what was sent: the writer's work between taking batches from its queue and making them durable."""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ccms_server.errors import RejectReason
from ccms_server.ingest.batches import Batch, ColumnBatch, LineBatch, NumberedBatch
from ccms_server.ingest.decoder import KEYS_MAX, LineDecoder
from ccms_server.ingest.line_protocol import shown
from ccms_server.ingest.numbered_series import rejection_reason
from ccms_server.model import REJECTIONS_KEPT_MAX, Rejection, SampleColumn, SeriesName, WriteReport
from ccms_server.names import broken_name_rule
from ccms_server.store.append import NO_SAMPLE, STORED, Placement
from ccms_server.store.registry import HOST_DEPTH
from ccms_server.store.store import Store

DECODERS_MAX: Final = 64
"""Default clusters whose decoders are kept."""

ALWAYS: Final = 1 << 62
"""A time before or after every timestamp, in seconds."""

_Number = TypeVar("_Number", bound=np.number)

_LEVELS: Final = ("cluster", "host", "component", "sub-component")


class Placer:
    """Decodes batches and finds places for their samples. Belongs to the writer's thread."""

    def __init__(self, store: Store, *, retention_seconds: int, future_seconds: int, line_bytes: int) -> None:
        """Makes a placer.

        Args:
            store: The store.
            retention_seconds: Older samples are rejected; 0: none are.
            future_seconds: Samples further ahead of the clock are rejected.
            line_bytes: Length of a line at most.
        """
        self._store = store
        self._retention_seconds = retention_seconds
        self._future_seconds = future_seconds
        self._line_bytes_max = line_bytes
        self._decoders: OrderedDict[str, LineDecoder] = OrderedDict()

    def define(self, batch: Batch) -> None:
        """Lets numbers stand for their series, in this batch and those behind it.

        Raises:
            InvalidRequestError: A number cannot be used.
        """
        if isinstance(batch, NumberedBatch):
            for number, name in batch.definitions:
                batch.known.define(number, name, self._series_of)

    def decode(self, batch: Batch, now: float) -> "Decoded":
        """Takes a batch apart; new series are registered.

        Args:
            batch: The batch.
            now: Seconds since the epoch.

        Raises:
            InvalidRequestError: Nothing of the batch can be stored.
        """
        if isinstance(batch, LineBatch):
            lines = self._decoder(batch.default_cluster).decode(batch.payload, int(now))
            return Decoded(lines.series, lines.timestamps, lines.values, lines.lines, lines.report)
        if isinstance(batch, ColumnBatch):
            return self._decode_columns(batch)
        return self._decode_numbered(batch)

    def place(self, batches: Sequence["Decoded"], now: float) -> tuple[Placement, list[int]]:
        """Finds places for the samples of some batches, in order, and completes the reports.

        Args:
            batches: Some batches; at least one.
            now: Seconds since the epoch.

        Returns:
            The samples that have a place, and how many there are of each batch.
        """
        series = _joined([batch.series for batch in batches])
        timestamps = _joined([batch.timestamps for batch in batches])
        values = _joined([batch.values for batch in batches])
        oldest, newest = self.oldest(now), int(now) + self._future_seconds
        placed, outcome = self._store.place(series, timestamps, values, oldest=oldest, newest=newest)
        sizes = [len(batch.series) for batch in batches]
        if len(placed.series) == len(series):
            counts = sizes
        else:
            parts = np.split(outcome, np.cumsum(sizes)[:-1])
            counts = [int((part == STORED).sum()) for part in parts]
            # All of them first: if one cannot be made, no report is changed, and each batch can be placed anew.
            rejections = [
                _rejections(batch, part, oldest, newest) if count < size else WriteReport()
                for batch, part, count, size in zip(batches, parts, counts, sizes, strict=True)
            ]
            for batch, rejected in zip(batches, rejections, strict=True):
                batch.report.merge(rejected)
        for batch, count in zip(batches, counts, strict=True):
            batch.report.stored += count
        return placed, counts

    def oldest(self, now: float) -> int:
        """Time in seconds before which samples are rejected."""
        return int(now) - self._retention_seconds if self._retention_seconds else -ALWAYS

    def forget_metrics(self) -> None:
        """Which metrics are configured has changed."""
        self._decoders.clear()  # they remember lines to ignore

    def _decode_columns(self, batch: ColumnBatch) -> "Decoded":
        report = WriteReport()
        taken: list[SampleColumn] = []
        rows: list[tuple[int, int, int, int, int]] = []  # of each: series, samples, first index, start, interval
        first = 0
        for column in batch.columns:
            n_samples = column.n_samples
            if not n_samples:  # nor is its series registered
                continue
            found = self._series_of_column(column)
            if isinstance(found, int):
                taken.append(column)
                rows.append((found, n_samples, first, column.start, self._interval_of(column)))
            else:
                reason, message = found
                for index in range(first, first + min(n_samples, REJECTIONS_KEPT_MAX)):
                    report.reject(index, reason, message)
                if n_samples > REJECTIONS_KEPT_MAX:
                    report.rejected[reason] += n_samples - REJECTIONS_KEPT_MAX
            first += n_samples
        if not taken:
            return Decoded(*_NOTHING, report)
        ids, lengths, firsts, starts, intervals = np.array(rows, np.int64).T
        ends = np.cumsum(lengths)
        offsets = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)  # of each sample in its column
        timestamps = np.repeat(starts, lengths) + offsets * np.repeat(intervals, lengths)
        for column, end in zip(taken, ends.tolist(), strict=True):
            if column.timestamps is not None:
                timestamps[end - len(column.timestamps) : end] = column.timestamps
        series, indexes = np.repeat(ids.astype(np.int32), lengths), np.repeat(firsts, lengths) + offsets
        return Decoded(series, timestamps, np.concatenate([column.values for column in taken]), indexes, report)

    def _decode_numbered(self, batch: NumberedBatch) -> "Decoded":
        series = batch.known.resolve(batch.numbers, self._series_of)
        indexes = np.arange(len(series), dtype=np.int64)
        report = WriteReport()
        kept = series >= 0
        if kept.all():
            return Decoded(series, batch.timestamps, batch.values, indexes, report)
        for index in np.flatnonzero(~kept)[:REJECTIONS_KEPT_MAX].tolist():
            message = batch.known.rejection(int(batch.numbers[index]))
            report.first_rejected.append(Rejection(index, rejection_reason(int(series[index])), message))
        for found, count in zip(*np.unique(series[~kept], return_counts=True), strict=True):
            report.rejected[rejection_reason(int(found))] = int(count)
        return Decoded(series[kept], batch.timestamps[kept], batch.values[kept], indexes[kept], report)

    def _series_of_column(self, column: SampleColumn) -> int | tuple[RejectReason, str]:
        """The series of a column, or why it has none."""
        metric = column.series.metric
        if self._store.metric_id(metric) is not None:
            if column.timestamps is not None and len(column.timestamps) != len(column.values):
                n_times, n_values = len(column.timestamps), len(column.values)
                return RejectReason.LENGTH_MISMATCH, f"{metric}: {n_times} times, but {n_values} values"
            if column.timestamps is None:
                last = column.start + (len(column.values) - 1) * self._interval_of(column)
                if not -ALWAYS <= min(column.start, last) <= max(column.start, last) <= ALWAYS:
                    reaches = f"the times reach from {column.start} to {last} s"
                    return RejectReason.INVALID_TIMESTAMP, f"{metric}: {reaches}"
        return self._series_of(column.series)

    def _series_of(self, name: SeriesName) -> int | tuple[RejectReason, str]:
        """The series with a name, which may be new; or why there can be none."""
        metric_id = self._store.metric_id(name.metric)
        if metric_id is None:
            return RejectReason.UNKNOWN_METRIC, f"metric {name.metric[:64]!r} is not configured"
        path = name.path
        if len(path) >= HOST_DEPTH and (known := self._store.known_series(metric_id, path)) is not None:
            return known
        if not name.cluster:
            return RejectReason.MISSING_CLUSTER, f"{name.metric}: the selector names no cluster"
        if not name.host:
            return RejectReason.MISSING_HOST, f"{name.metric}: the selector names no host"
        for what, level in zip(_LEVELS, path, strict=False):
            if rule := broken_name_rule(level, is_directory=what in ("cluster", "host")):
                return RejectReason.INVALID_NAME, f"{name.metric}: {what} {shown(level)} {rule}"
        series = self._store.series_id(metric_id, path)
        if series is None:
            return RejectReason.SERIES_LIMIT, f"{'/'.join(path)}: the server holds as many series as it may"
        return series

    def _interval_of(self, column: SampleColumn) -> int:
        """Spacing of a column's samples, in seconds, if they have one."""
        metric_id = self._store.metric_id(column.series.metric)
        assert metric_id is not None, column.series
        return column.interval or self._store.tables[metric_id].metric.interval

    def _decoder(self, default_cluster: str) -> LineDecoder:
        decoder = self._decoders.get(default_cluster)
        if decoder is None:
            decoder = LineDecoder(self._store, default_cluster, self._line_bytes_max)
            self._decoders[default_cluster] = decoder
            self.forget_decoders()
        self._decoders.move_to_end(default_cluster)
        return decoder

    def forget_decoders(self) -> None:
        """Forgets those that were used longest ago when they are too many, or know too much together."""
        known = sum(decoder.known_keys for decoder in self._decoders.values())
        while len(self._decoders) > 1 and (len(self._decoders) > DECODERS_MAX or known > KEYS_MAX):
            _, forgotten = self._decoders.popitem(last=False)
            known -= forgotten.known_keys


class Decoded(NamedTuple):
    """A batch taken apart: arrays of shape (n_samples,), and what is known already of what becomes of it."""

    series: NDArray[np.int32]
    """Ids."""
    timestamps: NDArray[np.int64]
    """Seconds since the epoch."""
    values: NDArray[np.float64]
    indexes: NDArray[np.integer]
    """Of each sample in the batch, as its sender counts."""
    report: WriteReport


_NOTHING: Final = (np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))


def _joined(arrays: Sequence[NDArray[_Number]]) -> NDArray[_Number]:
    """Some arrays of one dimension, one after another; a single one is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _rejections(batch: Decoded, outcome: NDArray[np.uint8], oldest: int, newest: int) -> WriteReport:
    """Why some samples of a batch have no place.

    Args:
        batch: The batch.
        outcome: uint8 array of shape (n_samples,), see `Store.place`.
        oldest: Earlier samples were rejected, seconds.
        newest: Later samples were rejected, seconds.
    """
    report = WriteReport(ignored=int((outcome == NO_SAMPLE).sum()))
    rejected = np.flatnonzero((outcome != STORED) & (outcome != NO_SAMPLE))
    for position in rejected[:REJECTIONS_KEPT_MAX].tolist():
        reason = RejectReason(int(outcome[position]))
        message = _explain(reason, int(batch.timestamps[position]), float(batch.values[position]), oldest, newest)
        report.first_rejected.append(Rejection(int(batch.indexes[position]), reason, message))
    counts = np.bincount(outcome[rejected])
    report.rejected = {RejectReason(reason): int(counts[reason]) for reason in np.flatnonzero(counts).tolist()}
    return report


def _explain(reason: RejectReason, timestamp: int, value: float, oldest: int, newest: int) -> str:
    """Says why the store rejected a sample, naming the times."""
    match reason:
        case RejectReason.TOO_OLD:
            return f"time {_readable(timestamp)} is older than the retention, which reaches back to {_readable(oldest)}"
        case RejectReason.TOO_NEW:
            return f"time {_readable(timestamp)} is too far in the future; samples are taken up to {_readable(newest)}"
        case RejectReason.FREED:
            return f"time {_readable(timestamp)} is older than what was freed on request"
        case RejectReason.INVALID_NUMBER:
            return f"value {value} is not finite"
        case _:
            raise AssertionError(reason)


def _readable(timestamp: int) -> str:
    """A time as people and programs write it: `1700000000 (2023-11-14T22:13:20Z)`."""
    try:
        return f"{timestamp} ({datetime.fromtimestamp(timestamp, UTC):%Y-%m-%dT%H:%M:%SZ})"
    except (OverflowError, ValueError, OSError):  # beyond the years datetime knows
        return str(timestamp)
