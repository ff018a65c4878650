"""The archive: Parquet files of the windows that the store drops, `<directory>/<cluster>/<interval>s-<start>.parquet`.

The columns are those of the predecessor's archive, a row for each sample; none is ever null:

    cluster, hostname, metric   text
    scope, scope_id             text, the level of the series
    timestamp                   int64, seconds since the epoch
    frequency                   int64, interval of the metric in seconds
    value                       float64, bit by bit (the predecessor's is a float32)

Rows are sorted by (hostname, metric, scope, scope_id, timestamp), text in order of its bytes.

Scope and id of a series of the host itself are `node` and empty. A component is split behind a type that the
predecessor knows, or else behind its leading letters: `hwthread3` is (`hwthread`, `3`), `accelerator00000000:49:00.0`
is (`accelerator`, `00000000:49:00.0`). For what lies below, the predecessor names the sub-component alone, so that
those of several components get mixed up; here it follows the id of its component: `mig2` of `accelerator0` is
(`accelerator`, `0/mig2`). In front of the first slash stands the id, with `%25` and `%2F` for a percent sign and a
slash in it. A component that is called `node` is (``, `node`). So no two levels of a host share scope and id, and both
together are the path below the host.

A file is written as a whole or not at all: a window that is archived again, after a crash, replaces its file.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_server.durability.directory import make_directories, replacing

logger = logging.getLogger(__name__)

ROW_GROUP_ROWS: Final = 1 << 20
"""Samples that are held in memory until they are written."""
_KEY_COLUMNS: Final = ("hostname", "metric", "scope", "scope_id")
"""Of `ArchivedSeries`, in its order."""
_COMPONENT: Final = re.compile(
    "(hwthread|core|socket|die|llc|memoryDomain|accelerator|cpu|gpu|(?!node$)[A-Za-z]+|)(.*)"
)


class ArchivedSeries(NamedTuple):
    """The samples of one series within the window."""

    hostname: str
    metric: str
    scope: str
    scope_id: str
    """Of `scope_of`."""
    timestamps: NDArray[np.int64]
    """int64 array of shape (n_samples,), seconds since the epoch, ascending."""
    values: NDArray[np.float64]
    """float64 array of shape (n_samples,), without NaN."""


def scope_of(component: str = "", subcomponent: str = "") -> tuple[str, str]:
    """Scope and id of a level of a host, as described above.

    Args:
        component: Name of the component; empty for the host itself.
        subcomponent: Name of the level below it; empty for none.
    """
    if not component:
        return "node", ""
    match = _COMPONENT.fullmatch(component)
    assert match is not None, component
    scope, scope_id = match[1], match[2].replace("%", "%25").replace("/", "%2F")
    return scope, f"{scope_id}/{subcomponent}" if subcomponent else scope_id


def archive_window(
    directory: Path, cluster: str, interval: int, start: int, series: Iterable[ArchivedSeries]
) -> Path | None:
    """Writes one window of a cluster's metrics of one interval.

    Args:
        directory: Of all archives; it is made if need be.
        cluster: Name of the cluster, good for a directory.
        interval: Of the metrics, in seconds.
        start: Of the window, in seconds since the epoch.
        series: In order of their first four fields, none twice; taken one by one.

    Returns:
        The file, which is on disk; None where there are no samples.

    Raises:
        OSError: The disk refuses; there is no new file.
    """
    filled = (each for each in series if len(each.timestamps))
    first = next(filled, None)
    if first is None:
        return None
    path = directory / cluster / f"{interval}s-{start}.parquet"
    make_directories(path.parent)
    with replacing(path) as file:
        n_rows = _write(file, cluster, interval, chain([first], filled))
    logger.info("archived %s samples in %s", f"{n_rows:,}", path)
    return path


def _write(file: BinaryIO, cluster: str, interval: int, series: Iterable[ArchivedSeries]) -> int:
    """Writes a file's content; returns the number of rows."""
    import pyarrow as pa  # takes memory and a moment: only where something is archived
    from pyarrow import parquet

    text = pa.dictionary(pa.int32(), pa.string())
    type_by_name = dict.fromkeys(("cluster", *_KEY_COLUMNS), text)
    type_by_name |= {"timestamp": pa.int64(), "frequency": pa.int64(), "value": pa.float64()}
    schema = pa.schema([pa.field(name, type_, nullable=False) for name, type_ in type_by_name.items()])
    order = [schema.get_field_index(name) for name in (*_KEY_COLUMNS, "timestamp")]
    n_rows = 0
    with parquet.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=[name for name in type_by_name if name != "timestamp"],
        column_encoding={"timestamp": "DELTA_BINARY_PACKED"},
        write_page_checksum=True,
        sorting_columns=[parquet.SortingColumn(index) for index in order],
    ) as writer:
        for group in _row_groups(series):
            columns = group.columns()
            columns["cluster"] = np.zeros(group.n_rows, np.int32), [cluster]
            columns["frequency"] = np.full(group.n_rows, interval, np.int64)
            arrays = [
                pa.DictionaryArray.from_arrays(*columns[name]) if type_ == text else pa.array(columns[name])
                for name, type_ in type_by_name.items()
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=group.n_rows)
            n_rows += group.n_rows
    pa.default_memory_pool().release_unused()  # it would keep some 80 MB for the next time
    return n_rows


class _RowGroup:
    """Rows that are written at once.

    Attributes:
        n_rows: How many there are.
    """

    def __init__(self) -> None:
        # Reserved in full, and backed by memory as far as they are filled.
        self._timestamps = np.empty(ROW_GROUP_ROWS, np.int64)
        self._values = np.empty(ROW_GROUP_ROWS, np.float64)
        self.clear()

    def clear(self) -> None:
        """Makes room for others."""
        self.n_rows = 0
        self._keys: list[tuple[str, ...]] = []
        self._counts: list[int] = []

    def add(self, series: ArchivedSeries, start: int) -> int:
        """Takes samples of a series from the one with number `start` on; returns how many there was room for."""
        count = min(len(series.values) - start, ROW_GROUP_ROWS - self.n_rows)
        rows, samples = slice(self.n_rows, self.n_rows + count), slice(start, start + count)
        self._timestamps[rows] = series.timestamps[samples]
        self._values[rows] = series.values[samples]
        self._keys.append(series[:4])
        self._counts.append(count)
        self.n_rows += count
        return count

    def columns(self) -> dict[str, Any]:
        """Columns that differ between rows, by name: an array, or for text the codes of its words and these."""
        columns: dict[str, Any] = {"timestamp": self._timestamps[: self.n_rows], "value": self._values[: self.n_rows]}
        for name, texts in zip(_KEY_COLUMNS, zip(*self._keys, strict=True), strict=True):
            code_by_text = {text: code for code, text in enumerate(dict.fromkeys(texts))}
            codes = np.array([code_by_text[text] for text in texts], np.int32)
            columns[name] = np.repeat(codes, self._counts), list(code_by_text)
        return columns


def _row_groups(series: Iterable[ArchivedSeries]) -> Iterator[_RowGroup]:
    """Fills row groups; each is good until the next one is asked for."""
    group = _RowGroup()
    previous: tuple[str, ...] = ()
    for each in series:
        assert previous < each[:4], (previous, each[:4])
        assert len(each.timestamps) == len(each.values), each[:4]
        previous = each[:4]
        taken = 0
        while taken < len(each.values):
            taken += group.add(each, taken)
            if group.n_rows == ROW_GROUP_ROWS:
                yield group
                group.clear()
    if group.n_rows:
        yield group
