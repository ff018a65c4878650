"""Gathering the samples of many spans of a table, window by window, so that a tile they share is looked at once."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.cancellation import Cancellation
from ccms_server.store.layout import PAGE_ROWS, WINDOW_BITS, WINDOW_SLOTS
from ccms_server.store.page_cache import NO_ROWS, PageCache, TileRows
from ccms_server.store.rows import (
    BAND,
    FIRST,
    IS_COPIED,
    LAST,
    PAGES,
    RANK,
    RUN_COLUMNS,
    SPAN,
    Table,
    add_rows,
    copy_open,
    find_runs,
)
from ccms_server.store.sealed_tile import SealedTile
from ccms_server.store.series import SeriesArrays
from ccms_server.store.span import Span
from ccms_server.store.table import AGGREGATED_MEMBERS_MIN, MetricTable, OpenTile, fingerprint
from ccms_server.store.tile_pool import TilePool
from ccms_server.store.tree import Level


class Placed(NamedTuple):
    """A span whose members are aligned, and where its values go."""

    span: Span
    host: Level | None
    """The host whose group this is, if it is one: sealed windows may hold its aggregate."""
    offset: int


class _BandRuns(NamedTuple):
    """Runs in the same band, each of another span."""

    band: int
    rows: Sequence[Sequence[int]]
    runs: Table
    """The same as an array."""
    pages: int
    """Pages of them all, as bits."""
    n_members: int

    @classmethod
    def of(cls, band: int, rows: Sequence[Sequence[int]]) -> Self:
        """Some runs, with what follows from them."""
        pages = 0
        for row in rows:
            pages |= row[PAGES]
        return cls(band, rows, np.array(rows, np.int64), pages, sum(row[LAST] - row[FIRST] for row in rows))

    def without(self, spans: Collection[int]) -> Self | None:
        """Those of other spans; None when there are none."""
        if not spans:
            return self
        left = [row for row in self.rows if row[SPAN] not in spans]
        return self.of(self.band, left) if left else None


class _HostSpan(NamedTuple):
    """A span that is the aggregate of a host."""

    number: int
    host: Level
    bands: set[int]
    members: bytes
    """Fingerprint of its members."""


class Gather:
    """Adds up the samples of spans.

    What it does between two looks at the cancellation is bounded: one window of the spans given.
    """

    def __init__(self, series: SeriesArrays, pool: TilePool, pages: PageCache, cancellation: Cancellation) -> None:
        self._series = series
        self._pool = pool
        self._pages = pages
        self._cancellation = cancellation

    def add(self, table: MetricTable, placed: Sequence[Placed], values: NDArray[np.float64]) -> None:
        """Adds up the samples of spans, member after member; those of a lone member are copied.

        Args:
            table: The metric.
            placed: The spans, none of them empty.
            values: float64 array; the values of all of them are written there.

        Raises:
            CancelledReadError: Nobody waits for them.
        """
        first_slots = [int(each.span.first_slots[0]) for each in placed]
        ends = [first + each.span.n_slots for first, each in zip(first_slots, placed, strict=True)]
        spans = np.array(list(zip(first_slots, ends, (each.offset for each in placed), strict=True)), np.int64)
        in_bands, lanes = self._runs([each.span for each in placed])
        hosts = _host_spans(placed, in_bands)
        begin, end = min(first_slots), max(ends)
        for number in _windows(first_slots, ends):
            self._cancellation.check()
            done = self._add_aggregates(table, number, hosts, spans, values) if hosts else ()
            start = number << WINDOW_BITS
            for each in in_bands:
                self._cancellation.check()
                left = each.without(done)
                if left is not None:
                    rows = self._rows(table, number, left, lanes, max(begin - start, 0), min(end - start, WINDOW_SLOTS))
                    add_rows(*rows, number, left.runs, lanes, spans, values)

    def sealed_row(self, tile: SealedTile, row: int) -> NDArray[np.float64]:
        """A row of a sealed tile: float64 array of shape (WINDOW_SLOTS,); do not write to it."""
        opened = self._pages.open(tile, 1 << row // PAGE_ROWS)
        values: NDArray[np.float64] = opened.rows[opened.row_of_lane[row]]
        return values

    def _runs(self, spans: Sequence[Span]) -> tuple[list[_BandRuns], NDArray[np.uint8]]:
        """The runs of spans, in the order in which they are to be added, and the lane of each member."""
        columns = self._series.columns
        members = np.concatenate([span.members for span in spans])
        edges = np.array([0, *accumulate(len(span.members) for span in spans)])
        runs, lanes = np.empty((len(members), RUN_COLUMNS), np.int64), np.empty(len(members), np.uint8)
        n_runs = find_runs(members, edges, columns.band, columns.lane, runs, lanes)
        # The first runs of all spans are added before the second ones, and so on.
        groups: dict[tuple[int, int], list[list[int]]] = {}
        for row in runs[:n_runs].tolist():
            groups.setdefault((row[RANK], row[BAND]), []).append(row)
        return [_BandRuns.of(band, rows) for (_, band), rows in sorted(groups.items())], lanes

    def _add_aggregates(
        self, table: MetricTable, number: int, hosts: Sequence[_HostSpan], spans: Table, values: NDArray[np.float64]
    ) -> Collection[int]:
        """Copies aggregates that are stored in a window; returns the numbers of the spans that are done by that."""
        window = table.windows.get(number)
        if window is None:
            return ()
        # In this order: maintenance stores new aggregates first, and calls them fresh afterwards.
        fresh = [each for each in hosts if window.stale.isdisjoint(each.bands)] if window.stale else hosts
        found: dict[SealedTile, list[tuple[int, int]]] = {}
        done = set()
        for each, stored in zip(fresh, table.aggregates_of(window, [each.host for each in fresh]), strict=True):
            if stored is not None and stored.members == each.members:
                found.setdefault(stored.tile, []).append((each.number, stored.row))
                done.add(each.number)
        for tile, pairs in found.items():
            runs, lanes, pages = _runs_of_rows(tuple(pairs))
            add_rows(*self._pages.open(tile, pages), number, runs, lanes, spans, values)
        return done

    def _rows(
        self, table: MetricTable, number: int, wanted: _BandRuns, lanes: NDArray[np.uint8], begin: int, end: int
    ) -> TileRows:
        """The rows of runs in a window, at least the slots from `begin` to `end` (exclusive)."""
        while True:
            tile = table.tile(number, wanted.band)
            if tile is None:
                return NO_ROWS
            if not isinstance(tile, OpenTile):
                return self._pages.open(tile, wanted.pages)
            copied = TileRows(np.empty((wanted.n_members, WINDOW_SLOTS)), NO_ROWS.row_of_lane.copy())
            copy_open(self._pool.columns.values, tile.number, wanted.runs, lanes, begin, end, *copied)
            if table.tile(number, wanted.band) is tile:
                return copied


def _host_spans(placed: Sequence[Placed], in_bands: Sequence[_BandRuns]) -> list[_HostSpan]:
    """The spans that are aggregates of hosts, and large enough to be stored."""
    hosts = [
        _HostSpan(number, each.host, set(), fingerprint(each.span.members))
        for number, each in enumerate(placed)
        if each.host is not None and len(each.span.members) >= AGGREGATED_MEMBERS_MIN
    ]
    bands = {each.number: each.bands for each in hosts}
    for each in in_bands:
        for row in each.rows:
            if row[SPAN] in bands:
                bands[row[SPAN]].add(each.band)
    return hosts


def _windows(first_slots: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Windows that hold slots of spans; those between spans that lie far apart are left out."""
    ranges = {(first >> WINDOW_BITS, (end - 1) >> WINDOW_BITS) for first, end in zip(first_slots, ends, strict=True)}
    return sorted(set(chain.from_iterable(range(first, last + 1) for first, last in ranges)))


@lru_cache(maxsize=1024)
def _runs_of_rows(pairs: tuple[tuple[int, int], ...]) -> tuple[Table, NDArray[np.uint8], int]:
    """Runs that copy a row each, their lanes and their pages as bits: for pairs of a span and a row.

    Remembered, because hosts lie in the same rows in one window after another.
    """
    runs = np.zeros((len(pairs), RUN_COLUMNS), np.int64)
    runs[:, FIRST], runs[:, LAST], runs[:, IS_COPIED] = range(len(pairs)), range(1, len(pairs) + 1), 1
    runs[:, SPAN] = [span for span, _ in pairs]
    pages = 0
    for _, row in pairs:
        pages |= 1 << row // PAGE_ROWS
    return runs, np.array([row for _, row in pairs], np.uint8), pages
