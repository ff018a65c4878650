"""What is known of each series, column by column, and where kernels find its open tiles.

Series ids and band numbers are positions in these arrays. They grow by doubling: a grown array is a copy, so a reader
that took the old one keeps a consistent, slightly older view.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_server.jit import kernel
from ccms_server.store.layout import PHASE_UNSET, SLOT_MAX, SLOT_MIN, TILE_ROWS

DIRECTORY_WINDOWS: Final = 8
"""Open windows of a band that kernels find by themselves: a direct-mapped cache by window number."""


class SeriesColumns(NamedTuple):
    """What kernels see of the series: arrays of shape (capacity,), one entry for each series.

    Slot k of a series is centred on `phase + k * interval`.
    """

    band: NDArray[np.int32]
    """The band its row lies in; -1 for an id without a series."""
    lane: NDArray[np.uint8]
    """Its row within the band."""
    phase: NDArray[np.int32]
    """Seconds, at most an interval from 0; PHASE_UNSET before the first sample."""
    deviation: NDArray[np.int32]
    """Seconds by which the latest sample was off its slot's centre."""
    rephased: NDArray[np.bool_]
    """Whether windows differ in their phase."""
    first_slot: NDArray[np.int64]
    """Slot of the earliest sample; SLOT_MAX without samples."""
    last_slot: NDArray[np.int64]
    """Slot of the latest sample; SLOT_MIN without samples."""
    floor_slot: NDArray[np.int64]
    """Slots below it were freed and do not exist; SLOT_MIN when nothing was."""


class SeriesArrays:
    """The series that are registered.

    Attributes:
        count: How many.
        columns: What is known of each.
    """

    def __init__(self) -> None:
        self.count = 0
        self.columns = SeriesColumns(
            band=np.zeros(1024, np.int32),
            lane=np.zeros(1024, np.uint8),
            phase=np.full(1024, PHASE_UNSET, np.int32),
            deviation=np.zeros(1024, np.int32),
            rephased=np.zeros(1024, np.bool_),
            first_slot=np.full(1024, SLOT_MAX, np.int64),
            last_slot=np.full(1024, SLOT_MIN, np.int64),
            floor_slot=np.full(1024, SLOT_MIN, np.int64),
        )
        self._new_row = SeriesColumns(*(column[0] for column in self.columns))

    def add(self, band: int, lane: int) -> int:
        """Registers a series at a row.

        Returns:
            Its id.
        """
        series = self.count
        self.reserve(1)
        self.columns.band[series] = band
        self.columns.lane[series] = lane
        self.count += 1
        return series

    def extend(self, bands: NDArray[np.int32], lanes: NDArray[np.uint8]) -> int:
        """Registers series at rows.

        Returns:
            The id of the first one; the others follow.
        """
        first, end = self.count, self.count + len(bands)
        self.reserve(len(bands))
        self.columns.band[first:end] = bands
        self.columns.lane[first:end] = lanes
        self.count = end
        return first

    def reserve(self, n_series: int) -> None:
        """Makes room for more series."""
        while self.count + n_series > len(self.columns.band):
            self.columns = SeriesColumns(*_doubled(self.columns, self._new_row))

    def add_lost(self) -> None:
        """Gives away the id of a series that nothing is known of: it has no row, band -1."""
        self.add(-1, 0)

    def has_samples(self, series: int) -> bool:
        """Whether a series holds any sample that was not freed."""
        columns = self.columns
        last = columns.last_slot[series]
        return bool(last >= columns.first_slot[series] and last >= columns.floor_slot[series])


class BandColumns(NamedTuple):
    """What kernels see of the bands of all tables: arrays with one entry for each band."""

    interval: NDArray[np.int64]
    """Seconds, that of the band's metric."""
    metric: NDArray[np.int32]
    """Id of the band's metric."""
    rows: NDArray[np.int32]
    """Series registered in the band."""
    series: NDArray[np.int32]
    """Of shape (capacity, TILE_ROWS): the series of each row, -1 for unused rows."""
    open_window: NDArray[np.int64]
    """Of shape (capacity, DIRECTORY_WINDOWS): windows whose tile is open, SLOT_MIN for none."""
    open_tile: NDArray[np.int32]
    """Of the same shape: number of that tile in the pool."""


class Bands:
    """The bands of all tables.

    Attributes:
        count: How many.
        columns: What is known of each.
    """

    def __init__(self) -> None:
        self.count = 0
        self.columns = BandColumns(
            interval=np.ones(64, np.int64),
            metric=np.zeros(64, np.int32),
            rows=np.zeros(64, np.int32),
            series=np.full((64, TILE_ROWS), -1, np.int32),
            open_window=np.full((64, DIRECTORY_WINDOWS), SLOT_MIN, np.int64),
            open_tile=np.full((64, DIRECTORY_WINDOWS), -1, np.int32),
        )
        self._new_row = BandColumns(*(column[0].copy() for column in self.columns))

    def add(self, metric: int, interval: int) -> int:
        """Registers an empty band of a metric.

        Returns:
            Its number.
        """
        band = self.count
        self.reserve(1)
        self.columns.interval[band] = interval
        self.columns.metric[band] = metric
        self.count += 1
        return band

    def reserve(self, n_bands: int) -> None:
        """Makes room for more bands."""
        while self.count + n_bands > len(self.columns.interval):
            self.columns = BandColumns(*_doubled(self.columns, self._new_row))

    def point_to(self, band: int, window: int, tile: int) -> None:
        """Lets kernels find an open tile."""
        entry = window % DIRECTORY_WINDOWS
        self.columns.open_window[band, entry] = window
        self.columns.open_tile[band, entry] = tile

    def forget(self, band: int, window: int) -> None:
        """Kernels no longer find a tile that is about to be closed."""
        entry = window % DIRECTORY_WINDOWS
        if self.columns.open_window[band, entry] == window:
            self.columns.open_window[band, entry] = SLOT_MIN


@kernel
def take_rows(
    metric_ids: NDArray[np.int32],
    first_series: int,
    last_bands: NDArray[np.int32],
    n_bands: int,
    columns: BandColumns,
    bands: NDArray[np.int32],
    lanes: NDArray[np.uint8],
) -> int:
    """Gives rows to new series: the next ones of their metrics' last bands, or of new bands.

    Args:
        metric_ids: int32 array of shape (n_series,).
        first_series: Id of the first series; the others follow.
        last_bands: int32 array of shape (n_metrics,): the last band of each metric, -1 if it has none; written to.
        n_bands: Number of bands; there is room for all that may be needed.
        columns: What is known of each band; `metric`, `rows` and `series` are brought up to date.
        bands: int32 array of shape (n_series,), to be filled.
        lanes: uint8 array of shape (n_series,), to be filled.

    Returns:
        Number of bands from now on.
    """
    for i in range(len(metric_ids)):
        metric = metric_ids[i]
        band = last_bands[metric]
        if band < 0 or columns.rows[band] == TILE_ROWS:
            band = last_bands[metric] = n_bands
            columns.metric[band] = metric
            n_bands += 1
        lane = columns.rows[band]
        bands[i], lanes[i] = band, lane
        columns.series[band, lane] = first_series + i
        columns.rows[band] = lane + 1
    return n_bands


def _doubled(columns: Iterable[NDArray[Any]], new_row: Iterable[Any]) -> Iterator[NDArray[Any]]:
    """Each column with twice as many rows, the added ones like `new_row`."""
    for column, new in zip(columns, new_row, strict=True):
        grown = np.empty((2 * len(column), *column.shape[1:]), column.dtype)
        grown[: len(column)] = column
        grown[len(column) :] = new
        yield grown
