"""Archived windows, read back with pyarrow."""

import errno
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ccms_server.durability import archive as module
from ccms_server.durability.archive import ArchivedSeries, archive_window, scope_of


def series(hostname="a0101", metric="cpu_load", component="", subcomponent="", *, values=(1.5,), start=0):
    timestamps = start + 60 * np.arange(len(values), dtype=np.int64)
    return ArchivedSeries(hostname, metric, *scope_of(component, subcomponent), timestamps, np.array(values, float))


def rows(path):
    table = parquet.read_table(path)
    return [tuple(row.values()) for row in table.to_pylist()]


def test_samples_are_read_back_bit_by_bit(tmp_path):
    values = [0.1, -0.0, 5e-324, 1.7976931348623157e308]
    path = archive_window(
        tmp_path, "alex", 60, 15_360, [series(values=values, start=15_390), series("a0102", component="hwthread3")]
    )
    assert path == tmp_path / "alex" / "60s-15360.parquet"
    assert rows(path) == [
        *(("alex", "a0101", "cpu_load", "node", "", 15_390 + 60 * n, 60, value) for n, value in enumerate(values)),
        ("alex", "a0102", "cpu_load", "hwthread", "3", 0, 60, 1.5),
    ]
    assert np.signbit(rows(path)[1][-1])


def test_the_file_says_how_it_is_built(tmp_path):
    file = parquet.ParquetFile(archive_window(tmp_path, "alex", 60, 0, [series()]))
    text = pa.dictionary(pa.int32(), pa.string())
    assert {field.name: field.type for field in file.schema_arrow} == {
        **dict.fromkeys(("cluster", "hostname", "metric", "scope", "scope_id"), text),
        **dict.fromkeys(("timestamp", "frequency"), pa.int64()),
        "value": pa.float64(),
    }
    assert not any(field.nullable for field in file.schema_arrow)
    group = file.metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    assert all("RLE_DICTIONARY" in column.encodings for column in columns if column.physical_type == "BYTE_ARRAY")
    order = [columns[sorting.column_index].path_in_schema for sorting in group.sorting_columns]
    assert order == ["hostname", "metric", "scope", "scope_id", "timestamp"]


@pytest.mark.parametrize(
    ("component", "subcomponent", "scope", "scope_id"),
    [
        ("", "", "node", ""),
        ("hwthread3", "", "hwthread", "3"),
        ("socket0", "", "socket", "0"),
        ("memoryDomain0", "", "memoryDomain", "0"),
        ("cpu12", "", "cpu", "12"),
        ("llc1", "", "llc", "1"),
        ("accelerator00000000:49:00.0", "", "accelerator", "00000000:49:00.0"),
        ("acceleratorGPU-7c1e", "", "accelerator", "GPU-7c1e"),
        ("acceleratorf00d", "", "accelerator", "f00d"),
        ("fan2", "", "fan", "2"),
        ("hwthread", "", "hwthread", ""),
        ("7", "", "", "7"),
        ("é7", "", "", "é7"),
        ("node", "", "", "node"),
        ("node1", "", "node", "1"),
        ("accelerator0", "mig2", "accelerator", "0/mig2"),
        ("accelerator0/mig2", "", "accelerator", "0%2Fmig2"),
        ("accelerator0%2Fmig2", "", "accelerator", "0%252Fmig2"),
        ("socket0", "filesystem/home", "socket", "0/filesystem/home"),
        ("node", "network", "", "node/network"),
        ("socket", "network", "socket", "/network"),
    ],
)
def test_every_level_has_a_scope_and_an_id_of_its_own(component, subcomponent, scope, scope_id):
    assert scope_of(component, subcomponent) == (scope, scope_id)


