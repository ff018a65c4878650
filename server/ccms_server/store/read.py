"""Reading: which slots a range covers, and the samples in them, of one series or of several made into one."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.jit import kernel
from ccms_server.store.layout import MISSING_BITS, PAGE_ROWS, PHASE_UNSET, SLOT_MAX, WINDOW_BITS, WINDOW_SLOTS
from ccms_server.store.metric import Aggregation
from ccms_server.store.sealed_tile import SealedTile
from ccms_server.store.series import SeriesArrays, SeriesColumns
from ccms_server.store.table import MetricTable, OpenTile, Window, fingerprint
from ccms_server.store.tile_pool import TilePool
from ccms_server.store.tree import Level, SeriesIds

CACHED_PAGES_MAX: Final = 1024
"""Opened pages a reader remembers, 8 KiB each."""


@dataclass(frozen=True, slots=True)
class Span:
    """The slots that answer a range: the same number of consecutive slots of each member."""

    start: int
    """Time of the first slot, or the start asked for if that is later, in seconds."""
    n_slots: int
    members: SeriesIds
    """int32 array of shape (n_members,): the series that have samples in the range."""
    first_slots: NDArray[np.int64]
    """int64 array of shape (n_members,): the slot of each nearest to `start`."""

    def end(self, interval: int) -> int:
        """End of the last slot (exclusive), in seconds."""
        return self.start + self.n_slots * interval


class Reader:
    """Reads from a store; made for one piece of work on one thread, it remembers the pages it opened.

    The writer goes on meanwhile: samples that arrive during a read may or may not be in it.
    """

    def __init__(self, series: SeriesArrays, pool: TilePool) -> None:
        self._series = series
        self._pool = pool
        self._pages: dict[SealedTile, dict[int, NDArray[np.float64]]] = {}
        self._n_pages = 0

    def span(self, table: MetricTable, group: SeriesIds, start: int, end: int) -> Span:
        """The slots of a group that answer the range [start, end).

        Several series answer for the time they share: from the latest first sample to the earliest last one. Those
        without any sample in the range do not take part.

        Args:
            table: The metric.
            group: int32 array of shape (n_series,); those without samples do not count.
            start: Start of the range, seconds.
            end: End of the range (exclusive), seconds, >= start.
        """
        members, slots = np.empty(len(group), np.int32), np.empty(len(group), np.int64)
        interval = table.metric.interval
        begin, n_slots, n_members = _span_in_one_phase(
            self._series.columns, group, start, end, interval, members, slots
        )
        if n_members < 0:
            return self._span_across_phases(table, group, start, end)
        return Span(begin, n_slots, members[:n_members], slots[:n_members])

    def _span_across_phases(self, table: MetricTable, group: SeriesIds, start: int, end: int) -> Span:
        """What `span` returns, for a group in which windows of a series differ in their phase."""
        columns, interval = self._series.columns, table.metric.interval
        first_slots = np.maximum(columns.first_slot[group], columns.floor_slot[group])
        last_slots = columns.last_slot[group]
        alive = last_slots >= first_slots  # the writer may have dropped some since the group was looked up
        if not alive.all():
            group, first_slots, last_slots = group[alive], first_slots[alive], last_slots[alive]
        if not len(group):
            return Span(start, 0, group, first_slots)
        first_times = self._phases(table, group, first_slots >> WINDOW_BITS) + first_slots * interval
        last_times = self._phases(table, group, last_slots >> WINDOW_BITS) + last_slots * interval
        half = interval >> 1
        taking_part = (first_times < end) & (last_times + (interval - half) > start)
        if not taking_part.any():
            earliest = int(first_times.min())
            return Span(max(start, earliest if earliest >= end else start), 0, group[:0], first_slots[:0])
        members, last_slots = group[taking_part], last_slots[taking_part]
        begin = max(start, int(first_times[taking_part].max()))
        slots = (begin - self._phases_at(table, members, begin) + half) // interval
        n_slots = min(-((begin - end) // interval), int((last_slots - slots).min()) + 1)
        return Span(begin, max(0, n_slots), members, slots)

    def values(self, table: MetricTable, span: Span, host: Level | None) -> NDArray[np.float64]:
        """The samples of a span; those of several members are aggregated by the metric's rule.

        Args:
            table: The metric, with an aggregation if the span has several members.
            span: What to read.
            host: The host whose group this is, if it is one: sealed windows may hold its aggregate.

        Returns:
            A new float64 array of shape (n_slots,); NaN where any member has no sample.
        """
        if len(span.members) <= 1:
            values = np.empty(span.n_slots)
            if span.n_slots:
                self._read_series(table, int(span.members[0]), int(span.first_slots[0]), values)
            return values
        if (span.first_slots == span.first_slots[0]).all():
            values = self._add_aligned(table, span, host)
        else:
            values = self._add_shifted(table, span)
        if table.metric.aggregation is Aggregation.AVG:
            values /= len(span.members)
        return values

    def window_samples(
        self, table: MetricTable, series: int, window: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The samples of one series in a window, without those that were freed.

        Returns:
            int64 array of their times in seconds, ascending, and float64 array of their values, without NaN.
        """
        first = window << WINDOW_BITS
        values = np.empty(WINDOW_SLOTS)
        self._read_series(table, series, first, values)
        slots = np.flatnonzero(~np.isnan(values))
        slots = slots[slots + first >= self._series.columns.floor_slot[series]]
        phase = int(self._phases_if_present(table, np.array([series], np.int32), window)[0])
        return phase + (slots + first) * table.metric.interval, values[slots]

    def window_sum(
        self, table: MetricTable, window: int, group: SeriesIds
    ) -> tuple[NDArray[np.float64], int, SeriesIds] | None:
        """Adds up a group over a whole window, to be stored when it is sealed.

        Returns:
            float64 array of shape (WINDOW_SLOTS,), the phase its members share in seconds, and the members: the series
            of the group that have samples in the window. None when their phases differ, or there are none.
        """
        phases = self._phases_if_present(table, group, window)
        members = group[phases != PHASE_UNSET]
        if not len(members):
            return None
        shared = phases[phases != PHASE_UNSET]
        if not (shared == shared[0]).all():
            return None
        total = np.zeros(WINDOW_SLOTS)
        for band, lanes in self._runs(members):
            self._add_band(table, window, 0, band, lanes, total)
        return total, int(shared[0]), members

    def aggregate_row(self, tile: SealedTile, row: int) -> NDArray[np.float64]:
        """A stored aggregate: float64 array of shape (WINDOW_SLOTS,); do not write to it."""
        values: NDArray[np.float64] = self._page(tile, row // PAGE_ROWS)[row % PAGE_ROWS]
        return values

    def _read_series(self, table: MetricTable, series: int, slot: int, values: NDArray[np.float64]) -> None:
        band, lane = int(self._series.columns.band[series]), int(self._series.columns.lane[series])
        done = 0
        while done < len(values):
            begin = (slot + done) & (WINDOW_SLOTS - 1)
            part = values[done : done + WINDOW_SLOTS - begin]
            window = (slot + done) >> WINDOW_BITS
            while True:
                tile = table.tile(window, band)
                if tile is None:
                    part.fill(np.nan)
                elif isinstance(tile, OpenTile):
                    _copy_lane(self._pool.columns.values, tile.number, lane, begin, part)
                    if table.tile(window, band) is not tile:
                        continue
                elif lane < tile.n_rows:
                    part[:] = self._page(tile, lane // PAGE_ROWS)[lane % PAGE_ROWS, begin : begin + len(part)]
                else:
                    part.fill(np.nan)
                break
            done += len(part)

    def _add_aligned(self, table: MetricTable, span: Span, host: Level | None) -> NDArray[np.float64]:
        values = np.zeros(span.n_slots)
        members = fingerprint(span.members) if host is not None else b""
        runs = self._runs(span.members)
        bands = {band for band, _ in runs}
        slot, done = int(span.first_slots[0]), 0
        while done < span.n_slots:
            begin = (slot + done) & (WINDOW_SLOTS - 1)
            part = values[done : done + WINDOW_SLOTS - begin]
            number = (slot + done) >> WINDOW_BITS
            stored = self._stored_aggregate(table, table.windows.get(number), host, bands, members)
            if stored is not None:
                part[:] = stored[begin : begin + len(part)]
            else:
                for band, lanes in runs:
                    self._add_band(table, number, begin, band, lanes, part)
            done += len(part)
        return values

    def _runs(self, members: SeriesIds) -> list[tuple[int, NDArray[np.int64]]]:
        """Series as runs in the same band, in order: band, and int64 array of their lanes."""
        bands, lanes = self._series.columns.band[members], self._series.columns.lane[members].astype(np.int64)
        edges = [0, *(np.flatnonzero(bands[1:] != bands[:-1]) + 1).tolist(), len(members)]
        return [(int(bands[first]), lanes[first:last]) for first, last in pairwise(edges)]

    def _stored_aggregate(
        self, table: MetricTable, window: Window | None, host: Level | None, bands: set[int], members: bytes
    ) -> NDArray[np.float64] | None:
        """The sum of a host's members, which lie in some bands, over a sealed window: if it was stored and holds."""
        if window is None or host is None:
            return None
        # In this order: maintenance stores new aggregates first, and calls them fresh afterwards.
        if not window.stale.isdisjoint(bands):
            return None
        stored = table.aggregate(window, host)
        if stored is None or stored.members != members:
            return None
        return self.aggregate_row(stored.tile, stored.row)

    def _add_band(
        self,
        table: MetricTable,
        window: int,
        begin: int,
        band: int,
        lanes: NDArray[np.int64],
        total: NDArray[np.float64],
    ) -> None:
        """Adds some rows of a band in part of a window, in order; NaN where any sample is missing."""
        while True:
            tile = table.tile(window, band)
            if tile is None:
                total.fill(np.nan)
            elif isinstance(tile, OpenTile):
                before = total.copy()
                _add_lanes(self._pool.columns.values, tile.number, lanes, begin, total)
                if table.tile(window, band) is not tile:
                    total[:] = before
                    continue
            else:
                for lane in lanes.tolist():
                    if lane < tile.n_rows:
                        row = self._page(tile, lane // PAGE_ROWS)[lane % PAGE_ROWS]
                        total += row[begin : begin + len(total)]
                    else:
                        total.fill(np.nan)
            return

    def _add_shifted(self, table: MetricTable, span: Span) -> NDArray[np.float64]:
        """Adds up series whose slot numbers differ for the same time: collectors that started out of step."""
        total, one = np.zeros(span.n_slots), np.empty(span.n_slots)
        for series, slot in zip(span.members.tolist(), span.first_slots.tolist(), strict=True):
            self._read_series(table, series, slot, one)
            total += one
        return total

    def _page(self, tile: SealedTile, number: int) -> NDArray[np.float64]:
        pages = self._pages.get(tile)
        if pages is None:
            pages = self._pages[tile] = {}
        page = pages.get(number)
        if page is None:
            if self._n_pages >= CACHED_PAGES_MAX:
                self._pages.clear()
                self._n_pages = 0
                pages = self._pages[tile] = {}
            page = pages[number] = tile.read_pages((number,))[number]
            self._n_pages += 1
        return page

    def _phases(self, table: MetricTable, group: SeriesIds, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Phases of series in a window each, seconds; that of now where nothing else is known."""
        phases = self._series.columns.phase[group].astype(np.int64)
        for position in np.flatnonzero(self._series.columns.rephased[group]).tolist():
            here = group[position : position + 1]
            phase = int(self._phases_if_present(table, here, int(windows[position]))[0])
            if phase != PHASE_UNSET:
                phases[position] = phase
        return phases

    def _phases_at(self, table: MetricTable, group: SeriesIds, time: int) -> NDArray[np.int64]:
        """Phases of series in the windows a time falls into, seconds."""
        interval = table.metric.interval
        slots = (time - self._series.columns.phase[group].astype(np.int64) + (interval >> 1)) // interval
        return self._phases(table, group, slots >> WINDOW_BITS)

    def _phases_if_present(self, table: MetricTable, group: SeriesIds, window: int) -> NDArray[np.int64]:
        """Phases of series in a window, seconds; PHASE_UNSET for those without samples there."""
        phases = np.full(len(group), PHASE_UNSET, np.int64)
        for position, series in enumerate(group.tolist()):
            band, lane = int(self._series.columns.band[series]), int(self._series.columns.lane[series])
            while True:
                tile = table.tile(window, band)
                if isinstance(tile, OpenTile):
                    phases[position] = self._pool.columns.phases[tile.number, lane]
                    if table.tile(window, band) is not tile:
                        continue
                elif tile is not None and lane < tile.n_rows:
                    row = self._page(tile, lane // PAGE_ROWS)[lane % PAGE_ROWS]
                    if not np.isnan(row).all():
                        phases[position] = tile.read_phase(lane)
                break
        return phases


@kernel
def _span_in_one_phase(
    columns: SeriesColumns,
    group: SeriesIds,
    start: int,
    end: int,
    interval: int,
    members: SeriesIds,
    slots: NDArray[np.int64],
) -> tuple[int, int, int]:
    """The start, number of slots and number of members of a span, whose arrays are written; -1 members: see phases."""
    half = interval >> 1
    end = min(end, SLOT_MAX)  # so that no difference of times overflows
    n_members, earliest, begin = 0, SLOT_MAX, start
    for series in group:
        if columns.rephased[series]:
            return start, 0, -1
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
        return max(start, earliest) if end <= earliest < SLOT_MAX else start, 0, 0
    n_slots = -((begin - end) // interval)
    for i in range(n_members):
        slots[i] = (begin - columns.phase[members[i]] + half) // interval
        n_slots = min(n_slots, columns.last_slot[members[i]] - slots[i] + 1)
    return begin, max(0, n_slots), n_members


@kernel
def _copy_lane(tiles: NDArray[np.uint64], tile: int, lane: int, begin: int, values: NDArray[np.float64]) -> None:
    """Copies one row of an open tile, from slot `begin` on."""
    bits = values.view(np.uint64)
    for i in range(len(bits)):
        bits[i] = tiles[tile, begin + i, lane] ^ MISSING_BITS


@kernel
def _add_lanes(
    tiles: NDArray[np.uint64], tile: int, lanes: NDArray[np.int64], begin: int, total: NDArray[np.float64]
) -> None:
    """Adds some rows of an open tile, in order, from slot `begin` on."""
    bits = np.empty(1, np.uint64)
    value = bits.view(np.float64)
    for i in range(len(total)):
        for lane in lanes:
            bits[0] = tiles[tile, begin + i, lane] ^ MISSING_BITS
            total[i] += value[0]
