"""Memory of the open tiles.

All open tiles live in one array that is reserved once and backed by memory only where it has been written. Kernels
address a tile by its number; closing a tile gives its pages back to the system. A tile is laid out slot by slot, so the
samples of one time step of a host's threads lie side by side, and a window that is half over takes half the memory.
"""

import mmap
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.layout import PHASE_UNSET, TILE_ROWS, WINDOW_SLOTS

TILE_BYTES: Final = TILE_ROWS * WINDOW_SLOTS * 8

MAP_NORESERVE: Final = 0x4000
"""Linux: do not count the reservation against the memory that may be committed. (Not in Python's mmap before 3.13.)"""


class TileColumns(NamedTuple):
    """What kernels see of the pool: arrays with one entry for each tile."""

    values: NDArray[np.uint64]
    """Of shape (capacity, WINDOW_SLOTS, TILE_ROWS): bits of the samples ^ MISSING_BITS."""
    phases: NDArray[np.int32]
    """Of shape (capacity, TILE_ROWS), seconds; PHASE_UNSET where a row has no sample."""
    samples: NDArray[np.int32]
    """Samples in the tile."""
    touched: NDArray[np.int64]
    """Value of the store's sample counter at the last write."""


class TilePool:
    """A fixed number of tiles, handed out and taken back.

    Attributes:
        capacity: Tiles that can be open at the same time.
        columns: The tiles.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.capacity = max(16, memory_bytes // TILE_BYTES)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self._memory = mmap.mmap(-1, self.capacity * TILE_BYTES, flags=flags)
        # Huge pages would back slots long before they are written.
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        values = np.frombuffer(self._memory, np.uint64)
        self.columns = TileColumns(
            values=values.reshape(self.capacity, WINDOW_SLOTS, TILE_ROWS),
            phases=np.zeros((self.capacity, TILE_ROWS), np.int32),
            samples=np.zeros(self.capacity, np.int32),
            touched=np.zeros(self.capacity, np.int64),
        )
        self._unused = 0  # tiles from here on were never handed out
        self._returned: list[int] = []

    @property
    def open_tiles(self) -> int:
        """Tiles handed out."""
        return self._unused - len(self._returned)

    @property
    def full(self) -> bool:
        """Whether a tile must be closed before the next one can be opened."""
        return self.open_tiles == self.capacity

    def take(self) -> int:
        """Hands out an empty tile.

        Returns:
            Its number.

        Raises:
            MemoryError: All tiles are open; close one first.
        """
        if self._returned:
            tile = self._returned.pop()
        elif self._unused < self.capacity:
            tile = self._unused
            self._unused += 1
        else:
            raise MemoryError(f"all {self.capacity} tiles are open")
        self.columns.phases[tile] = PHASE_UNSET
        self.columns.samples[tile] = 0
        return tile

    def give_back(self, tile: int) -> None:
        """Takes a tile back: its samples are gone, and its memory is the system's again."""
        self._memory.madvise(mmap.MADV_DONTNEED, tile * TILE_BYTES, TILE_BYTES)
        self._returned.append(tile)