def test_row_groups_are_written_as_they_fill_and_series_may_span_them(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 10)
    all_series = [series(f"a{n}", values=np.arange(7) + 100 * n) for n in range(4)] + [series("b", values=range(32))]
    path = archive_window(tmp_path, "alex", 60, 0, all_series)
    metadata = parquet.read_metadata(path)
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [10] * 6
    expected = [
        ("alex", one.hostname, "cpu_load", "node", "", timestamp, 60, value)
        for one in all_series
        for timestamp, value in zip(one.timestamps.tolist(), one.values.tolist(), strict=True)
    ]
    assert rows(path) == expected
    assert expected == sorted(expected)


def test_memory_holds_one_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 1 << 12)
    waiting, most = 0, 0
    add, clear = module._RowGroup.add, module._RowGroup.clear

    def counting_add(self, one, start):
        nonlocal waiting, most
        waiting += (count := add(self, one, start))
        most = max(most, waiting)
        return count

    def counting_clear(self):
        nonlocal waiting
        waiting = 0
        clear(self)

    monkeypatch.setattr(module._RowGroup, "add", counting_add)
    monkeypatch.setattr(module._RowGroup, "clear", counting_clear)
    values = np.random.default_rng(1).normal(size=256)
    before = pa.default_memory_pool().bytes_allocated()
    allocated = []

    def stream():
        for number in range(200):
            yield series(f"a{number:04}", values=values)
            allocated.append(pa.default_memory_pool().bytes_allocated() - before)

    path = archive_window(tmp_path, "alex", 60, 0, stream())
    assert parquet.read_metadata(path).num_rows == 200 * 256
    assert most == 1 << 12
    assert max(allocated[100:]) < max(allocated[:100]) + (64 << 10)


def test_a_window_without_samples_writes_nothing(tmp_path):
    assert archive_window(tmp_path / "archive", "alex", 60, 0, []) is None
    assert (
        archive_window(tmp_path / "archive", "alex", 60, 0, iter([series(values=[]), series("b", values=[])])) is None
    )
    assert list(tmp_path.iterdir()) == []


def test_series_without_samples_have_no_rows(tmp_path):
    path = archive_window(tmp_path, "alex", 60, 0, [series(values=[]), series("b"), series("c", values=[])])
    assert [row[1] for row in rows(path)] == ["b"]


def test_a_window_that_is_archived_again_replaces_its_file(tmp_path):
    (tmp_path / "alex").mkdir()
    (tmp_path / "alex" / "60s-0.parquet.tmp").write_text("left by a crash")
    for _ in range(2):
        path = archive_window(tmp_path, "alex", 60, 0, [series(values=[1, 2])])
    assert [file.name for file in path.parent.iterdir()] == ["60s-0.parquet"]
    assert len(rows(path)) == 2


def test_windows_and_clusters_have_files_of_their_own(tmp_path):
    paths = [
        archive_window(tmp_path / "archive", *window, [series()])
        for window in (("alex", 60, 0), ("alex", 60, 15_360), ("alex", 30, 0), ("fritz", 60, 0), ("fritz", 60, -15_360))
    ]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(set(paths))
    assert len(set(paths)) == 5


@pytest.mark.parametrize("failing", ["series", "fsync", "disk"])
def test_after_an_error_there_is_only_what_was_there(failing, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def stream():
        yield series(values=np.random.default_rng(1).normal(size=100_000))  # more than buffers hold
        if failing == "series":
            refuse()

    path = archive_window(tmp_path, "alex", 60, 0, [series()])
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        if failing == "fsync":
            patch.setattr(os, "fsync", refuse)
        if failing == "disk":
            (tmp_path / "alex" / "60s-0.parquet.tmp").symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left on device"):
            archive_window(tmp_path, "alex", 60, 0, stream())
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {"60s-0.parquet": before}


@pytest.mark.parametrize(
    "all_series", [[series("b"), series("a")], [series(), series()], [series(component="socket0"), series()]]
)
def test_series_out_of_order_are_a_bug(all_series, tmp_path):
    with pytest.raises(AssertionError):
        archive_window(tmp_path, "alex", 60, 0, all_series)
    assert list((tmp_path / "alex").iterdir()) == []


def test_pyarrow_is_loaded_only_when_something_is_archived():
    code = "import sys, ccms_server.durability.archive; print('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
