"""One window of all metrics of an interval on its way to disk: gathered, written, and adopted by the store.

Gathering and adopting are the writer's; writing is for another thread, meanwhile samples go on arriving. A tile that
was opened again is written as it was sealed; what it got since is in the log until it is written the next time.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccms_server.durability.block import NO_HOST, AggregateEntry, Block, TileEntry, write_block
from ccms_server.durability.damage import DamageLog
from ccms_server.durability.directory import make_directories
from ccms_server.store.sealed_tile import SealedTile
from ccms_server.store.table import AggregateRow, MetricTable, Window
from ccms_server.store.tree import Level

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one metric contributes."""

    table: MetricTable
    window: Window
    sealed: dict[int, tuple[SealedTile, int]]
    """By band, those that are not in the old block as they are: tile, number of the last log entry in it."""
    aggregates: dict[Level, AggregateRow] | None
    """None: those of the old block hold."""


class BlockJob:
    """A window that is written.

    Attributes:
        interval: Seconds between two slots.
        number: Number of the window.
    """

    def __init__(self, interval: int, number: int, parts: Sequence[_Part], old: Block | None) -> None:
        self.interval = interval
        self.number = number
        self._parts = parts
        self._old = old

    @classmethod
    def gather(cls, tables: Sequence[MetricTable], number: int) -> "BlockJob":
        """Takes down what was sealed in a window and is not stored.

        Args:
            tables: All tables of one interval.
            number: Number of the window.
        """
        parts = []
        old: Block | None = None
        for table in tables:
            window = table.windows.get(number)
            if window is None:
                continue
            if window.stored is not None:
                assert isinstance(window.stored, Block), "windows are stored in blocks"
                old = window.stored
            # Which aggregates are stale is not stored: what may be is left out.
            aggregates = {} if window.stale else window.aggregates
            parts.append(_Part(table, window, dict(window.sealed), aggregates))
        return cls(tables[0].metric.interval, number, parts, old)

    @property
    def n_tiles(self) -> int:
        """Tiles that are new since the last time."""
        return sum(len(part.sealed) for part in self._parts)

    def write(self, path: Path, damage: DamageLog) -> Block:
        """Writes the block, and opens it.

        Raises:
            OSError: It cannot be written; the old one is still there.
        """
        make_directories(path.parent)
        write_block(path, self.interval, self.number, self._tile_entries(), self._aggregate_entries())
        return Block.open(path, damage)

    def adopt(self, block: Block) -> None:
        """Lets the store read what was written from the block, and forget it where it has not changed since."""
        for part in self._parts:
            table, window = part.table, part.window
            if table.windows.get(self.number) is not window:
                continue  # dropped meanwhile
            window.stored = block  # in this order: readers look into memory first
            if window.aggregates is part.aggregates:
                window.aggregates = None
            for band, (tile, last) in part.sealed.items():
                if window.tiles.get(band) is tile:
                    del window.tiles[band], window.unstored[band]
                else:  # opened again
                    window.unstored[band] = last + 1
                if window.sealed[band][0] is tile:
                    del window.sealed[band]
            if not window.unstored and window.aggregates is None:
                table.unstored.discard(self.number)

    def _tile_entries(self) -> Iterator[TileEntry]:
        new = {band: entry for part in self._parts for band, entry in part.sealed.items()}
        kept = {} if self._old is None else {entry.band: entry for entry in self._old.tile_entries()}
        for band in sorted(new.keys() | kept.keys()):
            if band in new:
                tile, last = new[band]
                yield TileEntry(band=band, number=last, payload=tile.payload, n_samples=tile.n_samples)
            else:
                yield kept[band]

    def _aggregate_entries(self) -> Iterator[AggregateEntry]:
        replaced = {part.table.metric_id for part in self._parts if part.aggregates is not None}
        for part in self._parts:
            if part.aggregates is not None:
                yield from _packed(part.table, part.aggregates)
        if self._old is not None:
            for entry in self._old.aggregate_entries():
                if entry.metric not in replaced:
                    yield entry


def _packed(table: MetricTable, aggregates: dict[Level, AggregateRow]) -> Iterator[AggregateEntry]:
    """Aggregates as they lie in their tiles: several hosts share one."""
    by_tile: dict[SealedTile, list[tuple[int, bytes]]] = {}
    for host, aggregate in aggregates.items():
        rows = by_tile.setdefault(aggregate.tile, [(NO_HOST, bytes(8))] * aggregate.tile.n_rows)
        rows[aggregate.row] = (table.hosts[host], aggregate.members)
    for tile, rows in by_tile.items():
        yield AggregateEntry(metric=table.metric_id, rows=rows, payload=tile.payload)
