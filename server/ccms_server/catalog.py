"""What there is: levels of the tree, metrics and series, page by page in the order of their names.

Meant for any thread, while the writer goes on: what appears meanwhile may or may not be in a page. Each function is a
generator that pauses at least every few milliseconds, and returns a page in the end: it can be given up on the way.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ccms_server.errors import NotFoundError
from ccms_server.extents import FoundSeries, extents_of, is_served, walk
from ccms_server.matcher import SeriesMatcher, matching_chunks
from ccms_server.model import SeriesExtent, SeriesName
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.store.tree import Level

_Entry = TypeVar("_Entry")

CHUNK_SERIES: Final = 2048
"""Series whose samples are looked at before the next pause, in some milliseconds."""
CHUNK_LEVELS: Final = 256
"""Levels whose series are not looked at between two pauses."""


@dataclass(frozen=True, slots=True)
class Page(Generic[_Entry]):
    """Some entries of a list."""

    entries: list[_Entry]
    has_more: bool
    """Whether further ones follow."""


@dataclass(frozen=True, slots=True)
class SampleSpan:
    """When the samples of one or more series were taken."""

    n_series: int
    """Series that have samples."""
    first: int
    """Time of the first sample of them all, in seconds; 0 without series."""
    last: int
    """Time of the last sample of them all, in seconds; 0 without series."""

    def joined(self, other: "SampleSpan") -> "SampleSpan":
        """That of the series of both."""
        if not self.n_series:
            return other
        if not other.n_series:
            return self
        return SampleSpan(self.n_series + other.n_series, min(self.first, other.first), max(self.last, other.last))


NO_SAMPLES: Final = SampleSpan(0, 0, 0)


@dataclass(frozen=True, slots=True)
class LevelEntry:
    """A level of the tree."""

    name: str
    n_children: int
    """Levels right below it."""
    samples: SampleSpan | None
    """Of all series at the level and below it; None: that was not asked."""


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """A metric that is configured."""

    metric: Metric
    samples: SampleSpan | None
    """Of its series at the level that was asked about; None: there was none."""


@dataclass(frozen=True, slots=True)
class SeriesEntry:
    """A series that has samples."""

    name: SeriesName
    interval: int
    """Spacing of its samples, in seconds."""
    first: int
    """Time of its first sample, in seconds."""
    last: int
    """Time of its last sample, in seconds."""


def list_levels(
    store: Store, path: Sequence[str], after: str, size: int, *, with_samples: bool
) -> Generator[None, None, Page[LevelEntry]]:
    """The levels right below one.

    Args:
        store: The store.
        path: Cluster, host and component, or the beginning of these; empty: the clusters are listed.
        after: The last name that is not wanted any more; empty: the first one comes first.
        size: Entries of the page at most, >= 1.
        with_samples: Whether to tell when the samples below each were taken.

    Raises:
        NotFoundError: There is no such level.
    """
    children = _find(store, path).children
    names = nsmallest(size + 1, [name for name in list(children) if name > after])
    entries: list[LevelEntry] = []
    for name in names[:size]:
        level, samples = children[name], None
        if with_samples:
            samples = yield from _span(store, level, (*path, name))
        entries.append(LevelEntry(name, len(level.children), samples))
        if len(entries) % CHUNK_LEVELS == 0:
            yield
    return Page(entries, len(names) > size)


def list_metrics(store: Store, path: Sequence[str], after: str, size: int) -> Generator[None, None, Page[MetricEntry]]:
    """The metrics that are configured.

    Args:
        store: The store.
        path: Only those that this level, or one below it, has samples of; empty: all.
        after: The last name that is not wanted any more; empty: the first one comes first.
        size: Entries of the page at most, >= 1.

    Raises:
        NotFoundError: There is no such level.
    """
    found: dict[int, SampleSpan | None] = {}
    if path:
        found.update((yield from _spans_by_metric(store, _find(store, path), tuple(path))))
    else:
        found.update((metric_id, None) for metric_id in range(len(store.tables)) if is_served(store, metric_id))
    metrics = [MetricEntry(store.tables[metric_id].metric, samples) for metric_id, samples in found.items()]
    wanted = nsmallest(size + 1, [entry for entry in metrics if entry.metric.name > after], key=_name_of_metric)
    return Page(wanted[:size], len(wanted) > size)


def list_series(
    store: Store, matcher: SeriesMatcher, after: SeriesName | None, size: int
) -> Generator[None, None, Page[SeriesEntry]]:
    """The series that are selected and have samples; see `matching_chunks` for their order.

    Args:
        store: The store.
        matcher: Selects them.
        after: The last series that is not wanted any more; None: the first one comes first.
        size: Entries of the page at most, >= 1.
    """
    entries: list[SeriesEntry] = []
    for found in matching_chunks(store, matcher, after):
        entries += map(_series_entry, extents_of(store, found))
        if len(entries) > size:
            break
        yield
    return Page(entries[:size], len(entries) > size)


def _find(store: Store, path: Sequence[str]) -> Level:
    level = store.tree.find(path)
    if level is None:
        raise NotFoundError(f"there is no {' / '.join(map(repr, path))}: nothing of that name ever had a sample")
    return level


def _name_of_metric(entry: MetricEntry) -> str:
    return entry.metric.name


def _series_entry(extent: SeriesExtent) -> SeriesEntry:
    first = extent.start + (extent.interval >> 1)  # slots begin half an interval before their samples
    last = first + (extent.n_slots - 1) * extent.interval
    return SeriesEntry(SeriesName(extent.metric, *extent.path), extent.interval, first, last)


def _span(store: Store, level: Level, path: tuple[str, ...]) -> Generator[None, None, SampleSpan]:
    """When the samples at a level and below it were taken."""
    span = NO_SAMPLES
    for chunk in _chunks(store, level, path):
        first, last, _ = _sample_times(store, chunk)
        span = span.joined(_span_between(first, last))
        yield
    return span


def _spans_by_metric(store: Store, level: Level, path: tuple[str, ...]) -> Generator[None, None, dict[int, SampleSpan]]:
    """When the samples at a level and below it were taken, by metric id; without those that have none."""
    spans: dict[int, SampleSpan] = {}
    for chunk in _chunks(store, level, path):
        first, last, metric_ids = _sample_times(store, chunk)
        for metric_id in np.unique(metric_ids).tolist():
            own = metric_ids == metric_id
            spans[metric_id] = spans.get(metric_id, NO_SAMPLES).joined(_span_between(first[own], last[own]))
        yield
    return spans


def _chunks(store: Store, level: Level, path: tuple[str, ...]) -> Iterator[list[FoundSeries]]:
    found = walk(store, level, path)
    while chunk := list(islice(found, CHUNK_SERIES)):
        yield chunk


def _sample_times(
    store: Store, found: Sequence[FoundSeries]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Times of the first and last samples of series that have some, in seconds, and ids of their metrics.

    Returns:
        Arrays of shape (n_series_with_samples,).
    """
    series = np.array([each.series for each in found], np.int32)
    starts, n_slots = store.extents(series)
    intervals = store.intervals_of(series)
    first = starts + (intervals >> 1)  # slots begin half an interval before their samples
    last = first + (n_slots - 1) * intervals
    has_samples = n_slots > 0
    metric_ids = np.array([each.metric_id for each in found], np.int32)
    return first[has_samples], last[has_samples], metric_ids[has_samples]


def _span_between(first: NDArray[np.int64], last: NDArray[np.int64]) -> SampleSpan:
    """From the earliest of some first samples to the latest of the last ones."""
    return SampleSpan(len(first), int(first.min()), int(last.max())) if len(first) else NO_SAMPLES
