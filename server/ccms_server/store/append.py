"""The kernel that puts decoded samples into open tiles."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.errors import RejectReason
from ccms_server.jit import kernel
from ccms_server.store.layout import MISSING_BITS, PHASE_UNSET, SLOT_MIN, WINDOW_BITS, WINDOW_SLOTS
from ccms_server.store.series import DIRECTORY_WINDOWS

STORED: Final = 0
NO_SAMPLE: Final = 255
"""Outcome of a NaN: nothing to store."""

_TOO_OLD: Final = int(RejectReason.TOO_OLD)
_TOO_NEW: Final = int(RejectReason.TOO_NEW)
_FREED: Final = int(RejectReason.FREED)
_INVALID_NUMBER: Final = int(RejectReason.INVALID_NUMBER)

ALL_DONE: Final = 0
TILE_CLOSED: Final = 1


@kernel
def append_samples(  # noqa: D417  the arrays of three classes are described there
    begin: int,
    series: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    oldest: int,
    newest: int,
    clock: int,
    band_of: NDArray[np.int32],
    lane_of: NDArray[np.uint8],
    phase_of: NDArray[np.int32],
    deviation_of: NDArray[np.int32],
    rephased: NDArray[np.bool_],
    first_slot: NDArray[np.int64],
    last_slot: NDArray[np.int64],
    floor_slot: NDArray[np.int64],
    interval_of: NDArray[np.int64],
    open_window: NDArray[np.int64],
    open_tile: NDArray[np.int32],
    tile_values: NDArray[np.uint64],
    tile_phases: NDArray[np.int32],
    tile_samples: NDArray[np.int32],
    tile_touched: NDArray[np.int64],
    outcome: NDArray[np.uint8],
    stop: NDArray[np.int64],
) -> int:
    """Stores samples in order, until one needs a tile that is not open.

    A sample belongs to the slot whose centre is nearest, under the phase of its series. When a row gets its first
    sample in a window, and this one and the one before it are both more than a quarter of an interval off by about as
    much, the collector was restarted: the phase is fixed anew, by half an interval at most, so slot numbers go on.

    Args:
        begin: Sample to start with.
        series: int32 array of shape (n_samples,), ids.
        timestamps: int64 array of shape (n_samples,), seconds.
        values: float64 array of shape (n_samples,); NaN is no sample.
        oldest: Samples before this time are rejected, seconds.
        newest: Samples after this time are rejected, seconds.
        clock: The store's sample counter, kept as the time of the tiles' last write.
        band_of, lane_of, phase_of, deviation_of, rephased, first_slot, last_slot, floor_slot: see `SeriesArrays`.
        interval_of, open_window, open_tile: see `Bands`.
        tile_values, tile_phases, tile_samples, tile_touched: see `TilePool`.
        outcome: uint8 array of shape (n_samples,): STORED, NO_SAMPLE or a RejectReason is written for each.
        stop: int64 array of shape (5,), written: ALL_DONE or TILE_CLOSED; the sample it stopped at; the band and the
            window that must be opened before going on; 1 if any series without samples got one.

    Returns:
        Number of samples stored by this call.
    """
    stored = 0
    stop[0] = ALL_DONE
    values_as_bits = values.view(np.uint64)
    for i in range(begin, len(series)):
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
        band = band_of[row]
        interval = interval_of[band]
        half = interval >> 1
        phase = np.int64(phase_of[row])
        if phase == PHASE_UNSET:
            phase = timestamp % interval
        slot = (timestamp - phase + half) // interval
        if slot < floor_slot[row]:
            outcome[i] = _FREED
            continue
        window = slot >> WINDOW_BITS
        entry = window & (DIRECTORY_WINDOWS - 1)
        if open_window[band, entry] != window:
            stop[0], stop[1], stop[2], stop[3] = TILE_CLOSED, i, band, window
            return stored
        tile = open_tile[band, entry]
        lane = lane_of[row]
        deviation = timestamp - (phase + slot * interval)
        tile_phase = np.int64(tile_phases[tile, lane])
        if tile_phase == PHASE_UNSET:
            previous = np.int64(deviation_of[row])
            apart = abs(deviation - previous)
            apart = min(apart, interval - apart)  # just before and just after a slot's border are close
            if abs(deviation) * 4 > interval and abs(previous) * 4 > interval and apart * 4 <= interval:
                phase += deviation
                deviation = 0
                rephased[row] = True
            tile_phases[tile, lane] = phase
            phase_of[row] = phase
        elif tile_phase != phase:
            # Another window of the series set another phase. At the seam the slot may lie just outside this window.
            slot = (timestamp - tile_phase + half) // interval
            slot = min(max(slot, window << WINDOW_BITS), (window << WINDOW_BITS) + WINDOW_SLOTS - 1)
        deviation_of[row] = deviation
        column = slot & (WINDOW_SLOTS - 1)
        if tile_values[tile, column, lane] == 0:
            tile_samples[tile] += 1
        tile_values[tile, column, lane] = values_as_bits[i] ^ MISSING_BITS
        tile_touched[tile] = clock
        if slot > last_slot[row]:
            if last_slot[row] == SLOT_MIN or last_slot[row] < floor_slot[row]:
                stop[4] = 1
            last_slot[row] = slot
        if slot < first_slot[row]:  # SLOT_MAX before the first sample
            first_slot[row] = slot
        outcome[i] = STORED
        stored += 1
    return stored
