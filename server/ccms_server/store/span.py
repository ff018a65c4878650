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


@kernel
def span_in_one_phase(
    columns: SeriesColumns,
    group: SeriesIds,
    start: int,
    end: int,
    interval: int,
    members: SeriesIds,
    slots: NDArray[np.int64],
) -> tuple[int, int, int, bool]:
    """The start, number of slots and number of members of a span, whose arrays are written, and whether it is aligned.

    -1 members: windows of a series differ in their phase.
    """
    half = interval >> 1
    end = min(end, SLOT_MAX)  # so that no difference of times overflows
    n_members, earliest, begin = 0, SLOT_MAX, start
    for series in group:
        if columns.rephased[series]:
            return start, 0, -1, False
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
        return max(start, earliest) if end <= earliest < SLOT_MAX else start, 0, 0, True
    n_slots, is_aligned = -((begin - end) // interval), True
    for i in range(n_members):
        slots[i] = (begin - columns.phase[members[i]] + half) // interval
        n_slots = min(n_slots, columns.last_slot[members[i]] - slots[i] + 1)
        is_aligned = is_aligned and slots[i] == slots[0]
    return begin, max(0, n_slots), n_members, is_aligned
