"""What is known of each series, column by column, and where kernels find its open tiles.

Series ids and band numbers are positions in these arrays. They grow by doubling: a grown array is a copy, so a reader
that took the old one keeps a consistent, slightly older view.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.layout import PHASE_UNSET, SLOT_MAX, SLOT_MIN, TILE_ROWS

DIRECTORY_WINDOWS: Final = 8
"""Open windows of a band that kernels find by themselves: a direct-mapped cache by window number."""


class SeriesArrays:
    """Columns with one entry for each series.

    Attributes:
        count: Series registered.
        band: int32, the band its row lies in.
        lane: uint8, its row within the band.
        phase: int32, seconds: slot k is centred on `phase + k * interval`; PHASE_UNSET before the first sample.
        deviation: int32, seconds by which the latest sample was off its slot's centre.
        rephased: bool, whether older windows have another phase.
        first_slot: int64, slot of the earliest sample; SLOT_MAX without samples.
        last_slot: int64, slot of the latest sample; SLOT_MIN without samples.
        floor_slot: int64, slots below it were freed and do not exist; SLOT_MIN when nothing was.
    """

    def __init__(self) -> None:
        self.count = 0
        self.band = np.zeros(1024, np.int32)
        self.lane = np.zeros(1024, np.uint8)
        self.phase = np.full(1024, PHASE_UNSET, np.int32)
        self.deviation = np.zeros(1024, np.int32)
        self.rephased = np.zeros(1024, np.bool_)
        self.first_slot = np.full(1024, SLOT_MAX, np.int64)
        self.last_slot = np.full(1024, SLOT_MIN, np.int64)
        self.floor_slot = np.full(1024, SLOT_MIN, np.int64)

    def add(self, band: int, lane: int) -> int:
        """Registers a series at a row.

        Returns:
            Its id.
        """
        series = self.count
        if series == len(self.band):
            self.band = _doubled(self.band, 0)
            self.lane = _doubled(self.lane, 0)
            self.phase = _doubled(self.phase, PHASE_UNSET)
            self.deviation = _doubled(self.deviation, 0)
            self.rephased = _doubled(self.rephased, False)
            self.first_slot = _doubled(self.first_slot, SLOT_MAX)
            self.last_slot = _doubled(self.last_slot, SLOT_MIN)
            self.floor_slot = _doubled(self.floor_slot, SLOT_MIN)
        self.band[series] = band
        self.lane[series] = lane
        self.count += 1
        return series

    def has_samples(self, series: int) -> bool:
        """Whether a series holds any sample that was not freed."""
        last = self.last_slot[series]
        return bool(last >= self.first_slot[series] and last >= self.floor_slot[series])


class Bands:
    """Columns with one entry for each band of any table.

    Attributes:
        count: Bands registered.
        interval: int64, seconds, that of the band's metric.
        metric: int32, id of the band's metric.
        rows: int32, series registered in the band.
        series: int32 array of shape (capacity, TILE_ROWS): the series of each row, -1 for unused rows.
        open_window: int64 array of shape (capacity, DIRECTORY_WINDOWS): windows whose tile is open, SLOT_MIN for none.
        open_tile: int32 array of the same shape: number of that tile in the pool.
    """

    def __init__(self) -> None:
        self.count = 0
        self.interval = np.ones(64, np.int64)
        self.metric = np.zeros(64, np.int32)
        self.rows = np.zeros(64, np.int32)
        self.series = np.full((64, TILE_ROWS), -1, np.int32)
        self.open_window = np.full((64, DIRECTORY_WINDOWS), SLOT_MIN, np.int64)
        self.open_tile = np.full((64, DIRECTORY_WINDOWS), -1, np.int32)

    def add(self, metric: int, interval: int) -> int:
        """Registers an empty band of a metric.

        Returns:
            Its number.
        """
        band = self.count
        if band == len(self.interval):
            self.interval = _doubled(self.interval, 1)
            self.metric = _doubled(self.metric, 0)
            self.rows = _doubled(self.rows, 0)
            self.series = _doubled(self.series, -1)
            self.open_window = _doubled(self.open_window, SLOT_MIN)
            self.open_tile = _doubled(self.open_tile, -1)
        self.interval[band] = interval
        self.metric[band] = metric
        self.count += 1
        return band

    def point_to(self, band: int, window: int, tile: int) -> None:
        """Lets kernels find an open tile."""
        entry = window % DIRECTORY_WINDOWS
        self.open_window[band, entry] = window
        self.open_tile[band, entry] = tile

    def forget(self, band: int, window: int) -> None:
        """Kernels no longer find a tile that is about to be closed."""
        entry = window % DIRECTORY_WINDOWS
        if self.open_window[band, entry] == window:
            self.open_window[band, entry] = SLOT_MIN


def _doubled(column: NDArray, fill: int) -> NDArray:  # type: ignore[type-arg]  # any dtype in, the same dtype out
    grown = np.full((2 * len(column), *column.shape[1:]), fill, column.dtype)
    grown[: len(column)] = column
    return grown
