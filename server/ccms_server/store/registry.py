"""What there is to hold samples of: metrics, levels of the tree, and series with the rows of tables that are theirs.

One thread registers; any number of threads look things up at the same time.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_server.store.layout import TILE_ROWS
from ccms_server.store.metric import Metric
from ccms_server.store.series import Bands, SeriesArrays, take_rows
from ccms_server.store.table import MetricTable
from ccms_server.store.tree import Level, Tree

HOST_DEPTH: Final = 2
"""Path elements of a host: cluster, host."""


class SeriesRow(NamedTuple):
    """A series and the row that holds it."""

    series: int
    """Its id."""
    metric_id: int
    path: tuple[str, ...]
    """Cluster, host, and optionally component and sub-component."""
    band: int
    lane: int


class NewSeries(NamedTuple):
    """Series that are registered together; each column has one entry for each of them."""

    first: int
    """Id of the first one; the others follow."""
    metric_ids: NDArray[np.int32]
    paths: list[tuple[str, ...]]
    """Cluster, host, and optionally component and sub-component."""
    bands: NDArray[np.int32]
    lanes: NDArray[np.uint8]


class Reserved(NamedTuple):
    """What new series must not get, because it belonged to series that are lost."""

    n_series: int
    """Ids before this one."""
    n_bands: int
    """Bands before this one, all rows of them."""


class _LevelInUse(NamedTuple):
    """A level of a host whose series are being registered."""

    path: tuple[str, ...]
    known: dict[int, int]
    """See `Level.series`."""
    new: dict[int, int]
    """What is to be added."""


class Registry:
    """Metrics, levels and series.

    Attributes:
        tree: All levels.
        tables: The tables of all metrics, by metric id.
        on_registered: Are told of all series that are registered, on the thread that writes.
    """

    def __init__(self, metrics: Sequence[Metric], *, series_max: int, retired: Collection[int] = ()) -> None:
        """Makes a registry without series.

        Args:
            metrics: The metrics; names are unique, but for those that are retired.
            series_max: Series it will register at most.
            retired: Positions of metrics that were configured once: their samples are kept, but not served.
        """
        self.tree = Tree()
        self.tables = [MetricTable(metric, number) for number, metric in enumerate(metrics)]
        self.on_registered: list[Callable[[NewSeries], None]] = []
        self._metric_ids = {metric.name: number for number, metric in enumerate(metrics) if number not in retired}
        assert len(self._metric_ids) + len(set(retired)) == len(metrics), "metric names are unique"
        self._series_max = series_max
        self._series = SeriesArrays()
        self._bands = Bands()

    def metric_id(self, name: str) -> int | None:
        """Number of a configured metric, or None."""
        return self._metric_ids.get(name)

    def configure(self, number: int, metric: Metric) -> None:
        """Serves a metric from now on, or another rule to aggregate it by.

        Args:
            number: Position of its table; the next one for a metric that has none.
            metric: With the interval of the table.
        """
        if number == len(self.tables):
            self.tables.append(MetricTable(metric, number))
        table = self.tables[number]
        assert table.metric.interval == metric.interval, "samples lie on the grid of their interval"
        table.metric = metric
        self._metric_ids[metric.name] = number

    def hosts(self, cluster: str) -> list[str]:
        """Hosts of a cluster in order of first appearance; empty for an unknown cluster."""
        return self.tree.names_below((cluster,))

    def known_series(self, metric_id: int, path: Sequence[str]) -> int | None:
        """The series of a metric at a path; None if it is not registered."""
        level = self.tree.find(path)
        return None if level is None else level.series.get(metric_id)

    def series_id(self, metric_id: int, path: tuple[str, ...]) -> int | None:
        """The series of a metric at a path; registers it if it is new.

        Args:
            metric_id: The metric.
            path: Cluster, host, and optionally component and sub-component.

        Returns:
            Its id, or None when the store holds as many series as it may.
        """
        assert HOST_DEPTH <= len(path) <= HOST_DEPTH + 2, path
        known = self.known_series(metric_id, path)
        if known is not None:
            return known
        if not self.series_free:
            return None
        new = self._take_rows([metric_id], [path])
        self.tree.make(path).series[metric_id] = new.first
        self._announce(new)
        return new.first

    def host_series(
        self, cluster: str, host: str, below_host: Sequence[tuple[int, tuple[str, ...]]]
    ) -> NDArray[np.int32]:
        """Series of one host; registers those that are new, in order. There is room for all of them.

        Args:
            cluster: The cluster.
            host: The host.
            below_host: Of each series, the metric and the path below the host: empty, or component and perhaps
                sub-component. One may come several times.

        Returns:
            int32 array of shape (n_series,): their ids.
        """
        assert len(below_host) <= self.series_free, len(below_host)
        ids: list[int] = []
        levels: dict[tuple[str, ...], _LevelInUse] = {}
        metric_ids: list[int] = []
        paths: list[tuple[str, ...]] = []
        next_id = self._series.count
        for metric_id, below in below_host:
            level = levels.get(below)
            if level is None:
                path = (cluster, host, *below)
                level = levels[below] = _LevelInUse(path, self.tree.make(path).series, {})
            series = level.known.get(metric_id)
            if series is None:
                series = level.new.get(metric_id)
                if series is None:
                    series = level.new[metric_id] = next_id
                    next_id += 1
                    metric_ids.append(metric_id)
                    paths.append(level.path)
            ids.append(series)
        if metric_ids:
            new = self._take_rows(metric_ids, paths)
            for level in levels.values():
                level.known.update(level.new)
            self._announce(new)
        return np.array(ids, np.int32)

    @property
    def series_free(self) -> int:
        """Series that may still be registered."""
        return max(0, self._series_max - self._series.count)

    def _take_rows(self, metric_ids: list[int], paths: list[tuple[str, ...]]) -> NewSeries:
        """Gives new series of one host ids and rows. Readers do not see them before they hang in the tree."""
        tables, first_band = self.tables, self._bands.count
        distinct = set(metric_ids)
        last_bands = np.full(len(tables), -1, np.int32)
        for metric_id in distinct:
            if tables[metric_id].bands:
                last_bands[metric_id] = tables[metric_id].bands[-1]
        # All memory first: rows that were taken for series that never come to be would be taken twice.
        self._bands.reserve(len(distinct) + len(metric_ids) // TILE_ROWS)
        self._series.reserve(len(metric_ids))
        metrics = np.array(metric_ids, np.int32)
        bands, lanes = np.empty(len(metrics), np.int32), np.empty(len(metrics), np.uint8)
        end_band = take_rows(metrics, self._series.count, last_bands, first_band, self._bands.columns, bands, lanes)
        for metric_id in self._bands.columns.metric[first_band:end_band].tolist():
            tables[metric_id].bands.append(self._bands.add(metric_id, tables[metric_id].metric.interval))
        return NewSeries(self._series.extend(bands, lanes), metrics, paths, bands, lanes)

    def _announce(self, new: NewSeries) -> None:
        """Tells of series of one host that hang in the tree now."""
        series = zip(new.metric_ids.tolist(), new.paths, strict=True)
        below_host = {metric_id for metric_id, path in series if len(path) > HOST_DEPTH}
        if below_host:
            self._note_host(self.tree.make(new.paths[0][:HOST_DEPTH]), below_host)
        for tell in self.on_registered:
            tell(new)

    def restore_series(self, rows: Iterable[SeriesRow | Reserved]) -> None:
        """Registers series in the rows they had before, in an empty store.

        Args:
            rows: The series, by id, some may be missing; and what was reserved before the next one was registered.
        """
        assert self._series.count == 0, "series are restored first"
        for row in rows:
            if isinstance(row, Reserved):
                self.reserve(row)
                continue
            while self._series.count < row.series:
                self._series.add_lost()
            while self._bands.count <= row.band:
                self._bands.add(row.metric_id, self.tables[row.metric_id].metric.interval)  # corrected below if lost
            bands = self._bands.columns
            if bands.rows[row.band] == 0:
                bands.metric[row.band] = row.metric_id
                bands.interval[row.band] = self.tables[row.metric_id].metric.interval
                self.tables[row.metric_id].bands.append(row.band)
            self._series.add(row.band, row.lane)
            self._hang_up(row)

    def reserve(self, reserved: Reserved) -> Reserved:
        """Gives new series neither ids nor rows that lost ones may have had; returns all that is taken now."""
        while self._series.count < reserved.n_series:
            self._series.add_lost()
        while self._bands.count < reserved.n_bands:
            self._bands.add(0, 1)
        for table in self.tables:
            if table.bands:
                self._bands.columns.rows[table.bands[-1]] = TILE_ROWS
        return Reserved(self._series.count, self._bands.count)

    def _hang_up(self, row: SeriesRow) -> None:
        """Makes a series known to its band and to the tree."""
        bands = self._bands.columns
        bands.series[row.band, row.lane] = row.series
        bands.rows[row.band] = row.lane + 1
        self.tree.make(row.path).series[row.metric_id] = row.series
        if len(row.path) > HOST_DEPTH:
            self._note_host(self.tree.make(row.path[:HOST_DEPTH]), [row.metric_id])

    def _note_host(self, host: Level, metric_ids: Iterable[int]) -> None:
        """Lets the tables of metrics know that a host has series of them below it."""
        for metric_id in metric_ids:
            hosts = self.tables[metric_id].hosts
            hosts.setdefault(host, len(hosts))
