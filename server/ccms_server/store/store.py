"""The store: everything held, in one object.

One thread writes (`series_id`, `append`, `free`, `maintain`); any number of threads read at the same time through
`reader()`. Nothing here does I/O, knows the wall clock or a protocol.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.append import APPEARED, BAND, NEXT, PROGRESS_LENGTH, STORED_COUNT, WINDOW, append_samples
from ccms_server.store.layout import SLOT_MAX, SLOT_MIN, TILE_ROWS, WINDOW_BITS, WINDOW_SLOTS
from ccms_server.store.metric import Metric
from ccms_server.store.read import Reader
from ccms_server.store.sealed_tile import SealedTile, as_stored
from ccms_server.store.series import Bands, SeriesArrays
from ccms_server.store.table import (
    AGGREGATED_MEMBERS_MIN,
    MetricTable,
    OpenTile,
    Window,
    fingerprint,
    pack_aggregates,
)
from ccms_server.store.tile_pool import TilePool
from ccms_server.store.tree import NO_SERIES, Level, SeriesIds, Tree

logger = logging.getLogger(__name__)

QUIET_SAMPLES_PER_SERIES: Final = 8
"""A window is quiet once the store took in so many samples for each of its series since the window's last one."""

SEALED_AT_ONCE_MAX: Final = 64
"""Tiles that are sealed in one go when all are open: a write waits for about a millisecond each."""

HOST_DEPTH: Final = 2
"""Path elements of a host: cluster, host."""


@dataclass(frozen=True, slots=True)
class StoreSize:
    """What the store holds."""

    series: int
    """Series registered."""
    samples_open: int
    """Samples in open tiles."""
    samples_sealed: int
    """Samples in sealed tiles."""
    open_tiles: int
    """Tiles being written."""
    sealed_tiles: int
    """Compressed tiles."""
    sealed_bytes: int
    """Bytes of the compressed tiles, aggregates included."""


