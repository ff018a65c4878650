"""What the store holds, series by series: where each begins and ends.

Meant for any thread, while the writer goes on: a series that appears during a walk may or may not be in it.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import numpy as np

from ccms_server.errors import NotFoundError
from ccms_server.model import SeriesExtent
from ccms_server.store.store import Store
from ccms_server.store.tree import Level

CHUNK_SERIES: Final = 1024
"""Series that are looked at in one go, in a millisecond or two."""


class FoundSeries(NamedTuple):
    """A series in the tree; it may have no samples."""

    path: tuple[str, ...]
    """Cluster, host, and optionally component and sub-component."""
    metric_id: int
    series: int


def series_extents(store: Store, path: Sequence[str]) -> Iterator[list[SeriesExtent]]:
    """The series at a level and below it that have samples, those of retired metrics excepted.

    Args:
        store: The store.
        path: Cluster, host, component and sub-component, or the beginning of these; empty for everything.

    Returns:
        Chunks of at most `CHUNK_SERIES`, some may be empty. A level's own series come first, by metric; then its
        children, in order of appearance.

    Raises:
        NotFoundError: There is no such level.
    """
    top = store.tree.find(path)
    if top is None:
        raise NotFoundError(f"selector {':'.join(path)!r} names nothing that ever had a sample")
    return _chunks(store, walk(store, top, tuple(path)))


def _chunks(store: Store, found: Iterator[FoundSeries]) -> Iterator[list[SeriesExtent]]:
    while chunk := list(islice(found, CHUNK_SERIES)):
        yield extents_of(store, chunk)


def extents_of(store: Store, found: Sequence[FoundSeries]) -> list[SeriesExtent]:
    """Where series begin and end; those without samples are left out."""
    starts, n_slots = store.extents(np.array([each.series for each in found], np.int32))
    extents = []
    for each, start, count in zip(found, starts.tolist(), n_slots.tolist(), strict=True):
        if count > 0:
            metric = store.tables[each.metric_id].metric
            extents.append(SeriesExtent(each.path, metric.name, start, count, metric.interval))
    return extents


def walk(store: Store, level: Level, path: tuple[str, ...]) -> Iterator[FoundSeries]:
    """All series at a level and below it, depth first, those of retired metrics excepted."""
    for metric_id, series in sorted(level.series.items()):
        if is_served(store, metric_id):
            yield FoundSeries(path, metric_id, series)
    for name, child in list(level.children.items()):
        yield from walk(store, child, (*path, name))


def is_served(store: Store, metric_id: int) -> bool:
    """Whether a metric is served; the name of one that is retired may stand for another table by now, or for none."""
    return store.metric_id(store.tables[metric_id].metric.name) == metric_id
