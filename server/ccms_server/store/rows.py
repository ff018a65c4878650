"""Kernels that make values of the rows of a tile: copied, or added up, for many spans in one call.

A *run* is a number of members that follow each other in a span and whose rows lie in the same band. What kernels work
on are rows of tables, with these columns:
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.jit import kernel
from ccms_server.store.layout import MISSING_BITS, PAGE_ROWS, WINDOW_BITS, WINDOW_SLOTS
from ccms_server.store.span import IS_ALIGNED, N_MEMBERS, N_SLOTS
from ccms_server.store.tree import SeriesIds

FIRST_SLOT, END_SLOT, OFFSET, PLACE_COLUMNS = range(4)
"""Of the place of a span: slots of all its members, END_SLOT exclusive, and where its values begin. And the number of
columns."""

SPAN, RANK, BAND, FIRST, LAST, PAGES, IS_COPIED, RUN_COLUMNS = range(8)
"""Of a run: its span, its number among the runs of that, its band, its members (LAST exclusive), the pages that hold
their rows, as bits, and whether there is nothing to add them to: they are copied then, bit by bit."""

FIRST_RUN, LAST_RUN, GROUP_BAND, GROUP_RANK, GROUP_SPAN, GROUP_PAGES, FIRST_WINDOW, LAST_WINDOW, GROUP_COLUMNS = range(
    9
)
"""Of a group of runs of the same rank in the same band: which runs (LAST_RUN exclusive), their band and rank, the span
of the first one, the pages of them all, and the windows their spans lie in (LAST_WINDOW inclusive)."""

JOB_FIRST_RUN, JOB_LAST_RUN, JOB_TILE = range(3)
"""Of a job: runs (JOB_LAST_RUN exclusive) and the open tile that holds their rows; -1: there are no samples."""

Table = NDArray[np.int64]
"""int64 array of shape (n, number of columns)."""

_BLOCK_SLOTS: Final = 64
"""Slots of an open tile that are added up at a time. The samples of a row lie so far apart that those of more slots do
not stay in the processor's first cache until the row beside it is read."""


