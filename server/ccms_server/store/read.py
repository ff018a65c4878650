"""Reading: which slots a range covers, and the samples in them, of one series or of several made into one."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.cancellation import Cancellation
from ccms_server.store.gather import Gather, Placed
from ccms_server.store.layout import PHASE_UNSET, WINDOW_BITS, WINDOW_SLOTS
from ccms_server.store.metric import Aggregation
from ccms_server.store.page_cache import PageCache
from ccms_server.store.sealed_tile import SealedTile
from ccms_server.store.series import SeriesArrays
from ccms_server.store.span import SPAN_COLUMNS, Span, find_spans
from ccms_server.store.table import MetricTable, OpenTile
from ccms_server.store.tile_pool import TilePool
from ccms_server.store.tree import Level, SeriesIds


class Source(NamedTuple):
    """Where the samples of an answer come from."""

    table: MetricTable
    """The metric, with an aggregation if the span has several members."""
    span: Span
    host: Level | None
    """The host whose group this is, if it is one: sealed windows may hold its aggregate."""


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
        return self.spans([(table, group)], start, end)[0]

    def spans(self, groups: Sequence[tuple[MetricTable, SeriesIds]], start: int, end: int) -> list[Span]:
        """The slots of some groups, each of one table; see `span`."""
        if not groups:
            return []
        edges = [0, *accumulate(len(group) for _, group in groups)]
        found, members = np.empty((len(groups), SPAN_COLUMNS), np.int64), np.empty(edges[-1], np.int32)
        slots = np.empty(edges[-1], np.int64)
        find_spans(
            self._series.columns,
            np.concatenate([group for _, group in groups]),
            np.array(edges),
            np.array([table.metric.interval for table, _ in groups]),
            start,
            end,
            found,
            members,
            slots,
        )
        spans = []
        for (table, group), first, (begin, n_slots, n_members, is_aligned) in zip(
            groups, edges, found.tolist(), strict=False
        ):
            if n_members < 0:
                spans.append(self._span_across_phases(table, group, start, end))
            else:
                here = slice(first, first + n_members)
                spans.append(Span(begin, n_slots, members[here], slots[here], bool(is_aligned)))
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
        return self.read([Source(table, span, host)])[0]

    def read(self, sources: Sequence[Source]) -> list[NDArray[np.float64]]:
        """The samples of some spans; those of several members are aggregated by the metric's rule.

        Spans of a table are read together, window by window, so that the tiles they share are looked at once.

        Args:
            sources: What to read.

        Returns:
            For each a float64 array of shape (n_slots,) that nobody else has; NaN where any member has no sample.

        Raises:
            CancelledReadError: Nobody waits for them.
        """
        edges = [0, *accumulate(source.span.n_slots for source in sources)]
        together = np.empty(edges[-1])
        values = [together[begin:end] for begin, end in pairwise(edges)]
        aligned: dict[MetricTable, list[Placed]] = {}
        for source, begin, each in zip(sources, edges, values, strict=False):
            if not source.span.n_slots:
                continue
            if source.span.is_aligned:
                aligned.setdefault(source.table, []).append(Placed(source.span, source.host, begin))
            else:
                self._add_shifted(source.table, source.span, each)
        for table, spans in aligned.items():
            self._gather.add(table, spans, together)
        for source, each in zip(sources, values, strict=True):
            if len(source.span.members) > 1 and source.table.metric.aggregation is Aggregation.AVG:
                each /= len(source.span.members)
        return values

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
        self._gather.add(table, [Placed(whole, None, 0)], total)
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
                elif (
                    tile is not None and lane < tile.n_rows and not np.isnan(self._gather.sealed_row(tile, lane)).all()
                ):
                    phases[position] = tile.read_phase(lane)
                break
        return phases
