"""Which hosts are monitored as they should be: what arrives of them, and what no longer does.

The rules are the predecessor's. A metric of a host is

- degraded, if any of its series, the host's own or one of a component, ended more than `STALE_INTERVALS` intervals ago;
- missing, if it has no series at all, or is not configured;
- arriving otherwise.

A series that ended before the retention in memory does not count: in the predecessor it would not be there. Without
that rule, a GPU that was taken out would degrade its host for as long as its samples are on disk.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from ccms_server.extents import series_extents
from ccms_server.model import HostHealth
from ccms_server.store.store import Store

STALE_INTERVALS: Final = 5
"""Intervals without a sample that are no reason to worry."""

CHUNK_SERIES: Final = 4096
"""Series that are looked at in one go, in some milliseconds."""


def host_health(
    store: Store, cluster: str, hosts: Sequence[str], metrics: Sequence[str], *, now: int, oldest: int
) -> Iterator[list[HostHealth]]:
    """Looks at hosts of a cluster, for any thread.

    Args:
        store: The store.
        cluster: The cluster.
        hosts: The hosts.
        metrics: Metrics that should arrive.
        now: Seconds.
        oldest: Series that ended before this time do not count, seconds.

    Returns:
        Chunks of answers, in the order of `hosts`.
    """
    chunk: list[HostHealth] = []
    n_series = 0
    for host in hosts:
        health = _health(store, cluster, host, metrics, now, oldest)
        chunk.append(health)
        n_series += 1 + health.n_series
        if n_series >= CHUNK_SERIES:
            yield chunk
            chunk, n_series = [], 0
    if chunk:
        yield chunk


def _health(store: Store, cluster: str, host: str, metrics: Sequence[str], now: int, oldest: int) -> HostHealth:
    if store.tree.find((cluster, host)) is None:
        return HostHealth(host=host, known=False)
    n_series = n_stale = 0
    present: set[str] = set()
    stale: set[str] = set()
    for extents in series_extents(store, (cluster, host)):
        for extent in extents:
            if extent.end < oldest:
                continue
            n_series += 1
            present.add(extent.metric)
            if now - extent.end > STALE_INTERVALS * extent.interval:
                n_stale += 1
                stale.add(extent.metric)
    degraded = [metric for metric in metrics if metric in stale]
    missing = [metric for metric in metrics if metric not in present]
    return HostHealth(
        host=host,
        known=True,
        degraded=degraded,
        missing=missing,
        n_arriving=len(metrics) - len(degraded) - len(missing),
        n_series=n_series,
        n_stale=n_stale,
    )