@kernel
def find_runs(
    spans: Table,
    edges: NDArray[np.int64],
    members: SeriesIds,
    first_slots: NDArray[np.int64],
    offsets: NDArray[np.int64],
    band_of_series: NDArray[np.int32],
    lane_of_series: NDArray[np.uint8],
    places: Table,
    runs: Table,
    lanes: NDArray[np.uint8],
) -> int:
    """Cuts the members of aligned spans into runs; spans that are not, or have no slots, have none.

    Args:
        spans: See `Spans.table`.
        edges: See `Spans`.
        members: See `Spans`.
        first_slots: See `Spans`.
        offsets: int64 array of shape (n_spans,): where the values of each span begin.
        band_of_series: See `SeriesColumns`.
        lane_of_series: See `SeriesColumns`.
        places: Table with a row for each span, which are written.
        runs: Table with room for as many runs as there are members, which are written there.
        lanes: uint8 array; the lane of member i is written to place `i - edges[0]`, as FIRST and LAST count.

    Returns:
        Number of runs.
    """
    n_runs = 0
    for span in range(len(spans)):
        first, n_members, n_slots = edges[span], spans[span, N_MEMBERS], spans[span, N_SLOTS]
        place = places[span]
        place[OFFSET] = offsets[span]
        if not n_members or not n_slots or not spans[span, IS_ALIGNED]:
            place[FIRST_SLOT], place[END_SLOT] = 0, 0
            continue
        place[FIRST_SLOT], place[END_SLOT] = first_slots[first], first_slots[first] + n_slots
        rank = -1
        for i in range(first, first + n_members):
            band, lane, member = band_of_series[members[i]], lane_of_series[members[i]], i - edges[0]
            lanes[member] = lane
            if rank < 0 or runs[n_runs - 1, BAND] != band:
                rank += 1
                run = runs[n_runs]
                run[SPAN], run[RANK], run[BAND], run[FIRST], run[PAGES] = span, rank, band, member, 0
                run[IS_COPIED] = n_members == 1
                n_runs += 1
            run = runs[n_runs - 1]
            run[LAST] = member + 1
            run[PAGES] |= 1 << (lane // PAGE_ROWS)
    return n_runs


@kernel
def group_runs(runs: Table, places: Table, groups: Table, ranges: Table) -> tuple[int, int]:
    """Finds runs of the same rank in the same band.

    Args:
        runs: Sorted by rank, then by band.
        places: Of all spans.
        groups: Table with room for as many groups as there are runs, which are written there.
        ranges: Table with as many rows and 2 columns: the first and the last window of each run are written there, once
            if that of the run before has the same.

    Returns:
        Number of groups, and of ranges.
    """
    n_groups, n_ranges = 0, 0
    for number in range(len(runs)):
        run = runs[number]
        first = places[run[SPAN], FIRST_SLOT] >> WINDOW_BITS
        last = (places[run[SPAN], END_SLOT] - 1) >> WINDOW_BITS
        if n_ranges == 0 or ranges[n_ranges - 1, 0] != first or ranges[n_ranges - 1, 1] != last:
            ranges[n_ranges, 0], ranges[n_ranges, 1] = first, last
            n_ranges += 1
        group = groups[max(n_groups - 1, 0)]
        if n_groups == 0 or group[GROUP_BAND] != run[BAND] or group[GROUP_RANK] != run[RANK]:
            group = groups[n_groups]
            group[FIRST_RUN], group[GROUP_BAND], group[GROUP_RANK] = number, run[BAND], run[RANK]
            group[GROUP_SPAN], group[GROUP_PAGES], group[FIRST_WINDOW], group[LAST_WINDOW] = run[SPAN], 0, first, last
            n_groups += 1
        group[LAST_RUN] = number + 1
        group[GROUP_PAGES] |= run[PAGES]
        group[FIRST_WINDOW] = min(group[FIRST_WINDOW], first)
        group[LAST_WINDOW] = max(group[LAST_WINDOW], last)
    return n_groups, n_ranges


@kernel
def add_open(
    tiles: NDArray[np.uint64],
    jobs: Table,
    window: int,
    runs: Table,
    lanes: NDArray[np.uint8],
    places: Table,
    done: NDArray[np.bool_],
    values: NDArray[np.float64],
) -> None:
    """Adds up rows of open tiles, member after member; the first one of a span is put there.

    Args:
        tiles: See `TileColumns.values`.
        jobs: What to add up: runs of rank 0.
        window: Number of the tiles' window.
        runs: The runs.
        lanes: uint8 array: the lane of each member.
        places: Where the spans are.
        done: bool array of shape (n_spans,): spans that are left out.
        values: float64 array, those of all spans.
    """
    for job in jobs:
        for number in range(job[JOB_FIRST_RUN], job[JOB_LAST_RUN]):
            run = runs[number]
            if done[run[SPAN]]:
                continue
            place = places[run[SPAN]]
            begin = max(place[FIRST_SLOT], window << WINDOW_BITS)
            end = min(place[END_SLOT], (window + 1) << WINDOW_BITS)
            if begin >= end:
                continue
            to = place[OFFSET] + begin - place[FIRST_SLOT]
            begin, n_slots = begin & (WINDOW_SLOTS - 1), end - begin
            if job[JOB_TILE] < 0:
                values[to : to + n_slots] = np.nan
                continue
            tile = tiles[job[JOB_TILE]]
            for low in range(0, n_slots, _BLOCK_SLOTS):
                high = min(low + _BLOCK_SLOTS, n_slots)
                for member in range(run[FIRST], run[LAST]):
                    lane = lanes[member]
                    if member > run[FIRST]:
                        for slot in range(low, high):
                            values[to + slot] += _sample(tile[begin + slot, lane])
                    elif run[IS_COPIED]:
                        for slot in range(low, high):
                            values[to + slot] = _sample(tile[begin + slot, lane])
                    else:
                        for slot in range(low, high):
                            # -0.0 becomes 0.0, as in any sum.
                            values[to + slot] = 0.0 + _sample(tile[begin + slot, lane])


@kernel
def _sample(stored: np.uint64) -> np.float64:
    """A sample of an open tile; NaN where there is none."""
    return np.uint64(stored ^ MISSING_BITS).view(np.float64)


@kernel
def add_rows(
    rows: NDArray[np.float64],
    row_of_lane: NDArray[np.int16],
    window: int,
    runs: Table,
    lanes: NDArray[np.uint8],
    places: Table,
    done: NDArray[np.bool_],
    values: NDArray[np.float64],
) -> None:
    """Adds the rows of a tile to the values of spans, run after run, member after member; the first one is put there.

    Args:
        rows: float64 array of shape (n_rows, WINDOW_SLOTS), NaN where no sample is.
        row_of_lane: int16 array, see `TileRows`; lanes without a row make everything NaN.
        window: Number of the tile's window.
        runs: What to add up.
        lanes: uint8 array: the lane of each member.
        places: Where the spans are.
        done: bool array of shape (n_spans,): spans that are left out.
        values: float64 array, those of all spans.
    """
    for run in runs:
        if done[run[SPAN]]:
            continue
        place = places[run[SPAN]]
        begin = max(place[FIRST_SLOT], window << WINDOW_BITS)
        end = min(place[END_SLOT], (window + 1) << WINDOW_BITS)
        if begin >= end:
            continue
        to = place[OFFSET] + begin - place[FIRST_SLOT]
        begin, n_slots = begin & (WINDOW_SLOTS - 1), end - begin
        for member in range(run[FIRST], run[LAST]):
            row = row_of_lane[lanes[member]]
            if row < 0:
                values[to : to + n_slots] = np.nan
            elif run[IS_COPIED]:
                for slot in range(n_slots):
                    values[to + slot] = rows[row, begin + slot]
            elif run[RANK] == 0 and member == run[FIRST]:
                for slot in range(n_slots):
                    values[to + slot] = 0.0 + rows[row, begin + slot]  # -0.0 becomes 0.0, as in any sum
            else:
                for slot in range(n_slots):
                    values[to + slot] += rows[row, begin + slot]


@kernel
def copy_open(
    tiles: NDArray[np.uint64],
    tile: int,
    runs: Table,
    lanes: NDArray[np.uint8],
    rows: NDArray[np.float64],
    row_of_lane: NDArray[np.int16],
) -> None:
    """Copies rows of an open tile.

    Args:
        tiles: See `TileColumns.values`.
        tile: Number of the tile.
        runs: Which rows: those of their members.
        lanes: uint8 array: the lane of each member.
        rows: float64 array of shape (number of members, WINDOW_SLOTS), which is written.
        row_of_lane: int16 array of shape (TILE_ROWS,); where the row of each lane is, is written there.
    """
    bits = rows.view(np.uint64)
    row = 0
    for run in runs:
        for member in range(run[FIRST], run[LAST]):
            lane = lanes[member]
            row_of_lane[lane] = row
            for slot in range(WINDOW_SLOTS):
                bits[row, slot] = tiles[tile, slot, lane] ^ MISSING_BITS
            row += 1
