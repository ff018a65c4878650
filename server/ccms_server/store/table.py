"""One metric's table: its bands of rows, its windows of slots, and the tiles where they cross."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.layout import PAGE_ROWS, TILE_ROWS, WINDOW_SLOTS
from ccms_server.store.metric import Metric
from ccms_server.store.sealed_tile import SealedTile, as_stored
from ccms_server.store.tree import Level, SeriesIds

AGGREGATED_MEMBERS_MIN: Final = 2 * PAGE_ROWS
"""Groups smaller than this are cheaper to add up than to store: their rows fill one or two pages."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenTile:
    """A tile that is being written, in the pool.

    A pool tile is used again after it was closed. A reader therefore looks the tile up, reads, and looks it up again:
    if the very same object is still there, what it read is good. (The entry is replaced before the pool tile is given
    back.)
    """

    number: int


Tile = OpenTile | SealedTile


@dataclass(frozen=True, slots=True)
class AggregateRow:
    """Where the aggregate of one host over one sealed window is kept."""

    tile: SealedTile
    row: int
    members: bytes
    """Fingerprint of the series that have samples in the window."""


class StoredWindow(Protocol):
    """Sealed tiles of a window that somebody keeps outside this process's memory, for the tables of all metrics."""

    def tile(self, band: int) -> SealedTile | None:
        """The tile of a band; None when none is kept."""

    def known_tile(self, band: int) -> SealedTile | None:
        """The tile of a band if it was looked up before; nothing is read to find out."""

    def aggregates(self, metric_id: int) -> Mapping[int, AggregateRow]:
        """The aggregates of a metric's hosts, by the number of the host in the metric's table."""

    def tile_counts(self) -> Mapping[int, tuple[int, int]]:
        """Of each band that has a tile: samples, bytes."""


@dataclass(slots=True, eq=False)
class Window:
    """WINDOW_SLOTS slots of all rows of a table."""

    tiles: dict[int, Tile] = field(default_factory=dict)
    """By band: those in memory. A band without a tile here or in `stored` has no samples."""
    aggregates: dict[Level, AggregateRow] | None = field(default_factory=dict)
    """By host, of windows that were sealed; a host that is not in it is added up when it is asked for. None: those in
    `stored` hold."""
    stale: set[int] = field(default_factory=set)
    """Bands that may have been written since the aggregates were stored, those with open tiles among them."""
    stored: StoredWindow | None = None
    """Tiles that are kept elsewhere; those in `tiles` take precedence."""
    unstored: dict[int, int] = field(default_factory=dict)
    """Bands with samples that are not in `stored`: the first entry of the log that may hold one of them."""
    sealed: dict[int, tuple[SealedTile, int]] = field(default_factory=dict)
    """Bands that were sealed since they were last stored, even if they are open again: the sealed tile, and the last
    entry of the log that is in it."""

    @property
    def may_have_aggregates(self) -> bool:
        """Whether aggregates of hosts may be found."""
        aggregates = self.aggregates
        return self.stored is not None if aggregates is None else bool(aggregates)

    def tile(self, band: int) -> Tile | None:
        """The tile of a band, or None."""
        tile = self.tiles.get(band)
        if tile is None and self.stored is not None:
            tile = self.stored.tile(band)
        return tile

    def open_tiles(self) -> list[tuple[int, OpenTile]]:
        """The tiles still being written, with their bands."""
        return [(band, tile) for band, tile in list(self.tiles.items()) if isinstance(tile, OpenTile)]


class MetricTable:
    """All samples of one metric.

    Attributes:
        metric: The metric.
        metric_id: Its number.
        bands: Bands of its rows, in order of registration; only the last one has room.
        windows: Its windows by number; window w holds the slots from `w * WINDOW_SLOTS`.
        unsealed: Numbers of the windows with stale bands.
        unstored: Numbers of the windows of which not all is stored, if they are to be.
        hosts: Hosts that have series of this metric below them, numbered in order of registration.
    """

    def __init__(self, metric: Metric, metric_id: int) -> None:
        self.metric = metric
        self.metric_id = metric_id
        self.bands: list[int] = []
        self.windows: dict[int, Window] = {}
        self.unsealed: set[int] = set()
        self.unstored: set[int] = set()
        self.hosts: dict[Level, int] = {}

    def tile(self, window: int, band: int) -> Tile | None:
        """The tile of a band in a window; None when it holds no samples."""
        found = self.windows.get(window)
        return None if found is None else found.tile(band)

    def aggregates_of(self, window: Window, hosts: Sequence[Level]) -> list[AggregateRow | None]:
        """The aggregates of some hosts over a window; None where none was stored."""
        aggregates = window.aggregates  # read once: the writer may replace it
        if aggregates is not None:
            return [aggregates.get(host) for host in hosts]
        if window.stored is None:
            return [None] * len(hosts)
        stored, numbers = window.stored.aggregates(self.metric_id), self.hosts
        return [stored.get(numbers[host]) if host in numbers else None for host in hosts]

    def aggregates(self, window: Window) -> dict[Level, AggregateRow]:
        """The aggregates of all hosts over a window, in a dict of its own."""
        if window.aggregates is not None:
            return dict(window.aggregates)
        assert window.stored is not None, "aggregates are in memory or stored"
        stored = window.stored.aggregates(self.metric_id)
        return {host: stored[number] for host, number in self.hosts.items() if number in stored}


def fingerprint(members: SeriesIds) -> bytes:
    """Identifies a set of series, given in order."""
    return hashlib.blake2b(members.tobytes(), digest_size=8).digest()


def pack_aggregates(rows: list[tuple[Level, NDArray[np.float64], int, bytes]]) -> dict[Level, AggregateRow]:
    """Compresses the aggregates of some hosts over one window into a tile.

    Args:
        rows: Of each host, at most TILE_ROWS: level, float64 array of shape (WINDOW_SLOTS,), phase in seconds,
            fingerprint of the members.
    """
    if not rows:
        return {}
    assert len(rows) <= TILE_ROWS, len(rows)
    values = np.stack([values for _, values, _, _ in rows])
    assert values.shape == (len(rows), WINDOW_SLOTS), values.shape
    tile = SealedTile.seal(as_stored(values), np.array([phase for _, _, phase, _ in rows], np.int32))
    return {host: AggregateRow(tile, row, members) for row, (host, _, _, members) in enumerate(rows)}
