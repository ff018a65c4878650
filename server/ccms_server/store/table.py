"""One metric's table: its bands of rows, its windows of slots, and the tiles where they cross."""

import hashlib
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.layout import TILE_ROWS, WINDOW_SLOTS
from ccms_server.store.metric import Metric
from ccms_server.store.sealed_tile import SealedTile, as_stored
from ccms_server.store.tree import Level, SeriesIds

AGGREGATED_MEMBERS_MIN: Final = 2 * 4
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


@dataclass(slots=True, eq=False)
class Window:
    """WINDOW_SLOTS slots of all rows of a table."""

    tiles: dict[int, Tile] = field(default_factory=dict)
    """By band; a band without a tile has no samples here."""
    aggregates: dict[Level, AggregateRow] = field(default_factory=dict)
    """By host, in windows without open tiles; a host that is not in it is aggregated when asked for."""
    stale: set[int] = field(default_factory=set)
    """Bands opened again since the aggregates were computed."""

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
        hosts: Hosts that have series of this metric below them, in order of registration.
    """

    def __init__(self, metric: Metric, metric_id: int) -> None:
        self.metric = metric
        self.metric_id = metric_id
        self.bands: list[int] = []
        self.windows: dict[int, Window] = {}
        self.hosts: dict[Level, None] = {}

    def tile(self, window: int, band: int) -> Tile | None:
        """The tile of a band in a window; None when it holds no samples."""
        found = self.windows.get(window)
        return None if found is None else found.tiles.get(band)


def fingerprint(members: SeriesIds) -> bytes:
    """Identifies a set of series, given in order."""
    return hashlib.blake2b(members.tobytes(), digest_size=8).digest()


def pack_aggregates(rows: list[tuple[Level, NDArray[np.float64], int, bytes]]) -> dict[Level, AggregateRow]:
    """Compresses the aggregates of one window.

    Args:
        rows: Of each host: level, float64 array of shape (WINDOW_SLOTS,), phase in seconds, fingerprint of the members.
    """
    packed: dict[Level, AggregateRow] = {}
    for begin in range(0, len(rows), TILE_ROWS):
        block = rows[begin : begin + TILE_ROWS]
        values = np.stack([values for _, values, _, _ in block])
        assert values.shape == (len(block), WINDOW_SLOTS), values.shape
        tile = SealedTile.seal(as_stored(values), np.array([phase for _, _, phase, _ in block], np.int32))
        for row, (host, _, _, members) in enumerate(block):
            packed[host] = AggregateRow(tile, row, members)
    return packed
