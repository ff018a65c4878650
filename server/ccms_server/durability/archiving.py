"""What goes into the archive: a window of all metrics of an interval."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ccms_server.durability.archive import ArchivedSeries, archive_window, scope_of
from ccms_server.store.layout import WINDOW_SLOTS
from ccms_server.store.read import Reader
from ccms_server.store.table import MetricTable
from ccms_server.store.tree import Level, Tree


class Archive(Protocol):
    """Takes windows before they are dropped."""

    def write(self, tree: Tree, reader: Reader, tables: Sequence[MetricTable], number: int) -> None:
        """Archives a window that does not change any more. Doing so again, after a crash, changes nothing.

        Args:
            tree: The levels.
            reader: Reads the samples.
            tables: All tables of one interval.
            number: Number of the window.

        Raises:
            OSError: The disk refuses; some of the files may have been written.
        """


class ParquetArchive:
    """Writes windows into a directory, one file for each cluster; see `archive` for the files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, tree: Tree, reader: Reader, tables: Sequence[MetricTable], number: int) -> None:
        """See `Archive`."""
        interval = tables[0].metric.interval
        for cluster, level in list(tree.root.children.items()):
            series = _series_below(level, reader, tables, number)
            archive_window(self._directory, cluster, interval, number * WINDOW_SLOTS * interval, series)


def _series_below(
    cluster: Level, reader: Reader, tables: Sequence[MetricTable], number: int
) -> Iterator[ArchivedSeries]:
    """The samples of a cluster in a window, in the order of the archive."""
    table_by_metric = {table.metric_id: table for table in tables if number in table.windows}
    for hostname, host in sorted(cluster.children.items()):
        found: list[tuple[str, str, str, MetricTable, int]] = []
        for path, level in _levels(host):
            for metric_id, series in list(level.series.items()):
                table = table_by_metric.get(metric_id)
                if table is not None:
                    found.append((table.metric.name, *scope_of(*path), table, series))
        for metric, scope, scope_id, table, series in sorted(found, key=lambda entry: entry[:3]):
            timestamps, values = reader.window_samples(table, series, number)
            yield ArchivedSeries(hostname, metric, scope, scope_id, timestamps, values)


def _levels(host: Level) -> Iterator[tuple[tuple[str, ...], Level]]:
    """A host and the levels below it, with their paths below the host."""
    yield (), host
    for component, level in list(host.children.items()):
        yield (component,), level
        for subcomponent, below in list(level.children.items()):
            yield (component, subcomponent), below
