"""The kernel that puts decoded samples into open tiles."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.errors import RejectReason
from ccms_server.jit import kernel
from ccms_server.store.layout import MISSING_BITS, PHASE_UNSET, SLOT_MIN, WINDOW_BITS, WINDOW_SLOTS
from ccms_server.store.series import DIRECTORY_WINDOWS, BandColumns, SeriesColumns
from ccms_server.store.tile_pool import TileColumns

STORED: Final = 0
NO_SAMPLE: Final = 255
"""Outcome of a NaN: nothing to store."""

_TOO_OLD: Final = int(RejectReason.TOO_OLD)
_TOO_NEW: Final = int(RejectReason.TOO_NEW)
_FREED: Final = int(RejectReason.FREED)
_INVALID_NUMBER: Final = int(RejectReason.INVALID_NUMBER)

# Places in `progress`, which tells how far the kernel came.
NEXT: Final = 0
"""The sample it stopped at; the number of samples when it is done."""
STORED_COUNT: Final = 1
"""Samples stored so far."""
BAND: Final = 2
WINDOW: Final = 3
"""The tile that must be opened before it goes on."""
APPEARED: Final = 4
"""1 once a series without samples got one."""
PROGRESS_LENGTH: Final = 5

_NO_TILE: Final = -1


@kernel
def append_samples(
    series: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    oldest: int,
    newest: int,
    clock: int,
    rows: SeriesColumns,
    bands: BandColumns,
    tiles: TileColumns,
    outcome: NDArray[np.uint8],
    progress: NDArray[np.int64],
) -> None:
    """Stores samples in order, until one needs a tile that is not open.

    A sample belongs to the slot whose centre is nearest, under the phase of its series in that window. When a row gets
    its first sample in a window, and this one and the one before it are both more than a quarter of an interval off by
    about as much, the collector was restarted or drifts, and the phase is fixed anew. It stays within one interval of
    the grid: a collector that drifts further skips a slot, or puts two samples into one.

    Args:
        series: int32 array of shape (n_samples,), ids.
        timestamps: int64 array of shape (n_samples,), seconds.
        values: float64 array of shape (n_samples,); NaN is no sample.
        oldest: Samples before this time are rejected, seconds.
        newest: Samples after this time are rejected, seconds.
        clock: The store's sample counter, kept as the time of the tiles' last write.
        rows: What is known of each series.
        bands: What is known of each band.
        tiles: The pool.
        outcome: uint8 array of shape (n_samples,): STORED, NO_SAMPLE or a RejectReason is written for each.
        progress: int64 array of shape (PROGRESS_LENGTH,), read and written.
    """
    values_as_bits = values.view(np.uint64)
    for i in range(progress[NEXT], len(series)):
        progress[NEXT] = i
        value = values[i]
        if not np.isfinite(value):
            outcome[i] = NO_SAMPLE if np.isnan(value) else _INVALID_NUMBER
            continue
        timestamp = timestamps[i]
        if timestamp < oldest:
            outcome[i] = _TOO_OLD
            continue
        if timestamp > newest:
            outcome[i] = _TOO_NEW
            continue
        row = series[i]
        band, lane = rows.band[row], rows.lane[row]
        interval = bands.interval[band]
        phase = int(rows.phase[row])
        if phase == PHASE_UNSET:
            phase = timestamp % interval
        slot = _slot(timestamp, phase, interval)
        if slot < rows.floor_slot[row]:
            outcome[i] = _FREED
            continue
        tile = _open_tile(bands, band, slot, progress)
        if tile == _NO_TILE:
            return
        tile_phase = int(tiles.phases[tile, lane])
        if tile_phase == PHASE_UNSET:
            phase = _phase_for_new_window(rows, row, timestamp - (phase + slot * interval), phase, interval)
            slot = _within_window(_slot(timestamp, phase, interval), slot >> WINDOW_BITS)
            tiles.phases[tile, lane] = phase
            rows.phase[row] = phase
        elif tile_phase != phase:
            # The window has a phase of its own, under which the sample may belong to the window beside it.
            window = slot >> WINDOW_BITS
            slot = _slot(timestamp, tile_phase, interval)
            if slot >> WINDOW_BITS != window:
                beside = _open_tile(bands, band, slot, progress)
                if beside == _NO_TILE:
                    return
                beside_phase = int(tiles.phases[beside, lane])
                if beside_phase == PHASE_UNSET:
                    beside_phase = phase
                beside_slot = _slot(timestamp, beside_phase, interval)
                if beside_slot >> WINDOW_BITS == slot >> WINDOW_BITS:
                    tile, slot, phase = beside, beside_slot, beside_phase
                    tiles.phases[tile, lane] = phase
                else:  # it lies between the two
                    slot = _within_window(slot, window)
        rows.deviation[row] = timestamp - (int(tiles.phases[tile, lane]) + slot * interval)
        column = slot & (WINDOW_SLOTS - 1)
        if tiles.values[tile, column, lane] == 0:
            tiles.samples[tile] += 1
        tiles.values[tile, column, lane] = values_as_bits[i] ^ MISSING_BITS
        tiles.touched[tile] = clock
        if slot > rows.last_slot[row]:
            if rows.last_slot[row] == SLOT_MIN:
                progress[APPEARED] = 1
            elif rows.last_slot[row] < rows.floor_slot[row]:  # all of it was freed
                progress[APPEARED] = 1
                rows.first_slot[row] = slot
            rows.last_slot[row] = slot
        if slot < rows.first_slot[row]:  # SLOT_MAX before the first sample
            rows.first_slot[row] = slot
        outcome[i] = STORED
        progress[STORED_COUNT] += 1
    progress[NEXT] = len(series)


@kernel
def _slot(timestamp: int, phase: int, interval: int) -> int:
    """The slot whose centre is nearest; the later one of two."""
    return (timestamp - phase + (interval >> 1)) // interval


@kernel
def _within_window(slot: int, window: int) -> int:
    """The slot of a window that is nearest to a slot."""
    first = window << WINDOW_BITS
    return min(max(slot, first), first + WINDOW_SLOTS - 1)


@kernel
def _open_tile(bands: BandColumns, band: int, slot: int, progress: NDArray[np.int64]) -> int:
    """The open tile that holds a slot; _NO_TILE, and a note which one is needed, if it is not open."""
    window = slot >> WINDOW_BITS
    entry = window & (DIRECTORY_WINDOWS - 1)
    if bands.open_window[band, entry] == window:
        return int(bands.open_tile[band, entry])
    progress[BAND], progress[WINDOW] = band, window
    return _NO_TILE


@kernel
def _phase_for_new_window(rows: SeriesColumns, row: int, deviation: int, phase: int, interval: int) -> int:
    """The phase of a row in a window that it has no samples in, when the first one comes."""
    previous = int(rows.deviation[row])
    apart = abs(deviation - previous)
    apart = min(apart, interval - apart)  # just before and just after a slot's border are close
    if abs(deviation) * 4 <= interval or abs(previous) * 4 <= interval or apart * 4 > interval:
        return phase
    rows.rephased[row] = True
    phase += deviation
    if phase > interval:
        return phase - interval
    if phase < -interval:
        return phase + interval
    return phase
