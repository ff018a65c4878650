"""Pages of sealed tiles that were decompressed lately: dashboards ask for the same windows again and again."""

from collections import OrderedDict
from threading import Lock
from typing import Final, NamedTuple
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.layout import PAGE_ROWS, TILE_ROWS, WINDOW_SLOTS
from ccms_server.store.sealed_tile import SealedTile

CACHED_BYTES_MAX: Final = 8 << 20
"""1,024 pages: those of a job of 16 hosts and ten metrics over two days."""

NO_ROW: Final = -1


class TileRows(NamedTuple):
    """Some rows of a tile. What is opened never changes: readers on other threads may have it."""

    rows: NDArray[np.float64]
    """Of shape (n_rows, WINDOW_SLOTS); NaN marks a missing sample."""
    row_of_lane: NDArray[np.int16]
    """Of shape (TILE_ROWS,): where the row of a lane is; NO_ROW for lanes without samples."""


class _Entry(NamedTuple):
    tile: "ref[SealedTile] | None"
    """Weak: the memory and the file of a tile that was replaced are given up at once."""
    pages: int
    opened: TileRows


NO_ROWS: Final = TileRows(np.empty((0, WINDOW_SLOTS)), np.full(TILE_ROWS, NO_ROW, np.int16))
"""What is open of a tile that does not exist."""

_NOTHING: Final = _Entry(None, 0, NO_ROWS)


class PageCache:
    """Opens pages of sealed tiles, and remembers those that were used last; for any number of threads.

    Attributes:
        n_bytes: Size of the rows that are remembered.
        n_opened: Pages that were decompressed so far.
    """

    def __init__(self, bytes_max: int = CACHED_BYTES_MAX) -> None:
        """Makes an empty cache.

        Args:
            bytes_max: Size of the rows it remembers at most.
        """
        self.n_bytes = 0
        self.n_opened = 0
        self._bytes_max = bytes_max
        self._entries: OrderedDict[int, _Entry] = OrderedDict()  # by identity, the one used last at the end
        self._lock = Lock()

    def n_closed(self, tile: SealedTile, pages: int) -> int:
        """Pages of a tile that would be decompressed if these were opened now; see `open`."""
        tile_known, pages_known, _ = self._entries.get(id(tile), _NOTHING)  # needs no lock: replaced as a whole
        if tile_known is not None and tile_known() is tile:
            pages &= ~pages_known
        return (pages & ((1 << tile.n_pages) - 1)).bit_count() if pages else 0

    def open(self, tile: SealedTile, pages: int) -> TileRows:
        """Opens some pages of a tile.

        Args:
            tile: The tile.
            pages: Which pages: bit k is set for page k. Those the tile does not have hold no samples.

        Returns:
            Their rows, maybe others too; not to be written to.
        """
        pages &= (1 << tile.n_pages) - 1
        with self._lock:
            known = self._entries.get(id(tile))
            if known is not None and known.tile is not None and known.tile() is tile:
                self._entries.move_to_end(id(tile))
            else:
                known = _NOTHING
        missing = pages & ~known.pages
        if not missing:
            return known.opened
        # Not under the lock: another thread may open the same pages meanwhile, which costs time but does no harm.
        entry = _Entry(ref(tile), known.pages | missing, _with_pages(known.opened, tile, missing))
        with self._lock:
            self.n_opened += missing.bit_count()
            self.n_bytes += entry.opened.rows.nbytes - self._entries.pop(id(tile), _NOTHING).opened.rows.nbytes
            self._entries[id(tile)] = entry
            while self.n_bytes > self._bytes_max:
                _, oldest = self._entries.popitem(last=False)
                self.n_bytes -= oldest.opened.rows.nbytes
        return entry.opened


def _with_pages(opened: TileRows, tile: SealedTile, pages: int) -> TileRows:
    """Rows that are open already, and those of some more pages behind them."""
    n_open = len(opened.rows)
    numbers = [page for page in range(tile.n_pages) if pages >> page & 1]
    lanes = [lane for page in numbers for lane in range(PAGE_ROWS * page, min(PAGE_ROWS * (page + 1), tile.n_rows))]
    rows = np.empty((n_open + len(lanes), WINDOW_SLOTS))
    rows[:n_open] = opened.rows
    tile.read_pages(numbers, rows[n_open:])
    row_of_lane = opened.row_of_lane.copy()
    row_of_lane[lanes] = np.arange(n_open, len(rows), dtype=np.int16)
    return TileRows(rows, row_of_lane)
