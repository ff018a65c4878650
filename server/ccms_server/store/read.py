"""Reading: which slots a range covers, and the samples in them, of one series or of several made into one."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.cancellation import Cancellation
from ccms_server.store.gather import Gather, Sources
from ccms_server.store.layout import PHASE_UNSET, WINDOW_BITS, WINDOW_SLOTS
from ccms_server.store.metric import Aggregation
from ccms_server.store.page_cache import PageCache
from ccms_server.store.sealed_tile import SealedTile
from ccms_server.store.series import SeriesArrays
from ccms_server.store.span import IS_ALIGNED, N_MEMBERS, N_SLOTS, SPAN_COLUMNS, Span, Spans, find_spans
from ccms_server.store.table import MetricTable, OpenTile
from ccms_server.store.tile_pool import TilePool
from ccms_server.store.tree import Level, SeriesIds


class Reader:
    """Reads from a store; made for one piece of work on one thread.

    The writer goes on meanwhile: samples that arrive during a read may or may not be in it.

    Attributes:
        cancellation: Is looked at between two windows.
    """

    def __init__(
        self, series: SeriesArrays, pool: TilePool, pages: PageCache, cancellation: Cancellation | None = None
    ) -> None:
        """Makes a reader.

        Args:
            series: The series of the store.
            pool: Its open tiles.
            pages: Pages of its sealed tiles that are open.
            cancellation: Says when to stop; None: nobody does.
        """
        self.cancellation = cancellation or Cancellation()
        self._series = series
        self._pool = pool
        self._pages = pages
        self._gather = Gather(series, pool, pages, self.cancellation)

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
        return self.spans([table], [group], start, end).span(0)

    def spans(self, tables: Sequence[MetricTable | None], groups: Sequence[SeriesIds], start: int, end: int) -> Spans:
        """The slots of some groups; see `span`.

        Args:
            tables: The metric of each group. None: the group is empty.
            groups: The groups.
            start: Start of the range, seconds.
            end: End of the range (exclusive), seconds, >= start.
        """
        edges = np.array([0, *accumulate(map(len, groups))])
        series = np.concatenate([np.empty(0, np.int32), *groups])
        intervals = np.array([1 if table is None else table.metric.interval for table in tables], np.int64)
        spans = Spans(
            np.empty((len(groups), SPAN_COLUMNS), np.int64),
            edges,
            np.empty(len(series), np.int32),
            np.empty(len(series), np.int64),
        )
        find_spans(
            self._series.columns, series, edges, intervals, start, end, spans.table, spans.members, spans.first_slots
        )
        for number in np.flatnonzero(spans.table[:, N_MEMBERS] < 0).tolist():
            table = tables[number]
            assert table is not None, "a group with series has a metric"
            spans.put(number, self._span_across_phases(table, groups[number], start, end))
        return spans

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
        return Span(begin, max(0, n_slots), members, slots, bool((slots == slots[0]).all()))

    def values(self, table: MetricTable, span: Span, host: Level | None) -> NDArray[np.float64]:
        """The samples of a single span, see `read`."""
        values, _ = self.read(Sources([table], [host], Spans.of([span])))
        return values

    def read(self, sources: Sources) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The samples of some spans; those of several members are aggregated by the metric's rule.

        Spans are read together, window by window, so that the tiles they share are looked at once.

        Args:
            sources: What to read.

        Returns:
            float64 array of all samples, NaN where any member has none, that nobody else has; and int64 array of shape
            (n_spans + 1,): those of span k are from `[k]` to `[k + 1]`.

        Raises:
            CancelledReadError: Nobody waits for them.
        """
        table = sources.spans.table
        edges = np.zeros(len(table) + 1, np.int64)
        np.cumsum(table[:, N_SLOTS], out=edges[1:])
        values = np.empty(int(edges[-1]))
        self._gather.add(sources, edges[:-1], values)
        for number in np.flatnonzero((table[:, IS_ALIGNED] == 0) & (table[:, N_SLOTS] > 0)).tolist():
            metric = sources.tables[number]
            assert metric is not None, "a span with members has a metric"
            self._add_shifted(metric, sources.spans.span(number), values[edges[number] : edges[number + 1]])
        for number in np.flatnonzero(table[:, N_MEMBERS] > 1).tolist():
            metric = sources.tables[number]
            if metric is not None and metric.metric.aggregation is Aggregation.AVG:
                values[edges[number] : edges[number + 1]] /= table[number, N_MEMBERS]
        return values, edges

    def window_samples(
        self, table: MetricTable, series: int, window: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The samples of one series in a window, without those that were freed.

        Returns:
            int64 array of their times in seconds, ascending, and float64 array of their values, without NaN.
        """
        first = window << WINDOW_BITS
        one = Span(0, WINDOW_SLOTS, np.array([series], np.int32), np.array([first], np.int64))
        values = self.values(table, one, None)
        slots = np.flatnonzero(~np.isnan(values))
        slots = slots[slots + first >= self._series.columns.floor_slot[series]]
        phase = int(self._phases_if_present(table, one.members, window)[0])
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
        whole = Span(0, WINDOW_SLOTS, members, np.full(len(members), window << WINDOW_BITS))
        total = np.empty(WINDOW_SLOTS)
        self._gather.add(Sources([table], [None], Spans.of([whole])), np.zeros(1, np.int64), total)
        return total, int(shared[0]), members

    def aggregate_row(self, tile: SealedTile, row: int) -> NDArray[np.float64]:
        """A stored aggregate: float64 array of shape (WINDOW_SLOTS,); do not write to it."""
        return self._gather.sealed_row(tile, row)

    def _add_shifted(self, table: MetricTable, span: Span, values: NDArray[np.float64]) -> None:
        """Adds up series whose slot numbers differ for the same time: collectors that started out of step."""
        values.fill(0)
        for position in range(len(span.members)):
            here = slice(position, position + 1)
            values += self.values(
                table, Span(span.start, span.n_slots, span.members[here], span.first_slots[here]), None
            )

    def _phases(self, table: MetricTable, group: SeriesIds, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Phases of series in a window each, seconds; that of now where nothing else is known."""
        phases = self._series.columns.phase[group].astype(np.int64)
        rephased = np.flatnonzero(self._series.columns.rephased[group])
        for window in np.unique(windows[rephased]).tolist():
            here = rephased[windows[rephased] == window]
            found = self._phases_if_present(table, group[here], window)
            is_present = found != PHASE_UNSET
            phases[here[is_present]] = found[is_present]
        return phases

    def _phases_at(self, table: MetricTable, group: SeriesIds, time: int) -> NDArray[np.int64]:
        """Phases of series in the windows a time falls into, seconds."""
        interval = table.metric.interval
        slots = (time - self._series.columns.phase[group].astype(np.int64) + (interval >> 1)) // interval
        return self._phases(table, group, slots >> WINDOW_BITS)

    def _phases_if_present(self, table: MetricTable, group: SeriesIds, window: int) -> NDArray[np.int64]:
        """Phases of series in a window, seconds; PHASE_UNSET for those without samples there."""
        bands, lanes = self._series.columns.band[group], self._series.columns.lane[group]
        phases = np.empty(len(group), np.int64)
        for band in np.unique(bands).tolist():
            here = bands == band
            phases[here] = self._phases_of_lanes(table, window, band, lanes[here])
        return phases

    def _phases_of_lanes(
        self, table: MetricTable, window: int, band: int, lanes: NDArray[np.uint8]
    ) -> NDArray[np.int32] | int:
        """Phases of some rows of a band in a window; see `_phases_if_present`."""
        while True:
            tile = table.tile(window, band)
            if tile is None:
                return PHASE_UNSET
            if not isinstance(tile, OpenTile):
                is_present = ~np.isnan(self._gather.sealed_rows(tile, lanes)).all(axis=1)
                phases = np.full(len(lanes), PHASE_UNSET, np.int32)
                phases[is_present] = tile.read_phases()[lanes[is_present]]
                return phases
            phases = np.take(self._pool.columns.phases[tile.number], lanes)
            if table.tile(window, band) is tile:  # else it was closed meanwhile, and maybe used for another
                return phases
