"""Series as they are stored, read one by one for export: no aggregates, no downsampling."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_cli.names import literal_pattern
from ccms_client import Client, SeriesEntry, SeriesKey, SeriesMatcher, SeriesQuery

SERIES_PER_CALL: Final = 256
"""Series that are read by one call."""
HOSTS_PER_CALL: Final = 512
"""Hosts whose series are listed by one call: the server takes 1,024 patterns."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive samples of a series, or a part of them."""

    key: SeriesKey
    interval: int
    """Seconds."""
    timestamps: NDArray[np.int64]
    """int64 array of shape (n_samples,), seconds since the epoch, ascending."""
    values: NDArray[np.float64]
    """float64 array of the same shape; none is NaN."""


class Samples(NamedTuple):
    """Samples of several series: arrays of shape (n_samples,)."""

    keys: list[SeriesKey]
    numbers: NDArray[np.intp]
    """Which of `keys` a sample is of."""
    timestamps: NDArray[np.int64]
    """Seconds since the epoch."""
    values: NDArray[np.float64]


def list_series(client: Client, cluster: str, hosts: Sequence[str], metrics: Sequence[str]) -> Iterator[SeriesEntry]:
    """The series that there are, host by host.

    Args:
        client: The client.
        cluster: Name of the cluster.
        hosts: Its hosts; empty: all.
        metrics: Names of metrics; empty: all.
    """
    clusters, wanted = [literal_pattern(cluster)], [literal_pattern(metric) for metric in metrics]
    if not hosts:
        yield from client.series(SeriesMatcher(clusters=clusters, metrics=wanted))
    for begin in range(0, len(hosts), HOSTS_PER_CALL):
        some = [literal_pattern(host) for host in hosts[begin : begin + HOSTS_PER_CALL]]
        yield from client.series(SeriesMatcher(clusters=clusters, hosts=some, metrics=wanted))


def read_series(client: Client, entries: Iterable[SeriesEntry], start: float, end: float) -> Iterator[Run]:
    """Reads samples; the parts of a series follow each other.

    Args:
        client: The client.
        entries: Series of one cluster.
        start: Start of the range, seconds since the epoch; may be minus infinity.
        end: End of it, exclusive; may be infinity.
    """
    rest = iter(entries)
    while some := list(islice(rest, SERIES_PER_CALL)):
        # A query answers on the grid that begins at its start: series that share theirs are read together.
        some.sort(key=_grid)
        for _, group in groupby(some, _grid):
            yield from _read_group(client, list(group), start, end)


def _read_group(client: Client, entries: list[SeriesEntry], start: float, end: float) -> Iterator[Run]:
    interval, phase = _grid(entries[0])
    first = max(start, min(entry.first_sample for entry in entries))
    last = min(end, max(entry.last_sample for entry in entries) + 1)
    first = phase + -((phase - int(first)) // interval) * interval
    if first >= last:
        return
    queries = [_query(entry.key) for entry in entries]
    for part in client.stream_parts(entries[0].key.cluster, first, last, queries, with_statistics=False):
        if part.error is not None:  # what was freed meanwhile
            continue
        timestamps = part.timestamps
        kept = ~np.isnan(part.values) & (timestamps >= start) & (timestamps < end)
        if kept.any():
            key = entries[part.query_index].key
            yield Run(key, interval, timestamps[kept], part.values[kept])


def _grid(entry: SeriesEntry) -> tuple[int, int]:
    """Interval, and where within it the samples are."""
    return entry.interval, entry.first_sample % entry.interval


def _query(key: SeriesKey) -> SeriesQuery:
    """The query for one level's own series.

    Type and id are run together by the server, so where the name is cut does not matter; it is not `node`, which would
    be the host itself.
    """
    component, subcomponent = key.component, key.subcomponent
    return SeriesQuery(
        metric=key.metric,
        host=key.host,
        type=component[:1],
        type_ids=[component[1:]] if component else [],
        subtype=subcomponent[:1],
        subtype_ids=[subcomponent[1:]] if subcomponent else [],
    )
