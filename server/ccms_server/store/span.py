"""Which slots of which series answer a range of time."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_server.jit import kernel
from ccms_server.store.layout import SLOT_MAX
from ccms_server.store.series import SeriesColumns
from ccms_server.store.tree import SeriesIds


class Span(NamedTuple):
    """The slots that answer a range: the same number of consecutive slots of each member."""

    start: int
    """Time of the first slot, or the start asked for if that is later, in seconds."""
    n_slots: int
    members: SeriesIds
    """int32 array of shape (n_members,): the series that have samples in the range."""
    first_slots: NDArray[np.int64]
    """int64 array of shape (n_members,): the slot of each nearest to `start`."""
    is_aligned: bool = True
    """Whether that is the same slot for all of them."""

    def end(self, interval: int) -> int:
        """End of the last slot (exclusive), in seconds."""
        return self.start + self.n_slots * interval


BEGIN, N_SLOTS, N_MEMBERS, IS_ALIGNED, SPAN_COLUMNS = range(5)
"""Columns of the table that `find_spans` fills, and how many there are."""


@kernel
def find_spans(
    columns: SeriesColumns,
    groups: SeriesIds,
    edges: NDArray[np.int64],
    intervals: NDArray[np.int64],
    start: int,
    end: int,
    spans: NDArray[np.int64],
    members: SeriesIds,
    slots: NDArray[np.int64],
) -> None:
    """Finds the spans of groups in which no series changes its phase.

    Args:
        columns: What is known of the series.
        groups: int32 array of shape (n_series,), the series of all groups.
        edges: int64 array of shape (n_groups + 1,): those of group k are `groups[edges[k]:edges[k + 1]]`.
        intervals: int64 array of shape (n_groups,), seconds.
        start: Start of the range, seconds.
        end: End of the range (exclusive), seconds, >= start.
        spans: int64 array of shape (n_groups, SPAN_COLUMNS); of each span is written: start in seconds, number of slots
            and of members, and whether they are aligned. -1 members: windows of a series differ in their phase.
        members: int32 array of shape (n_series,); the members of group k are written from `edges[k]` on.
        slots: int64 array of shape (n_series,); the first slots of the members are written there.
    """
    end = min(end, SLOT_MAX)  # so that no difference of times overflows
    for number in range(len(intervals)):
        first_one, interval = edges[number], intervals[number]
        span = spans[number]
        span[BEGIN], span[N_SLOTS], span[N_MEMBERS], span[IS_ALIGNED] = _find_span(
            columns, groups[first_one : edges[number + 1]], start, end, interval, members[first_one:], slots[first_one:]
        )


@kernel
def _find_span(
    columns: SeriesColumns,
    group: SeriesIds,
    start: int,
    end: int,
    interval: int,
    members: SeriesIds,
    slots: NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """A row of the table that `find_spans` fills."""
    half = interval >> 1
    n_members, earliest, begin = 0, SLOT_MAX, start
    for series in group:
        if columns.rephased[series]:
            return start, 0, -1, 0
        first, last = max(columns.first_slot[series], columns.floor_slot[series]), columns.last_slot[series]
        if first > last:
            continue  # the writer dropped all of it since the group was looked up
        phase = int(columns.phase[series])
        first_time = phase + first * interval
        earliest = min(earliest, first_time)
        if first_time < end and phase + last * interval + (interval - half) > start:
            members[n_members] = series
            n_members += 1
            begin = max(begin, first_time)
    if n_members == 0:
        return max(start, earliest) if end <= earliest < SLOT_MAX else start, 0, 0, 1
    n_slots, is_aligned = -((begin - end) // interval), 1
    for i in range(n_members):
        slots[i] = (begin - columns.phase[members[i]] + half) // interval
        n_slots = min(n_slots, columns.last_slot[members[i]] - slots[i] + 1)
        if slots[i] != slots[0]:
            is_aligned = 0
    return begin, max(0, n_slots), n_members, is_aligned
