"""Which slots of which series answer a range of time."""

from collections.abc import Sequence
from itertools import accumulate
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
"""Columns of a table of spans, and how many there are. BEGIN is `Span.start`."""


class Spans(NamedTuple):
    """Some spans, column by column."""

    table: NDArray[np.int64]
    """int64 array of shape (n_spans, SPAN_COLUMNS)."""
    edges: NDArray[np.int64]
    """int64 array of shape (n_spans + 1,): what is known of the members of span k begins at `edges[k]`, and ends before
    `edges[k + 1]`."""
    members: SeriesIds
    """int32 array."""
    first_slots: NDArray[np.int64]
    """int64 array of the same shape."""

    @classmethod
    def of(cls, spans: Sequence[Span]) -> "Spans":
        """The same spans as columns."""
        n_members = [len(span.members) for span in spans]
        rows = [(span.start, span.n_slots, len(span.members), span.is_aligned) for span in spans]
        return cls(
            np.array(rows, np.int64).reshape(-1, SPAN_COLUMNS),
            np.array([0, *accumulate(n_members)]),
            np.concatenate([np.empty(0, np.int32), *(span.members for span in spans)]),
            np.concatenate([np.empty(0, np.int64), *(span.first_slots for span in spans)]),
        )

    def some(self, first: int, last: int) -> "Spans":
        """Those from `first` to `last` (exclusive); views."""
        return Spans(self.table[first:last], self.edges[first : last + 1], self.members, self.first_slots)

    def span(self, number: int) -> Span:
        """One of them; its arrays are views."""
        begin, n_slots, n_members, is_aligned = self.table[number].tolist()
        here = slice(int(self.edges[number]), int(self.edges[number]) + n_members)
        return Span(begin, n_slots, self.members[here], self.first_slots[here], bool(is_aligned))

    def put(self, number: int, span: Span) -> None:
        """Replaces one of them by another one, which has no more members than there is room for."""
        n_members, first = len(span.members), int(self.edges[number])
        assert first + n_members <= self.edges[number + 1], "there is room"
        self.table[number] = span.start, span.n_slots, n_members, span.is_aligned
        self.members[first : first + n_members] = span.members
        self.first_slots[first : first + n_members] = span.first_slots


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
        spans: int64 array of shape (n_groups, SPAN_COLUMNS), which is written. -1 members: windows of a series differ
            in their phase.
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
