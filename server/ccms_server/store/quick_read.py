"""Reading on the thread of an event loop: only what is certain to be over before a thread would have woken up."""

from collections.abc import Sequence
from typing import Final

from ccms_server.store.gather import Sources
from ccms_server.store.layout import PAGE_ROWS, WINDOW_BITS
from ccms_server.store.read import Reader
from ccms_server.store.sealed_tile import SealedTile
from ccms_server.store.span import Span, Spans
from ccms_server.store.table import AGGREGATED_MEMBERS_MIN, MetricTable, StoredWindow
from ccms_server.store.tree import SeriesIds

QUICK_MEMBERS: Final = 128
"""Series that are looked at, all groups together."""

QUICK_PAGES: Final = 24
"""Pages that are decompressed, at some 20 us each: those of two series over two days of minutes."""


class NotQuickError(Exception):
    """What is asked for may take long, or wait for a disk: it is another thread's to read."""


class QuickReader(Reader):
    """A reader that refuses what is not quick."""

    def spans(self, tables: Sequence[MetricTable | None], groups: Sequence[SeriesIds], start: int, end: int) -> Spans:
        """What `Reader.spans` returns.

        Raises:
            NotQuickError: They have many members, or some whose windows differ in their phase: these are looked up.
        """
        if sum(map(len, groups)) > QUICK_MEMBERS:
            raise NotQuickError
        return super().spans(tables, groups, start, end)

    def _span_across_phases(self, table: MetricTable, group: SeriesIds, start: int, end: int) -> Span:
        raise NotQuickError

    def check(self, sources: Sources) -> None:
        """Finds out whether the samples of some spans can be read quickly, window by window.

        Raises:
            NotQuickError: They are not all in memory, or not where they can be added up in one go.
        """
        spans = sources.spans
        sealed: list[tuple[SealedTile, int]] = []  # and the pages that are needed of each
        for number, (_, n_slots, n_members, is_aligned) in enumerate(spans.table.tolist()):
            table = sources.tables[number]
            if table is None or not n_slots or not n_members:
                continue
            if not is_aligned:
                raise NotQuickError
            first = int(spans.edges[number])
            has_aggregates = n_members >= AGGREGATED_MEMBERS_MIN and sources.hosts[number] is not None
            pages = self._pages_by_band(spans.members[first : first + n_members])
            first_slot = int(spans.first_slots[first])
            for window in range(first_slot >> WINDOW_BITS, ((first_slot + n_slots - 1) >> WINDOW_BITS) + 1):
                found = table.windows.get(window)
                if found is None:
                    continue
                if has_aggregates and found.aggregates is None:  # they may have to be read from a disk
                    raise NotQuickError
                for band, bits in pages.items():
                    tile = found.tiles.get(band)
                    if tile is None and found.stored is not None:
                        self._check_stored(found.stored, band, bits)
                    elif isinstance(tile, SealedTile):
                        sealed.append((tile, bits))
        # Where there are so few of them, whether they are open need not be looked up.
        if sum(bits.bit_count() for _, bits in sealed) > QUICK_PAGES:
            n_closed = sum(self._pages.n_closed(tile, bits) for tile, bits in sealed)
            if n_closed > QUICK_PAGES:
                raise NotQuickError

    def _pages_by_band(self, members: SeriesIds) -> dict[int, int]:
        """The pages of each band that hold rows of some series, as bits."""
        columns, pages = self._series.columns, dict[int, int]()
        for band, lane in zip(columns.band[members].tolist(), columns.lane[members].tolist(), strict=True):
            pages[band] = pages.get(band, 0) | 1 << lane // PAGE_ROWS
        return pages

    def _check_stored(self, stored: StoredWindow, band: int, pages: int) -> None:
        """Finds out whether pages of a tile are in memory although the tile is not: they were decompressed lately.

        Raises:
            NotQuickError: They are not.
        """
        tile = stored.known_tile(band)
        if tile is None or self._pages.n_closed(tile, pages):
            raise NotQuickError
