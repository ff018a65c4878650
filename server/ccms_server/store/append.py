"""The kernels that take decoded samples into open tiles, in two steps.

`place_samples` decides which samples are taken, and into which slot each of them goes; `put_samples` writes them there.
What lies between them is the caller's: a placement can be made durable before any reader sees its samples. Putting a
placement again, after all that came before it, leads to the same tiles, so that is also how a log is replayed.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

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

# Places in `progress`, which tells how far a kernel came.
NEXT: Final = 0
"""The sample it stopped at; the number of samples when it is done."""
PLACED: Final = 1
"""Samples placed so far."""
BAND: Final = 2
WINDOW: Final = 3
"""The tile that must be opened before it goes on."""
APPEARED: Final = 4
"""1 once a series without samples got one."""
PROGRESS_LENGTH: Final = 5

_NO_TILE: Final = -1


class Placement(NamedTuple):
    """Samples with their places: arrays of shape (n_samples,), in order; the last sample of a slot counts."""

    series: NDArray[np.int32]
    """Ids."""
    slots: NDArray[np.int64]
    phases: NDArray[np.int32]
    """Seconds: phase of the series in the window of the slot."""
    values: NDArray[np.float64]
    """Finite."""

    @classmethod
    def joined(cls, placements: Sequence["Placement"]) -> "Placement":
        """The samples of some placements, one after another."""
        if not placements:
            return cls(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0))
        return cls(*map(np.concatenate, zip(*placements, strict=True)))

    def some(self, chosen: NDArray[np.bool_] | slice) -> "Placement":
        """Some of the samples, by a bool array of shape (n_samples,) or a slice."""
        return Placement(self.series[chosen], self.slots[chosen], self.phases[chosen], self.values[chosen])


@kernel
def place_samples(
    series: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    oldest: int,
    newest: int,
    rows: SeriesColumns,
    bands: BandColumns,
    tiles: TileColumns,
    outcome: NDArray[np.uint8],
    placed: Placement,
    progress: NDArray[np.int64],
) -> None:
    """Finds the places of samples in order, until one needs a tile that is not open.

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
        rows: What is known of each series.
        bands: What is known of each band.
        tiles: The pool.
        outcome: uint8 array of shape (n_samples,): STORED, NO_SAMPLE or a RejectReason is written for each.
        placed: Room for n_samples; those that are taken are written, without gaps.
        progress: int64 array of shape (PROGRESS_LENGTH,), read and written.
    """
    n_placed = progress[PLACED]
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
            slot, phase = _slot(timestamp, tile_phase, interval), tile_phase
            if slot >> WINDOW_BITS != window:
                beside = _open_tile(bands, band, slot, progress)
                if beside == _NO_TILE:
                    return
                beside_phase = int(tiles.phases[beside, lane])
                if beside_phase == PHASE_UNSET:
                    beside_phase = int(rows.phase[row])
                beside_slot = _slot(timestamp, beside_phase, interval)
                if beside_slot >> WINDOW_BITS == slot >> WINDOW_BITS:
                    slot, phase = beside_slot, beside_phase
                    tiles.phases[beside, lane] = phase
                else:  # it lies between the two
                    slot = _within_window(slot, window)
        rows.deviation[row] = timestamp - (phase + slot * interval)
        placed.series[n_placed] = row
        placed.slots[n_placed] = slot
        placed.phases[n_placed] = phase
        placed.values[n_placed] = value
        n_placed += 1
        progress[PLACED] = n_placed
        outcome[i] = STORED
    progress[NEXT] = len(series)


@kernel
def put_samples(
    placed: Placement,
    is_in_tiles: bool,
    takes_phases: bool,
    clock: int,
    rows: SeriesColumns,
    bands: BandColumns,
    tiles: TileColumns,
    progress: NDArray[np.int64],
) -> None:
    """Writes placed samples in order, until one needs a tile that is not open.

    Args:
        placed: The samples.
        is_in_tiles: Only let the series know of the samples: their tiles hold them already.
        takes_phases: Whether the phase of a window that begins is that of its series from now on.
        clock: The store's sample counter, kept as the time of the tiles' last write.
        rows: What is known of each series.
        bands: What is known of each band.
        tiles: The pool.
        progress: int64 array of shape (PROGRESS_LENGTH,), read and written.
    """
    # One function without calls that take `rows`: each would count references to all its arrays.
    bits = placed.values.view(np.uint64)
    for i in range(progress[NEXT], len(bits)):
        row, slot, phase = placed.series[i], placed.slots[i], placed.phases[i]
        is_new_in_window = is_in_tiles
        if not is_in_tiles:
            band, lane = rows.band[row], rows.lane[row]
            tile = _open_tile(bands, band, slot, progress)
            if tile == _NO_TILE:
                progress[NEXT] = i
                return
            is_new_in_window = tiles.phases[tile, lane] == PHASE_UNSET
            if is_new_in_window:  # set when the sample was placed, unless this is a replay
                tiles.phases[tile, lane] = phase
            column = slot & (WINDOW_SLOTS - 1)
            if tiles.values[tile, column, lane] == 0:
                tiles.samples[tile] += 1
            tiles.values[tile, column, lane] = bits[i] ^ MISSING_BITS
            tiles.touched[tile] = clock
        if is_new_in_window and (takes_phases or rows.phase[row] == PHASE_UNSET):
            if rows.phase[row] != PHASE_UNSET and rows.phase[row] != phase:
                rows.rephased[row] = True
            if not is_in_tiles or slot > rows.last_slot[row]:  # a late one does not tell the phase of now
                rows.phase[row] = phase
        if slot < rows.floor_slot[row]:  # freed since it was placed, as can be when a log is replayed
            continue
        if slot > rows.last_slot[row]:
            if rows.last_slot[row] == SLOT_MIN:
                progress[APPEARED] = 1
            elif rows.last_slot[row] < rows.floor_slot[row]:  # all of it was freed
                progress[APPEARED] = 1
                rows.first_slot[row] = slot
            rows.last_slot[row] = slot
        if slot < rows.first_slot[row]:  # SLOT_MAX before the first sample
            rows.first_slot[row] = slot
    progress[NEXT] = len(bits)


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
