"""The store: everything held, in one object.

One thread writes (`series_id`, `append`, `free`, `maintain`); any number of threads read at the same time through
`reader()`. Nothing here does I/O, knows the wall clock or a protocol.

A store that is logged is written in two steps, `place` and `put`, with an entry of the log between them. It keeps track
of which entries hold samples that are nowhere else (`Window.unstored`): a log can be cut behind those that are stored.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.append import (
    APPEARED,
    BAND,
    NEXT,
    PLACED,
    PROGRESS_LENGTH,
    WINDOW,
    Placement,
    place_samples,
    put_samples,
)
from ccms_server.store.cancellation import Cancellation
from ccms_server.store.layout import PHASE_UNSET, SLOT_MAX, SLOT_MIN, TILE_ROWS, WINDOW_BITS, WINDOW_SLOTS
from ccms_server.store.metric import Metric
from ccms_server.store.page_cache import PageCache
from ccms_server.store.quick_read import QuickReader
from ccms_server.store.read import Reader
from ccms_server.store.registry import Registry
from ccms_server.store.sealed_tile import SealedTile, as_stored
from ccms_server.store.table import (
    AGGREGATED_MEMBERS_MIN,
    MetricTable,
    OpenTile,
    StoredWindow,
    Window,
    fingerprint,
    pack_aggregates,
)
from ccms_server.store.tile_pool import TilePool
from ccms_server.store.tree import NO_SERIES, Level, SeriesIds

logger = logging.getLogger(__name__)

QUIET_SAMPLES_PER_SERIES: Final = 8
"""A window is quiet once the store took in so many samples for each of its series since the window's last one."""

SEALED_AT_ONCE_MAX: Final = 64
"""Tiles that are sealed in one go when all are open: a write waits for about a millisecond each."""

_FAR: Final = 1 << 61
"""A time after all samples, in seconds."""


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
    """Bytes of the compressed tiles, aggregates in memory included."""


