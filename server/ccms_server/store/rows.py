"""Kernels that make values of the rows of a tile: copied, or added up, for many spans in one call.

A *run* is a number of members that follow each other in a span and whose rows lie in the same band. Spans and runs are
rows of tables, with these columns:
"""

import numpy as np
from numpy.typing import NDArray

from ccms_server.jit import kernel
from ccms_server.store.layout import MISSING_BITS, PAGE_ROWS, WINDOW_BITS, WINDOW_SLOTS
from ccms_server.store.tree import SeriesIds

FIRST_SLOT, END_SLOT, OFFSET = range(3)
"""Of a span: slots of all its members, END_SLOT exclusive, and where its values begin."""

SPAN, RANK, BAND, FIRST, LAST, PAGES, IS_COPIED, RUN_COLUMNS = range(8)
"""Of a run: its span, its number among the runs of that, its band, its members (LAST exclusive), the pages that hold
their rows, as bits, and whether there is nothing to add them to: they are copied then, bit by bit. And the number of
columns."""

Table = NDArray[np.int64]
"""int64 array of shape (n, number of columns)."""


@kernel
def find_runs(
    members: SeriesIds,
    edges: NDArray[np.int64],
    band_of_series: NDArray[np.int32],
    lane_of_series: NDArray[np.uint8],
    runs: Table,
    lanes: NDArray[np.uint8],
) -> int:
    """Cuts the members of spans into runs.

    Args:
        members: int32 array of shape (n_members,), the series of all spans.
        edges: int64 array of shape (n_spans + 1,): members of span k are `members[edges[k]:edges[k + 1]]`.
        band_of_series: See `SeriesColumns`.
        lane_of_series: See `SeriesColumns`.
        runs: Table with room for `n_members` runs, which are written there.
        lanes: uint8 array of shape (n_members,); the lane of each member is written there.

    Returns:
        Number of runs.
    """
    n_runs = 0
    for span in range(len(edges) - 1):
        rank = -1
        for member in range(edges[span], edges[span + 1]):
            band, lane = band_of_series[members[member]], lane_of_series[members[member]]
            lanes[member] = lane
            if rank < 0 or runs[n_runs - 1, BAND] != band:
                rank += 1
                run = runs[n_runs]
                run[SPAN], run[RANK], run[BAND], run[FIRST], run[PAGES] = span, rank, band, member, 0
                run[IS_COPIED] = edges[span + 1] - edges[span] == 1
                n_runs += 1
            run = runs[n_runs - 1]
            run[LAST] = member + 1
            run[PAGES] |= 1 << (lane // PAGE_ROWS)
    return n_runs


@kernel
def add_rows(
    rows: NDArray[np.float64],
    row_of_lane: NDArray[np.int16],
    window: int,
    runs: Table,
    lanes: NDArray[np.uint8],
    spans: Table,
    values: NDArray[np.float64],
) -> None:
    """Adds the rows of a tile to the values of spans, run after run, member after member; the first one is put there.

    Args:
        rows: float64 array of shape (n_rows, WINDOW_SLOTS), NaN where no sample is.
        row_of_lane: int16 array, see `TileRows`; lanes without a row make everything NaN.
        window: Number of the tile's window.
        runs: What to add up.
        lanes: uint8 array: the lane of each member.
        spans: The spans.
        values: float64 array, those of all spans.
    """
    for run in runs:
        span = spans[run[SPAN]]
        begin = max(span[FIRST_SLOT], window << WINDOW_BITS)
        end = min(span[END_SLOT], (window + 1) << WINDOW_BITS)
        if begin >= end:
            continue
        to = span[OFFSET] + begin - span[FIRST_SLOT]
        begin, n_slots = begin & (WINDOW_SLOTS - 1), end - begin
        for member in range(run[FIRST], run[LAST]):
            row = row_of_lane[lanes[member]]
            if row < 0:
                values[to : to + n_slots] = np.nan
            elif run[IS_COPIED]:
                target, source = values[to : to + n_slots], rows[row, begin : begin + n_slots]
                for slot in range(len(source)):
                    target[slot] = source[slot]
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
    begin: int,
    end: int,
    rows: NDArray[np.float64],
    row_of_lane: NDArray[np.int16],
) -> None:
    """Copies rows of an open tile.

    Args:
        tiles: See `TileColumns.values`.
        tile: Number of the tile.
        runs: Which rows: those of their members.
        lanes: uint8 array: the lane of each member.
        begin: First slot within the window.
        end: Last slot + 1.
        rows: float64 array of shape (number of members, WINDOW_SLOTS); only the slots asked for are written.
        row_of_lane: int16 array of shape (TILE_ROWS,); where the row of each lane is, is written there.
    """
    bits = rows.view(np.uint64)
    row = 0
    for run in runs:
        for member in range(run[FIRST], run[LAST]):
            lane = lanes[member]
            row_of_lane[lane] = row
            for slot in range(begin, end):
                bits[row, slot] = tiles[tile, slot, lane] ^ MISSING_BITS
            row += 1
