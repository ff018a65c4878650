"""How far the WAL may grow, in bytes and in time."""

from collections.abc import Iterator
from time import monotonic
from typing import Final

from ccms_server.durability.wal import Wal
from ccms_server.store.store import Store

BYTES_LEAST: Final = 1 << 20
"""The WAL may always grow so far."""


class WalBounds:
    """Says when what holds the WAL back is to be stored early, and when it may not grow any more."""

    def __init__(self, store: Store, wal: Wal, *, n_bytes: int, bytes_per_host: int, seconds: int) -> None:
        """Sets the bounds.

        Args:
            store: The store, which knows how many hosts there are and what was logged last.
            wal: The log.
            n_bytes: Size beyond which open windows are written out early.
            bytes_per_host: The same for each host; the smaller of both counts. 0: no such bound.
            seconds: Age at which records are no longer needed; 0: no such bound.
        """
        self._store = store
        self._wal = wal
        self._bytes = n_bytes
        self._bytes_per_host = bytes_per_host
        # What is younger than half the age when it is looked at waits for the next look.
        self._look_seconds = seconds / 2
        self._next_look = monotonic() + self._look_seconds
        self._seen: int | None = None  # the last record at the last look

    @property
    def bytes_max(self) -> int:
        """Size beyond which open windows are written out early."""
        if not self._bytes_per_host:
            return self._bytes
        n_hosts = sum(len(cluster.children) for cluster in self._store.tree.root.children.values())
        return min(self._bytes, max(self._bytes_per_host * n_hosts, BYTES_LEAST))

    @property
    def is_cut_urgent(self) -> bool:
        """Whether cutting the WAL goes before writing more blocks."""
        return self._wal.bytes > self.bytes_max // 2

    @property
    def is_exceeded(self) -> bool:
        """Whether nothing more can be logged: what was stored early did not help."""
        return self._wal.bytes > 2 * self.bytes_max

    def cuts(self) -> Iterator[int]:
        """Numbers of records before which everything is to be stored now."""
        if self._wal.bytes > self.bytes_max:
            self._wal.end_only_segment()
            yield self._wal.middle
        if self._seen is None:  # what was recovered is as old as what comes first
            self._seen = self._store.log_number
        elif self._look_seconds and monotonic() >= self._next_look:
            self._next_look = monotonic() + self._look_seconds
            yield self._seen + 1
            self._seen = self._store.log_number