class Store(Registry):
    """What is registered, and the tiles that hold its samples.

    Attributes:
        log_number: Number of the last entry of the log that was put; None: the store is not logged.
    """

    def __init__(
        self, metrics: Sequence[Metric], *, series_max: int, open_window_bytes: int, retired: Collection[int] = ()
    ) -> None:
        """Makes an empty store.

        Args:
            metrics: The metrics it will hold; names are unique, but for those that are retired.
            series_max: Series it will register at most.
            open_window_bytes: Memory open windows may take; beyond it, windows are sealed early.
            retired: Positions of metrics that were configured once: their samples are kept, but not served.
        """
        super().__init__(metrics, series_max=series_max, retired=retired)
        self.log_number: int | None = None
        self._pool = TilePool(open_window_bytes)
        self._pages = PageCache()
        self._version = 0  # changes whenever a group may have changed
        self._samples_taken = 0
        self._untouched_since = 0  # _samples_taken when maintenance last looked

    # --- what there is

    def group(self, metric_id: int, path: Sequence[str]) -> SeriesIds:
        """The series with samples that make up a level's value of a metric; empty if there are none."""
        level = self.tree.find(path)
        return NO_SERIES if level is None else self.group_at(metric_id, level)

    def group_at(self, metric_id: int, level: Level) -> SeriesIds:
        """The same of a level."""
        return level.group(metric_id, self._version, self._series.has_samples)

    def reader(self, cancellation: Cancellation | None = None) -> Reader:
        """A reader for one piece of work on one thread, which may be cancelled."""
        return Reader(self._series, self._pool, self._pages, cancellation)

    def quick_reader(self, cancellation: Cancellation) -> QuickReader:
        """A reader that refuses what is not quick."""
        return QuickReader(self._series, self._pool, self._pages, cancellation)

    def extents(self, series: SeriesIds) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """When the samples of series begin, and how many slots they span.

        Args:
            series: int32 array of shape (n_series,), ids.

        Returns:
            int64 arrays of shape (n_series,): times at which the slots of the first samples begin, in seconds; and the
            number of slots from there to the last samples. 0 slots: no samples, and the time says nothing.
        """
        columns = self._series.columns
        bands = columns.band[series]
        intervals = self._bands.columns.interval[bands]
        last = columns.last_slot[series]
        first = np.maximum(columns.first_slot[series], columns.floor_slot[series])
        phases = columns.phase[series].astype(np.int64)
        alive = (last >= first) & (phases != PHASE_UNSET)
        first[~alive], last[~alive] = 0, -1
        starts: NDArray[np.int64] = phases + first * intervals - (intervals >> 1)
        n_slots: NDArray[np.int64] = last - first + 1
        for position in np.flatnonzero(columns.rephased[series] & alive).tolist():
            table = self.tables[int(self._bands.columns.metric[bands[position]])]
            span = self.reader().span(table, series[position : position + 1], -_FAR, _FAR)
            starts[position], n_slots[position] = span.start - intervals[position] // 2, span.n_slots
        return starts, n_slots

    def size(self) -> StoreSize:
        """Counts what the store holds, tile by tile."""
        open_tiles = samples_open = sealed_tiles = samples_sealed = sealed_bytes = 0
        for table in self.tables:
            for window in list(table.windows.values()):
                in_memory = dict(window.tiles)
                for tile in in_memory.values():
                    if isinstance(tile, OpenTile):
                        open_tiles += 1
                        samples_open += int(self._pool.columns.samples[tile.number])
                    else:
                        sealed_tiles += 1
                        samples_sealed += tile.n_samples
                        sealed_bytes += len(tile.payload)
                counts = {} if window.stored is None else window.stored.tile_counts()
                for band in counts.keys() & set(table.bands) - in_memory.keys():
                    n_samples, n_bytes = counts[band]
                    sealed_tiles += 1
                    samples_sealed += n_samples
                    sealed_bytes += n_bytes
                for aggregate in {row.tile for row in list((window.aggregates or {}).values())}:
                    sealed_bytes += len(aggregate.payload)
        return StoreSize(self._series.count, samples_open, samples_sealed, open_tiles, sealed_tiles, sealed_bytes)

    # --- writing

    def append(
        self,
        series: NDArray[np.int32],
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        *,
        oldest: int,
        newest: int,
    ) -> tuple[int, NDArray[np.uint8]]:
        """Places samples and puts them there, without a log; see `place`.

        Returns:
            Samples stored, and the outcome of each.
        """
        placed, outcome = self.place(series, timestamps, values, oldest=oldest, newest=newest)
        self.put(placed)
        return len(placed.series), outcome

    def place(
        self,
        series: NDArray[np.int32],
        timestamps: NDArray[np.int64],
        values: NDArray[np.float64],
        *,
        oldest: int,
        newest: int,
    ) -> tuple[Placement, NDArray[np.uint8]]:
        """Decides which samples are taken, and where they go. Nobody sees them before they are `put`.

        Args:
            series: int32 array of shape (n_samples,), ids.
            timestamps: int64 array of shape (n_samples,), seconds.
            values: float64 array of shape (n_samples,); NaN is no sample.
            oldest: Samples before this time are rejected, seconds.
            newest: Samples after this time are rejected, seconds.

        Returns:
            Those that are taken, in order; and a uint8 array of shape (n_samples,): STORED, NO_SAMPLE or the
            RejectReason of each.
        """
        n_samples = len(series)
        outcome = np.empty(n_samples, np.uint8)
        progress = np.zeros(PROGRESS_LENGTH, np.int64)
        room = Placement(
            np.empty(n_samples, np.int32),
            np.empty(n_samples, np.int64),
            np.empty(n_samples, np.int32),
            np.empty(n_samples, np.float64),
        )
        while True:
            place_samples(
                series,
                timestamps,
                values,
                oldest,
                newest,
                self._series.columns,
                self._bands.columns,
                self._pool.columns,
                outcome,
                room,
                progress,
            )
            if progress[NEXT] == n_samples:
                break
            self._open_tile(band=int(progress[BAND]), number=int(progress[WINDOW]))
        n_placed = int(progress[PLACED])
        return (room if n_placed == n_samples else room.some(slice(n_placed))), outcome

    def put(self, placed: Placement, *, takes_phases: bool = True) -> None:
        """Writes samples to the places they were given; readers see them from now on.

        Args:
            placed: The samples.
            takes_phases: Whether the phase of a window that begins is that of its series from now on.
        """
        self._put(placed, is_in_tiles=False, takes_phases=takes_phases)

    def note(self, placed: Placement) -> None:
        """Lets the series know of samples whose tiles are restored otherwise."""
        self._put(placed, is_in_tiles=True, takes_phases=True)

    def _put(self, placed: Placement, *, is_in_tiles: bool, takes_phases: bool) -> None:
        progress = np.zeros(PROGRESS_LENGTH, np.int64)
        try:
            while True:
                put_samples(
                    placed,
                    is_in_tiles,
                    takes_phases,
                    self._samples_taken,
                    self._series.columns,
                    self._bands.columns,
                    self._pool.columns,
                    progress,
                )
                if progress[NEXT] == len(placed.series):
                    return
                self._open_tile(band=int(progress[BAND]), number=int(progress[WINDOW]))
        finally:  # what was stored before an error is stored
            self._samples_taken += int(progress[NEXT])
            self._version += int(progress[APPEARED])

    def free(self, path: Sequence[str], before: int) -> int:
        """Drops all samples of a subtree that are older than a time, without a log; see `floors`.

        Returns:
            Number of series that lost samples.
        """
        series, slots = self.floors(path, before)
        self.set_floors(series, slots)
        return len(series)

    def floors(self, path: Sequence[str], before: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """What `set_floors` must be told so that all samples of a subtree before a time are dropped.

        Samples of that age that arrive later are rejected. Later ones are taken, however far `before` lies ahead.

        Args:
            path: The level, or empty for everything.
            before: Slots centred before this time cease to exist, seconds.

        Returns:
            int32 array and int64 array of shape (n_series,): the series that lose samples, and their first slots that
            exist from then on.
        """
        top = self.tree.find(path)
        columns = self._series.columns
        changed: list[int] = []
        floors: list[int] = []
        for level in top.walk() if top is not None else ():
            for metric_id, series in list(level.series.items()):
                if not self._series.has_samples(series):
                    continue
                interval = self.tables[metric_id].metric.interval
                # The first slot centred at `before` or later:
                reaching = -((int(columns.phase[series]) - before) // interval)
                floor = min(reaching, int(columns.last_slot[series]) + 1)
                if floor > max(columns.floor_slot[series], columns.first_slot[series]):
                    changed.append(series)
                    floors.append(floor)
        return np.array(changed, np.int32), np.array(floors, np.int64)

    def set_floors(self, series: NDArray[np.int32], slots: NDArray[np.int64]) -> None:
        """Drops the samples of series below a slot each."""
        floor_slot = self._series.columns.floor_slot
        floor_slot[series] = np.maximum(floor_slot[series], slots)
        self._version += 1

    # --- what is known of the series, for those who keep the samples

    def series_columns(self, names: Iterable[str]) -> tuple[int, dict[str, NDArray[Any]]]:
        """The number of series, and copies of some columns of `SeriesColumns`, by name."""
        count = self._series.count
        return count, {name: getattr(self._series.columns, name)[:count].copy() for name in names}

    def set_series_columns(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Restores columns of the first series, as `series_columns` returned them."""
        for name, column in columns.items():
            known = getattr(self._series.columns, name)
            known[: len(column)] = column[: len(known)]
        self._version += 1

    def is_known(self, series: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which of some ids stand for a series: bool array of the same shape."""
        bands = self._series.columns.band[: self._series.count]
        known = (series >= 0) & (series < len(bands))
        known[known] = bands[series[known]] >= 0
        return known

    @property
    def n_series(self) -> int:
        """Ids that were given to series."""
        return self._series.count

    def interval_of(self, band: int) -> int:
        """Seconds between two slots of a band."""
        return int(self._bands.columns.interval[band])

    def bands_of(self, series: NDArray[np.int32]) -> NDArray[np.int32]:
        """The bands of series: int32 array of the same shape."""
        return self._series.columns.band[series]

    def intervals_of(self, series: NDArray[np.int32]) -> NDArray[np.int64]:
        """Seconds between two slots of series: int64 array of the same shape."""
        return self._bands.columns.interval[self._series.columns.band[series]]

    def attach(self, interval: int, number: int, stored: StoredWindow) -> None:
        """Restores a window from tiles that are kept elsewhere.

        Args:
            interval: Seconds between two slots; the window is one of all tables with this interval.
            number: Number of the window.
            stored: Its tiles.
        """
        for table in self.tables:
            if table.metric.interval == interval:
                table.windows[number] = Window(aggregates=None, stored=stored)

    def note_tile(self, table: MetricTable, number: int, band: int, tile: SealedTile) -> None:
        """Finds out again what is known of the series of a tile: their phases and where they begin and end."""
        columns, rows = self._series.columns, self._bands.columns.series[band, : tile.n_rows]
        slots = (number << WINDOW_BITS) + np.arange(WINDOW_SLOTS)
        present = ~np.isnan(tile.read_all()) & (slots >= columns.floor_slot[rows, None])
        is_filled = present.any(axis=1) & (rows >= 0)
        series, present = rows[is_filled], present[is_filled]
        phases = tile.read_phases()[is_filled]
        first = (number << WINDOW_BITS) + present.argmax(axis=1)
        last = (number << WINDOW_BITS) + WINDOW_SLOTS - 1 - present[:, ::-1].argmax(axis=1)
        is_new = columns.phase[series] == PHASE_UNSET
        columns.rephased[series[~is_new & (columns.phase[series] != phases)]] = True
        columns.phase[series[is_new]] = phases[is_new]
        columns.first_slot[series] = np.minimum(columns.first_slot[series], first)
        columns.last_slot[series] = np.maximum(columns.last_slot[series], last)
        self._version += 1

    def trim(self) -> None:
        """Lets no series begin before the first window of its table."""
        for table in self.tables:
            self._begin_at(table, min(table.windows, default=SLOT_MAX >> WINDOW_BITS) << WINDOW_BITS)

    # --- maintenance

    def maintain(self, oldest: int) -> Iterator[None]:
        """Drops windows past the retention, then seals those that are quiet; yields after every piece of a few ms.

        Call it about once a second and run it to the end, between writes. What came in since the last call stays open.

        Args:
            oldest: Windows that end before this time are dropped, seconds.
        """
        for table in self.tables:
            expired = self.expired(table, oldest)
            if expired:
                self.drop(table, expired)
                yield
        yield from self.seal_quiet()

    def seal_quiet(self) -> Iterator[None]:
        """Seals the windows that are quiet; see `maintain`."""
        touched_before = min(self._untouched_since, self._samples_taken - QUIET_SAMPLES_PER_SERIES * self._series.count)
        self._untouched_since = self._samples_taken
        for table in self.tables:
            newest = max(table.windows, default=SLOT_MIN)
            for number in sorted(table.unsealed):
                if number < newest and self._is_quiet(table.windows[number], touched_before):
                    yield from self.seal_window(table, number)

    def _is_quiet(self, window: Window, touched_before: int) -> bool:
        touched = self._pool.columns.touched
        return all(touched[tile.number] < touched_before for _, tile in window.open_tiles())

    def seal_all(self) -> None:
        """Seals every window, also those being written."""
        for table in self.tables:
            for number in list(table.unsealed):
                for _ in self.seal_window(table, number):
                    pass

    def _open_tile(self, band: int, number: int) -> None:
        """Opens the tile of a band in a window, so that kernels find it: from scratch, or what was sealed."""
        table, pool = self.tables[self._bands.columns.metric[band]], self._pool.columns
        window = table.windows.get(number)
        if window is None:
            window = table.windows[number] = Window()
        tile = window.tile(band)
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
            if self.log_number is not None:
                window.unstored.setdefault(band, self.log_number + 1)
                table.unstored.add(number)
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

    def seal_window(self, table: MetricTable, number: int) -> Iterator[None]:
        """Stores the aggregates of a window's hosts, and seals its open tiles."""
        window, clock = table.windows[number], self._samples_taken
        before = {band: window.tile(band) for band in window.stale}
        if table.metric.aggregation is not None:
            yield from self._aggregate_hosts(table, number)
        for band, tile in before.items():
            if window.tile(band) is not tile:
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
        if self.log_number is not None:
            table.unstored.add(number)  # the aggregates at least

    def _seal_tile(self, table: MetricTable, number: int, band: int) -> None:
        window = table.windows[number]
        tile = window.tiles[band]
        assert isinstance(tile, OpenTile), "only open tiles are sealed"
        rows, pool = int(self._bands.columns.rows[band]), self._pool.columns
        values = np.ascontiguousarray(pool.values[tile.number, :, :rows].T)
        sealed = SealedTile.seal(values, pool.phases[tile.number, :rows])
        self._bands.forget(band, number)
        window.tiles[band] = sealed  # readers find the sealed tile from here on
        if self.log_number is not None:
            window.sealed[band] = sealed, self.log_number
        self._pool.give_back(tile.number)

    def _aggregate_hosts(self, table: MetricTable, number: int) -> Iterator[None]:
        """Stores the sums of hosts whose samples in a window changed since that was last done.

        Hosts are packed in blocks, in order of registration; a block without a change is left as it is.
        """
        window, reader = table.windows[number], self.reader()
        stale, hosts = set(window.stale), list(table.hosts)
        aggregates = table.aggregates(window)
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

    def expired(self, table: MetricTable, oldest: int) -> list[int]:
        """Numbers of a table's windows that end before a time in seconds."""
        kept_from = (oldest // table.metric.interval - 2) >> WINDOW_BITS  # slots are centred at most one off the grid
        return [number for number in table.windows if number < kept_from]

    def drop(self, table: MetricTable, expired: Collection[int]) -> None:
        """Drops the oldest windows of a table.

        Args:
            table: The table.
            expired: Numbers of all its windows up to some time.
        """
        self._begin_at(table, (max(expired) + 1) << WINDOW_BITS)
        for number in expired:
            window = table.windows.pop(number)
            table.unsealed.discard(number)
            table.unstored.discard(number)
            for band, tile in window.open_tiles():
                self._bands.forget(band, number)
                self._pool.give_back(tile.number)
        logger.debug("%s: dropped %d windows of %d slots", table.metric.name, len(expired), WINDOW_SLOTS)

    def _begin_at(self, table: MetricTable, first_kept: int) -> None:
        """Lets no series of a table begin before a slot."""
        columns, rows = self._series.columns, self._bands.columns.series[table.bands]
        series = rows[rows >= 0]
        gone = series[columns.last_slot[series] < first_kept]
        columns.first_slot[gone], columns.last_slot[gone] = SLOT_MAX, SLOT_MIN
        shortened = series[columns.first_slot[series] < first_kept]
        columns.first_slot[shortened] = first_kept
        self._version += 1
