"""Gathering the samples of many spans, window by window, so that a tile they share is looked at once."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.cancellation import Cancellation
from ccms_server.store.layout import PAGE_ROWS, WINDOW_SLOTS
from ccms_server.store.page_cache import NO_ROW, NO_ROWS, PageCache, TileRows
from ccms_server.store.rows import (
    BAND,
    END_SLOT,
    FIRST,
    FIRST_SLOT,
    GROUP_COLUMNS,
    IS_COPIED,
    LAST,
    PLACE_COLUMNS,
    RANK,
    RUN_COLUMNS,
    SPAN,
    Table,
    add_open,
    add_rows,
    copy_open,
    find_runs,
    group_runs,
)
from ccms_server.store.sealed_tile import SealedTile
from ccms_server.store.series import SeriesArrays
from ccms_server.store.span import N_MEMBERS, Spans
from ccms_server.store.table import AGGREGATED_MEMBERS_MIN, AggregateRow, MetricTable, OpenTile, Tile, fingerprint
from ccms_server.store.tile_pool import TilePool
from ccms_server.store.tree import Level

_NO_TILE = -1


class Sources(NamedTuple):
    """Where the samples of some series come from: sequences of the same length."""

    tables: Sequence[MetricTable | None]
    """The metric of each, with an aggregation if its span has several members. None: its span has no members."""
    hosts: Sequence[Level | None]
    """The host whose group it is, if it is one: sealed windows may hold its aggregate."""
    spans: Spans

    def some(self, first: int, last: int) -> "Sources":
        """Those from `first` to `last` (exclusive)."""
        return Sources(self.tables[first:last], self.hosts[first:last], self.spans.some(first, last))


class _Group(NamedTuple):
    """Runs of the same rank in the same band, each of another span. The order of the fields is that of its table."""

    first_run: int
    last_run: int
    band: int
    rank: int
    span: int
    pages: int
    """Pages of them all, as bits."""
    first_window: int
    last_window: int


class Gather:
    """Adds up the samples of spans.

    What it does between two looks at the cancellation is bounded: one window of the spans given.
    """

    def __init__(self, series: SeriesArrays, pool: TilePool, pages: PageCache, cancellation: Cancellation) -> None:
        self._series = series
        self._pool = pool
        self._pages = pages
        self._cancellation = cancellation

    def add(self, sources: Sources, offsets: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Adds up the samples of aligned spans, member after member; those of a lone member are copied.

        Args:
            sources: The spans. Those that are not aligned are left out.
            offsets: int64 array of shape (n_spans,): where the values of each begin.
            values: float64 array; the values of all of them are written there.

        Raises:
            CancelledReadError: Nobody waits for them.
        """
        _Gathering(self._series, self._pool, self._pages, self._cancellation, sources, offsets, values).run()

    def sealed_row(self, tile: SealedTile, row: int) -> NDArray[np.float64]:
        """A row of a sealed tile: float64 array of shape (WINDOW_SLOTS,); do not write to it."""
        opened = self._pages.open(tile, 1 << row // PAGE_ROWS)
        values: NDArray[np.float64] = opened.rows[opened.row_of_lane[row]]
        return values

    def sealed_rows(self, tile: SealedTile, lanes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Some rows of a sealed tile.

        Returns:
            float64 array of shape (n_lanes, WINDOW_SLOTS), NaN where no sample is; never a view.
        """
        rows = np.full((len(lanes), WINDOW_SLOTS), np.nan)
        opened = self._pages.open(tile, _pages_of(lanes))
        row_of_lane = opened.row_of_lane[lanes]
        rows[row_of_lane != NO_ROW] = opened.rows[row_of_lane[row_of_lane != NO_ROW]]
        return rows


class _Gathering:
    """One call of `Gather.add`."""

    def __init__(
        self,
        series: SeriesArrays,
        pool: TilePool,
        pages: PageCache,
        cancellation: Cancellation,
        sources: Sources,
        offsets: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> None:
        self._pool = pool
        self._pages = pages
        self._cancellation = cancellation
        self._sources = sources
        self._values = values
        spans, columns = sources.spans, series.columns
        n_members = int(spans.edges[-1] - spans.edges[0])
        runs, self._lanes = np.empty((n_members, RUN_COLUMNS), np.int64), np.empty(n_members, np.uint8)
        self._places = np.empty((len(spans.table), PLACE_COLUMNS), np.int64)
        self._done = np.zeros(len(spans.table), np.bool_)
        n_runs = find_runs(*spans, offsets, columns.band, columns.lane, self._places, runs, self._lanes)
        runs = runs[:n_runs]
        # The first runs of all spans are added before the second ones, and so on.
        self._runs = runs[np.lexsort((runs[:, BAND], runs[:, RANK]))] if n_runs > 1 else runs
        groups, ranges = np.empty((n_runs, GROUP_COLUMNS), np.int64), np.empty((n_runs, 2), np.int64)
        n_groups, n_ranges = group_runs(self._runs, self._places, groups, ranges)
        self._groups = [_Group(*row) for row in groups[:n_groups].tolist()]
        self._ranges = ranges[:n_ranges].tolist()
        self._hosts = self._large_hosts()
        self._spans_of_groups: dict[int, frozenset[int]] = {}
        self._bands_of_spans: dict[int, set[int]] = {}
        self._fingerprints: dict[int, bytes] = {}

    def run(self) -> None:
        """Adds up everything."""
        for number in self._windows():
            self._cancellation.check()
            here = [each for each in self._groups if each.first_window <= number <= each.last_window]
            if self._hosts:
                done = self._add_aggregates(number)
                here = [each for each in here if not self._spans_of(each) <= done]
            self._add_groups(number, here)

    def _windows(self) -> list[int]:
        """Windows that hold slots of spans; those between spans that lie far apart are left out."""
        if len(self._ranges) == 1:
            [[first, last]] = self._ranges
            return list(range(first, last + 1))
        ranges = {(first, last) for first, last in self._ranges}
        return sorted(set(chain.from_iterable(range(first, last + 1) for first, last in ranges)))

    def _large_hosts(self) -> dict[MetricTable, list[int]]:
        """The spans that are aggregates of hosts, and large enough to be stored, by table."""
        found: dict[MetricTable, list[int]] = {}
        for span in np.flatnonzero(self._sources.spans.table[:, N_MEMBERS] >= AGGREGATED_MEMBERS_MIN).tolist():
            table = self._sources.tables[span]
            is_read = self._places[span, END_SLOT] > self._places[span, FIRST_SLOT]
            if is_read and table is not None and self._sources.hosts[span] is not None:
                found.setdefault(table, []).append(span)
        return found

    def _spans_of(self, group: _Group) -> frozenset[int]:
        """The spans a group belongs to."""
        known = self._spans_of_groups.get(group.first_run)
        if known is None:
            known = frozenset(self._runs[group.first_run : group.last_run, SPAN].tolist())
            self._spans_of_groups[group.first_run] = known
        return known

    def _bands_of(self, span: int) -> set[int]:
        """The bands a span reaches over."""
        if not self._bands_of_spans:
            for each, band in self._runs[:, [SPAN, BAND]].tolist():
                self._bands_of_spans.setdefault(each, set()).add(band)
        return self._bands_of_spans[span]

    def _fingerprint(self, span: int) -> bytes:
        """Identifies the members of a span."""
        known = self._fingerprints.get(span)
        if known is None:
            known = self._fingerprints[span] = fingerprint(self._sources.spans.span(span).members)
        return known

    def _add_aggregates(self, number: int) -> set[int]:
        """Copies aggregates that are stored in a window; returns the spans that are done by that, and notes them."""
        self._done[:] = False
        found: dict[SealedTile, list[tuple[int, int]]] = {}
        for table, spans in self._hosts.items():
            for span, stored in self._aggregates(table, number, spans):
                found.setdefault(stored.tile, []).append((span, stored.row))
        done: set[int] = set()
        for tile, pairs in found.items():
            runs, lanes, pages = _runs_of_rows(tuple(pairs))
            self._add_rows(self._pages.open(tile, pages), number, runs.copy(), lanes.copy())
            done.update(span for span, _ in pairs)
        self._done[list(done)] = True
        return done

    def _aggregates(self, table: MetricTable, number: int, spans: Sequence[int]) -> Iterator[tuple[int, AggregateRow]]:
        """The spans whose aggregates are stored in a window, and where."""
        window = table.windows.get(number)
        if window is None or not window.may_have_aggregates:
            return
        # In this order: maintenance stores new aggregates first, and calls them fresh afterwards.
        fresh = [each for each in spans if window.stale.isdisjoint(self._bands_of(each))] if window.stale else spans
        hosts = [host for each in fresh if (host := self._sources.hosts[each]) is not None]
        for each, stored in zip(fresh, table.aggregates_of(window, hosts), strict=True):
            if stored is not None and stored.members == self._fingerprint(each):
                yield each, stored

    def _add_groups(self, number: int, groups: Sequence[_Group]) -> None:
        """Adds the rows of groups in a window."""
        # Those that nothing comes before can be done again, and so be read together from open tiles.
        together: list[tuple[_Group, OpenTile | None]] = []
        for each in groups:
            self._cancellation.check()
            if each.rank and together:
                self._add_open(number, together)
                together = []
            tile = self._tile(number, each)
            if isinstance(tile, SealedTile):
                runs = self._runs[each.first_run : each.last_run]
                self._add_rows(self._pages.open(tile, each.pages), number, runs, self._lanes)
            elif each.rank == 0:
                together.append((each, tile))
            else:
                self._add_alone(number, each)
        if together:
            self._add_open(number, together)

    def _add_open(self, number: int, groups: Sequence[tuple[_Group, OpenTile | None]]) -> None:
        """Adds rows of open tiles, and those that do not exist."""
        jobs = np.array(
            [(each.first_run, each.last_run, _NO_TILE if tile is None else tile.number) for each, tile in groups],
            np.int64,
        )
        add_open(
            self._pool.columns.values, jobs, number, self._runs, self._lanes, self._places, self._done, self._values
        )
        for each, tile in groups:
            if tile is not None and self._tile(number, each) is not tile:  # closed meanwhile, maybe used for another
                self._add_alone(number, each)

    def _add_alone(self, number: int, group: _Group) -> None:
        """Adds the rows of a group."""
        self._add_rows(self._rows(number, group), number, self._runs[group.first_run : group.last_run], self._lanes)

    def _add_rows(self, opened: TileRows, number: int, runs: Table, lanes: NDArray[np.uint8]) -> None:
        add_rows(*opened, number, runs, lanes, self._places, self._done, self._values)

    def _rows(self, number: int, group: _Group) -> TileRows:
        """The rows of a group in a window."""
        while True:
            tile = self._tile(number, group)
            if tile is None:
                return NO_ROWS
            if not isinstance(tile, OpenTile):
                return self._pages.open(tile, group.pages)
            runs = self._runs[group.first_run : group.last_run]
            n_members = int((runs[:, LAST] - runs[:, FIRST]).sum())
            copied = TileRows(np.empty((n_members, WINDOW_SLOTS)), NO_ROWS.row_of_lane.copy())
            copy_open(self._pool.columns.values, tile.number, runs, self._lanes, *copied)
            if self._tile(number, group) is tile:
                return copied

    def _tile(self, number: int, group: _Group) -> Tile | None:
        """The tile that holds the rows of a group in a window."""
        table = self._sources.tables[group.span]
        assert table is not None, "a span with members has a table"
        return table.tile(number, group.band)


@lru_cache(maxsize=1024)
def _runs_of_rows(pairs: tuple[tuple[int, int], ...]) -> tuple[Table, NDArray[np.uint8], int]:
    """Runs that copy a row each, their lanes and their pages as bits: for pairs of a span and a row.

    Remembered, because hosts lie in the same rows in one window after another. All threads share them: they cannot be
    written to, and kernels are given copies, because arrays of that kind would be another type, compiled for itself.
    """
    runs = np.zeros((len(pairs), RUN_COLUMNS), np.int64)
    runs[:, FIRST], runs[:, LAST], runs[:, IS_COPIED] = range(len(pairs)), range(1, len(pairs) + 1), 1
    runs[:, SPAN] = [span for span, _ in pairs]
    lanes = np.array([row for _, row in pairs], np.uint8)
    runs.flags.writeable = lanes.flags.writeable = False
    return runs, lanes, _pages_of(lanes)


def _pages_of(lanes: NDArray[np.uint8]) -> int:
    """The pages of a tile that hold some rows, as bits."""
    pages = 0
    for page in set((lanes // PAGE_ROWS).tolist()):
        pages |= 1 << page
    return pages