class Store:
    """Tree, tables and tiles of all metrics."""

    def __init__(self, metrics: Sequence[Metric], *, series_max: int, open_window_bytes: int) -> None:
        """Makes an empty store.

        Args:
            metrics: The metrics it will hold; names are unique.
            series_max: Series it will register at most.
            open_window_bytes: Memory open windows may take; beyond it, windows are sealed early.
        """
        self.tree = Tree()
        self.tables = [MetricTable(metric, number) for number, metric in enumerate(metrics)]
        self._metric_ids = {metric.name: number for number, metric in enumerate(metrics)}
        assert len(self._metric_ids) == len(metrics), "metric names are unique"
        self._series_max = series_max
        self._series = SeriesArrays()
        self._bands = Bands()
        self._pool = TilePool(open_window_bytes)
        self._version = 0  # changes whenever a group may have changed
        self._samples_taken = 0
        self._untouched_since = 0  # _samples_taken when maintenance last looked

    # --- what there is

    def metric_id(self, name: str) -> int | None:
        """Number of a configured metric, or None."""
        return self._metric_ids.get(name)

    def hosts(self, cluster: str) -> list[str]:
        """Hosts of a cluster in order of first appearance; empty for an unknown cluster."""
        return self.tree.names_below((cluster,))

    def group(self, metric_id: int, path: Sequence[str]) -> SeriesIds:
        """The series with samples that make up a level's value of a metric; empty if there are none."""
        level = self.tree.find(path)
        return NO_SERIES if level is None else level.group(metric_id, self._version, self._series.has_samples)

    def reader(self) -> Reader:
        """A reader for one piece of work on one thread."""
        return Reader(self._series, self._pool)

    def size(self) -> StoreSize:
        """Counts what the store holds, tile by tile."""
        open_tiles = samples_open = sealed_tiles = samples_sealed = sealed_bytes = 0
        for table in self.tables:
            for window in list(table.windows.values()):
                for tile in list(window.tiles.values()):
                    if isinstance(tile, OpenTile):
                        open_tiles += 1
                        samples_open += int(self._pool.columns.samples[tile.number])
                    else:
                        sealed_tiles += 1
                        samples_sealed += tile.n_samples
                        sealed_bytes += len(tile.payload)
                for aggregate in {row.tile for row in list(window.aggregates.values())}:
                    sealed_bytes += len(aggregate.payload)
        return StoreSize(self._series.count, samples_open, samples_sealed, open_tiles, sealed_tiles, sealed_bytes)

    # --- writing

    def series_id(self, metric_id: int, path: tuple[str, ...]) -> int | None:
        """The series of a metric at a path; registers it if it is new.

        Args:
            metric_id: The metric.
            path: Cluster, host, and optionally component and sub-component.

        Returns:
            Its id, or None when the store holds as many series as it may.
        """
        assert HOST_DEPTH <= len(path) <= HOST_DEPTH + 2, path
        level = self.tree.find(path)
        known = None if level is None else level.series.get(metric_id)
        if known is not None:
            return known
        if self._series.count >= self._series_max:
            return None
        table = self.tables[metric_id]
        if not table.bands or self._bands.columns.rows[table.bands[-1]] == TILE_ROWS:
            table.bands.append(self._bands.add(metric_id, table.metric.interval))
        band, bands = table.bands[-1], self._bands.columns
        lane = int(bands.rows[band])
        series = self._series.add(band, lane)
        bands.series[band, lane] = series
        bands.rows[band] += 1
        self.tree.make(path).series[metric_id] = series
        if len(path) > HOST_DEPTH:
            table.hosts[self.tree.make(path[:HOST_DEPTH])] = None
        return series

    def append(
        self,
        series: NDArray[np.int32],
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        *,
        oldest: int,
        newest: int,
    ) -> tuple[int, NDArray[np.uint8]]:
        """Stores samples in order; a later sample of a slot replaces an earlier one.

        Args:
            series: int32 array of shape (n_samples,), ids.
            timestamps: int64 array of shape (n_samples,), seconds.
            values: float64 array of shape (n_samples,); NaN is no sample.
            oldest: Samples before this time are rejected, seconds.
            newest: Samples after this time are rejected, seconds.

        Returns:
            Samples stored, and a uint8 array of shape (n_samples,): STORED, NO_SAMPLE or the RejectReason of each.
        """
        outcome = np.empty(len(series), np.uint8)
        progress = np.zeros(PROGRESS_LENGTH, np.int64)
        try:
            while True:
                append_samples(
                    series,
                    timestamps,
                    values,
                    oldest,
                    newest,
                    self._samples_taken,
                    self._series.columns,
                    self._bands.columns,
                    self._pool.columns,
                    outcome,
                    progress,
                )
                if progress[NEXT] == len(series):
                    return int(progress[STORED_COUNT]), outcome
                self._open_tile(band=int(progress[BAND]), number=int(progress[WINDOW]))
        finally:  # what was stored before an error is stored
            self._samples_taken += int(progress[STORED_COUNT])
            self._version += int(progress[APPEARED])

    def free(self, path: Sequence[str], before: int) -> int:
        """Drops all samples of a subtree that are older than a time.

        Samples of that age that arrive later are rejected. Later ones are taken, however far `before` lies ahead.

        Args:
            path: The level, or empty for everything.
            before: Slots centred before this time cease to exist, seconds.

        Returns:
            Number of series that lost samples.
        """
        top = self.tree.find(path)
        if top is None:
            return 0
        columns, changed = self._series.columns, 0
        for level in top.walk():
            for metric_id, series in list(level.series.items()):
                if not self._series.has_samples(series):
                    continue
                interval = self.tables[metric_id].metric.interval
                # The first slot centred at `before` or later:
                reaching = -((int(columns.phase[series]) - before) // interval)
                floor = min(reaching, int(columns.last_slot[series]) + 1)
                if floor > max(columns.floor_slot[series], columns.first_slot[series]):
                    columns.floor_slot[series] = floor
                    changed += 1
        self._version += 1
        return changed

    # --- maintenance

    def maintain(self, oldest: int) -> Iterator[None]:
        """Drops windows past the retention, then seals those that are quiet; yields after every piece of a few ms.

        Call it about once a second and run it to the end, between writes. What came in since the last call stays open.

        Args:
            oldest: Windows that end before this time are dropped, seconds.
        """
        for table in self.tables:
            if self._truncate(table, oldest):
                yield
        touched_before = min(self._untouched_since, self._samples_taken - QUIET_SAMPLES_PER_SERIES * self._series.count)
        self._untouched_since = self._samples_taken
        for table in self.tables:
            newest = max(table.windows, default=SLOT_MIN)
            for number in sorted(table.unsealed):
                if number < newest and self._is_quiet(table.windows[number], touched_before):
                    yield from self._seal_window(table, number)

    def _is_quiet(self, window: Window, touched_before: int) -> bool:
        touched = self._pool.columns.touched
        return all(touched[tile.number] < touched_before for _, tile in window.open_tiles())

    def seal_all(self) -> None:
        """Seals every window, also those being written."""
        for table in self.tables:
            for number in list(table.unsealed):
                for _ in self._seal_window(table, number):
                    pass

    def _open_tile(self, band: int, number: int) -> None:
        """Opens the tile of a band in a window, so that kernels find it: from scratch, or what was sealed."""
        table, pool = self.tables[self._bands.columns.metric[band]], self._pool.columns
        window = table.windows.get(number)
        if window is None:
            window = table.windows[number] = Window()
        tile = window.tiles.get(band)
        if not isinstance(tile, OpenTile):
            if self._pool.full:
                self._make_room()
            opened = OpenTile(self._pool.take())
            if tile is not None:
                stored = as_stored(tile.read_all())
                pool.values[opened.number, :, : len(stored)] = stored.T
                present = (stored != 0).any(axis=1)
                pool.phases[opened.number, : len(stored)][present] = tile.read_phases()[present]
                pool.samples[opened.number] = tile.n_samples
            pool.touched[opened.number] = self._samples_taken
            window.stale.add(band)
            table.unsealed.add(number)
            window.tiles[band] = tile = opened
        self._bands.point_to(band, number, tile.number)

    def _make_room(self) -> None:
        """Seals the tiles that were written longest ago, because all are open. Their windows stay stale."""
        opened = [
            (int(self._pool.columns.touched[tile.number]), table, number, band)
            for table in self.tables
            for number in table.unsealed
            for band, tile in table.windows[number].open_tiles()
        ]
        opened.sort(key=lambda entry: entry[0])
        count = min(1 + self._pool.capacity // 16, SEALED_AT_ONCE_MAX)
        for _, table, number, band in opened[:count]:
            self._seal_tile(table, number, band)
        logger.debug("all %d tiles were open; sealed %d", self._pool.capacity, count)

    def _seal_window(self, table: MetricTable, number: int) -> Iterator[None]:
        """Stores the aggregates of a window's hosts, and seals its open tiles."""
        window, clock = table.windows[number], self._samples_taken
        before = {band: window.tiles[band] for band in window.stale}
        if table.metric.aggregation is not None:
            yield from self._aggregate_hosts(table, number)
        for band, tile in before.items():
            if window.tiles[band] is not tile:
                continue  # opened, or written and sealed, during a pause: it was not added up as it is now
            is_as_added_up = True
            if isinstance(tile, OpenTile):
                is_as_added_up = bool(self._pool.columns.touched[tile.number] < clock)
                self._seal_tile(table, number, band)
            if is_as_added_up:
                window.stale.discard(band)
            yield  # only now: a write in this pause makes it stale again
        if not window.stale:
            table.unsealed.discard(number)

    def _seal_tile(self, table: MetricTable, number: int, band: int) -> None:
        window = table.windows[number]
        tile = window.tiles[band]
        assert isinstance(tile, OpenTile), "only open tiles are sealed"
        rows, pool = int(self._bands.columns.rows[band]), self._pool.columns
        values = np.ascontiguousarray(pool.values[tile.number, :, :rows].T)
        sealed = SealedTile.seal(values, pool.phases[tile.number, :rows])
        self._bands.forget(band, number)
        window.tiles[band] = sealed  # readers find the sealed tile from here on
        self._pool.give_back(tile.number)

    def _aggregate_hosts(self, table: MetricTable, number: int) -> Iterator[None]:
        """Stores the sums of hosts whose samples in a window changed since that was last done.

        Hosts are packed in blocks, in order of registration; a block without a change is left as it is.
        """
        window, reader = table.windows[number], self.reader()
        stale, hosts = set(window.stale), list(table.hosts)
        aggregates = dict(window.aggregates)
        for first in range(0, len(hosts), TILE_ROWS):
            block = hosts[first : first + TILE_ROWS]
            groups = [host.group(table.metric_id, self._version, self._series.has_samples) for host in block]
            yield
            changed = [not stale.isdisjoint(self._series.columns.band[group].tolist()) for group in groups]
            if not any(changed):
                continue
            rows: list[tuple[Level, NDArray[np.float64], int, bytes]] = []
            for host, group, is_changed in zip(block, groups, changed, strict=True):
                kept = aggregates.pop(host, None)
                if len(group) < AGGREGATED_MEMBERS_MIN:
                    continue
                if kept is not None and not is_changed:
                    phase = kept.tile.read_phase(kept.row)
                    rows.append((host, reader.aggregate_row(kept.tile, kept.row), phase, kept.members))
                    continue
                added_up = reader.window_sum(table, number, group)
                if added_up is not None:
                    total, phase, members = added_up
                    rows.append((host, total, phase, fingerprint(members)))
                yield
            aggregates.update(pack_aggregates(rows))
            yield
        window.aggregates = aggregates

    def _truncate(self, table: MetricTable, oldest: int) -> bool:
        """Drops the windows of a table that end before a time; whether there were any."""
        # Slots are centred at most an interval off the grid.
        kept_from = (oldest // table.metric.interval - 2) >> WINDOW_BITS
        expired = [number for number in table.windows if number < kept_from]
        if not expired:
            return False
        first_kept = kept_from << WINDOW_BITS
        columns, rows = self._series.columns, self._bands.columns.series[table.bands]
        series = rows[rows >= 0]
        gone = series[columns.last_slot[series] < first_kept]
        columns.first_slot[gone], columns.last_slot[gone] = SLOT_MAX, SLOT_MIN
        shortened = series[columns.first_slot[series] < first_kept]
        columns.first_slot[shortened] = first_kept
        self._version += 1
        for number in expired:
            window = table.windows.pop(number)
            table.unsealed.discard(number)
            for band, tile in window.open_tiles():
                self._bands.forget(band, number)
                self._pool.give_back(tile.number)
        logger.debug("%s: dropped %d windows of %d slots", table.metric.name, len(expired), WINDOW_SLOTS)
        return True
