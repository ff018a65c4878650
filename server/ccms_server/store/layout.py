"""The shape of stored data, shared by everything in this package.

Time is cut into slots of the metric's interval, slots into windows; the rows (series) of a metric's table are cut into
bands. A tile is one band in one window, the unit that is opened, sealed and written:

                 window 0          window 1          window 2
    band 0   | sealed tile     | sealed tile     | open tile  ...        64 rows
    band 1   | sealed tile     | sealed tile     | open tile  ...        64 rows

Measured on 32 hosts x 9 metrics x one day of a real job, per sample: 256 slots 1.26 B, 128 slots 1.32 B, 512 slots
1.23 B; pages of 4 rows cost 1 % more than one page a tile, and a single series is read by opening 1/16 of it.
"""

from typing import Final

import numpy as np

WINDOW_BITS: Final = 8
WINDOW_SLOTS: Final = 1 << WINDOW_BITS
"""Slots of a window: 4 h 16 min at an interval of one minute."""

TILE_ROWS: Final = 64
"""Rows of a band. The threads of a host usually share one."""

PAGE_ROWS: Final = 4
"""Rows of a sealed tile that are decompressed together."""

MISSING_BITS: Final = np.uint64(0x7FF8_0000_0000_0000)
"""The NaN that stands for a missing sample. Open tiles hold `bits ^ MISSING_BITS`: fresh zero pages are all missing."""

PHASE_UNSET: Final = -(1 << 31)
"""Phase of a row that has no sample in a window."""

SLOT_MIN: Final = -(1 << 62)
SLOT_MAX: Final = 1 << 62
"""Beyond every slot: the first and last slot of a series without samples are SLOT_MAX and SLOT_MIN."""
