"""Files of the predecessor on their way into a store."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.legacy import (
    START,
    WAL_HEAD,
    LegacyStore,
    contents,
    json_bytes,
    level,
    metric,
    put_file,
    snapshot_bytes,
    wal_record,
)

from ccms_server.errors import DiskUnavailableError, NewerFormatError, RejectReason
from ccms_server.legacy import importing

METRICS = {
    "load": {"frequency": 60},
    "flops": {"frequency": 60, "aggregation": "sum"},
    "mem_bw": {"frequency": 60, "aggregation": "sum"},
}
HOST = level(
    {"load": [1.5, None, 0.1]},
    {"hwthread0": level({"flops": [3, 4]}), "socket0": level({}, {"dimm0": level({"mem_bw": [5]})})},
)
HELD = {
    ("load", ("c", "h")): {START: 1.5, START + 120: 0.1},
    ("flops", ("c", "h", "hwthread0")): {START: 3.0, START + 60: 4.0},
    ("mem_bw", ("c", "h", "socket0", "dimm0")): {START: 5.0},
}


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def opened(directory, **options):
    return LegacyStore(directory, **({"metrics": METRICS} | options))


def held_after(directory, **options):
    """What a store holds that imports what is there; it is closed."""
    store = opened(directory, **options)
    held = store.held()
    store.close()
    return held


def test_every_kind_of_file_is_imported(directory):
    put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    put_file(directory, f"c/h2/{START}.bin", snapshot_bytes(HOST))
    put_file(directory, "c/h3/current.wal", WAL_HEAD + wal_record(START, "flops", ("hwthread0",), 2.5))
    before = contents(directory)
    held = held_after(directory)
    of_snapshot = {(name, ("c", "h2", *path[2:])): samples for (name, path), samples in HELD.items()}
    of_snapshot["load", ("c", "h2")] = {START: 1.5, START + 120: float(np.float32(0.1))}
    assert held == HELD | of_snapshot | {("flops", ("c", "h3", "hwthread0")): {START: 2.5}}
    assert contents(directory) == before


def test_what_was_imported_outlives_the_files(directory):
    put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    held_after(directory)
    shutil.rmtree(directory / "c")
    assert held_after(directory) == HELD


def test_a_file_is_imported_once_and_again_when_it_has_changed(directory):
    path = put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    opened(directory).close()
    store = opened(directory)
    assert store.imported == 0
    store.close()
    path.write_bytes(json_bytes(level({"load": [9]})))
    store = opened(directory)
    assert store.imported == 1
    assert store.held() == HELD | {("load", ("c", "h")): {START: 9.0, START + 120: 0.1}}
    store.close()
    os.utime(path, (1, 1))
    store = opened(directory)
    assert store.imported == 1
    store.close()


def test_files_that_came_since_are_imported(directory):
    """The operator went back to the predecessor for a while."""
    put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    opened(directory).close()
    put_file(directory, f"c/h/{START + 600}.json", json_bytes(level({"load": [7]}, start=START + 600)))
    store = opened(directory)
    assert store.imported == 1
    assert store.held()["load", ("c", "h")] == {START: 1.5, START + 120: 0.1, START + 600: 7.0}
    store.close()


def test_the_wal_wins_over_the_snapshot(directory):
    """Between the snapshot and the deletion of the WAL, a sample is in both."""
    put_file(directory, "c/a/current.wal", WAL_HEAD + wal_record(START, "load", (), 2))
    put_file(directory, f"c/a/{START}.bin", snapshot_bytes(level({"load": [1, 1]})))
    assert held_after(directory) == {("load", ("c", "a")): {START: 2.0, START + 60: 1.0}}


def test_a_torn_wal_is_imported_without_a_warning(directory, caplog):
    content = WAL_HEAD + wal_record(START, "load") + wal_record(START + 60, "load")[:-1]
    put_file(directory, "c/h/current.wal", content)
    assert held_after(directory) == {("load", ("c", "h")): {START: 1.0}}
    assert [record.levelname for record in caplog.records if "import" not in record.name] == []
    assert {record.levelname for record in caplog.records} <= {"INFO"}


def test_a_damaged_file_is_reported_and_costs_nothing_else(directory, caplog):
    content = json_bytes(HOST)
    put_file(directory, f"c/h/{START}.json", content[: content.index(b"hwthread0")])
    put_file(directory, f"c/h1/{START}.json", b"garbage")
    put_file(directory, f"c/h2/{START}.bin", snapshot_bytes(HOST)[:-20])
    put_file(directory, f"c/h3/{START}.json", json_bytes(level({"load": [8]})))
    held = held_after(directory)
    assert held["load", ("c", "h")] == HELD["load", ("c", "h")]
    assert ("load", ("c", "h2")) in held
    assert held["load", ("c", "h3")] == {START: 8.0}
    assert not any(path[1] == "h1" for _, path in held)
    for host in ("h", "h1"):
        assert f"c/{host}/{START}.json is damaged at byte" in caplog.text
    assert f"c/h2/{START}.bin is damaged at byte" in caplog.text
    assert "3 of the files are damaged" in caplog.text
    caplog.clear()
    store = opened(directory)
    assert store.imported == 0, "it is told once"
    assert "damaged" not in caplog.text
    store.close()


def test_many_damaged_places_of_a_file_are_not_told_one_by_one(directory, caplog):
    host = level({f"m{number}": metric([1], frequency=0) for number in range(100)})
    put_file(directory, f"c/h/{START}.json", json_bytes(host))
    opened(directory).close()
    assert sum("is damaged" in record.getMessage() for record in caplog.records) == importing.DAMAGE_REPORTS_MAX + 1


def test_a_file_that_cannot_be_read_is_tried_again(directory, monkeypatch, caplog):
    path = put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refusing(path, Path.open))
        assert held_after(directory) == {}
    assert f"c/h/{START}.json is not imported: Input/output error" in caplog.text
    assert held_after(directory) == HELD


def test_a_folder_that_cannot_be_listed_is_tried_again(directory, monkeypatch, caplog):
    put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    put_file(directory, f"c/i/{START}.json", json_bytes(level({"load": [8]})))
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refusing(directory / "c" / "h", os.scandir))
        assert held_after(directory) == {("load", ("c", "i")): {START: 8.0}}
    assert "cannot be looked for: Input/output error" in caplog.text
    store = opened(directory)
    assert store.imported == 5
    store.close()
    with monkeypatch.context() as patch:  # what cannot be seen is not forgotten
        patch.setattr(os, "scandir", refusing(directory / "c", os.scandir))
        opened(directory).close()
    store = opened(directory)
    assert store.imported == 0
    store.close()


def refusing(path, call):
    """A call that the disk refuses for one path."""

    def refused(self, *arguments, **options):
        if Path(self) == path:
            raise OSError(5, "Input/output error", str(path))
        return call(self, *arguments, **options)

    return refused


def test_a_file_that_vanishes_is_no_reason_to_stop(directory, monkeypatch, caplog):
    put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    put_file(directory, f"c/i/{START}.json", json_bytes(level({"load": [8]})))
    store = opened(directory, imports=False)
    pieces = store.legacy.import_all()
    next(pieces)  # it has looked what is there
    (directory / "c" / "h" / f"{START}.json").unlink()
    list(pieces)
    assert store.held() == {("load", ("c", "i")): {START: 8.0}}
    assert f"c/h/{START}.json is not imported: No such file" in caplog.text
    store.close()


def test_samples_that_cannot_be_stored_are_counted_by_reason(directory, caplog):
    caplog.set_level("INFO")
    now = START + 100 * 60
    host = level(
        {"load": [1] * 200, "unknown": [1, None, 3], "flops": [2]},
        {
            "bad\nname": level({"load": [1, 2]}),
            "a": level({}, {"b": level({}, {"c": level({"load": [1]})})}),
        },
    )
    put_file(directory, f"c/h/{START}.json", json_bytes(host))
    store = opened(directory, now=now, retention="1h", limits={"future": "1h"})
    assert store.skipped == {
        RejectReason.TOO_OLD: 40 + 1,
        RejectReason.TOO_NEW: 39,
        RejectReason.UNKNOWN_METRIC: 2,
        RejectReason.INVALID_NAME: 2,
        importing._TOO_DEEP: 1,
    }
    assert store.imported == 121
    assert "121 samples of 1 series; skipped samples: " in caplog.text
    assert "2 of metrics that are not configured" in caplog.text
    assert "41 older than the retention" in caplog.text
    assert "'unknown' 2" in caplog.text
    store.close()


def test_series_beyond_the_limit_are_counted(directory):
    put_file(directory, f"c/h/{START}.json", json_bytes(level({"load": [1], "flops": [2, 3]})))
    store = opened(directory, limits={"series": 1})
    assert (store.imported, store.skipped) == (1, {RejectReason.SERIES_LIMIT: 2})
    store.close()


def test_files_that_are_past_the_retention_as_a_whole_are_not_even_read(directory):
    for number in range(3):
        put_file(directory, f"c/h/{START + number * 600}.json", b"not read")
    now = START + 1200 + 3600
    put_file(directory, f"c/h/{START + 1200}.json", json_bytes(level({"load": [1]}, start=START + 1200)))
    store = opened(directory, now=now, retention="1h")
    assert store.imported == 1
    assert store.damage.count == 0
    store.close()


def test_an_interval_that_differs_is_told_and_samples_go_by_their_times(directory, caplog):
    host = level({"load": metric([1, 2, 3, 4, 5, 6, 7], frequency=30)})
    put_file(directory, f"c/h/{START}.json", json_bytes(host))
    put_file(directory, f"c/i/{START}.json", json_bytes(host))
    # Two values in one slot: the later one counts. Half-way between two slots is the later one.
    expected = {START: 1.0, START + 60: 3.0, START + 120: 5.0, START + 180: 7.0}
    assert held_after(directory)["load", ("c", "h")] == expected
    assert caplog.text.count("metric load: its frequency is 30 s") == 1


def test_what_is_no_file_of_the_predecessor_is_left_alone(directory, caplog):
    put_file(directory, f"c/h/{START}.json.tmp", b"x")
    put_file(directory, "c/h/notes.json", b"x")
    put_file(directory, "c/h/60_1700000000.avro", b"x")
    put_file(directory, "c/h/old/1700000000.json", json_bytes(HOST))
    put_file(directory, "readme", b"x")
    put_file(directory, "c/readme", b"x")
    put_file(directory, f"c/..h/{START}.json", json_bytes(HOST))
    os.mkfifo(directory / "c" / "h" / "1.json")
    assert held_after(directory) == {}
    assert "1 Avro checkpoints" in caplog.text


def test_a_large_import_is_sealed_and_stored_on_its_way(directory, monkeypatch):
    """The WAL stays short, though all of it together is longer than it may be."""
    monkeypatch.setattr(importing, "RECORD_SAMPLES", 1 << 12)
    monkeypatch.setattr(importing, "MAINTENANCE_SECONDS", 0.0)
    rng = np.random.default_rng(1)
    written = {}
    for number in range(6):
        start = START + number * 600 * 60
        for host in ("a", "b", "d"):
            threads = {f"hwthread{thread}": rng.random(600).tolist() for thread in range(20)}
            children = {name: level({"flops": metric(values, start)}) for name, values in threads.items()}
            put_file(directory, f"c/{host}/{start}.json", json_bytes(level({}, children, start)))
            for name, values in threads.items():
                samples = written.setdefault(("flops", ("c", host, name)), {})
                samples.update(zip(range(start, start + 600 * 60, 60), values, strict=True))
    checkpoints = {"wal-bytes": 1 << 20}
    store = opened(directory, now=START + 10**7, **checkpoints)
    assert store.imported == 6 * 3 * 20 * 600
    assert store.keeper._wal.bytes < 2 << 20
    assert store.keeper.blocks
    assert store.held() == written
    store.close()
    store = opened(directory, now=START + 10**7, **checkpoints)
    assert store.imported == 0
    assert store.held() == written
    store.close()


class Refusing:
    """Makes a disk refuse what is put, so many times."""

    def __init__(self, keeper, times):
        self.left = times
        self._put, keeper.put = keeper.put, self.put

    def put(self, placements):
        self.left -= 1
        if self.left >= 0:
            raise DiskUnavailableError("No space left on device")
        self._put(placements)


def test_a_disk_that_is_full_for_a_while_is_waited_for(directory):
    put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    store = opened(directory, imports=False)
    Refusing(store.keeper, 3)
    store.import_all()
    assert store.held() == HELD
    store.close()


def test_a_disk_that_stays_full_ends_the_import_and_not_the_server(directory, monkeypatch, caplog):
    monkeypatch.setattr(importing, "PATIENCE_SECONDS", 0.0)
    put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    store = opened(directory, imports=False)
    Refusing(store.keeper, 1 << 30)
    store.import_all()
    assert "the import is given up: No space left on device" in caplog.text
    assert store.held() == {}
    store.close()
    assert held_after(directory) == HELD


def test_samples_that_are_not_synced_are_imported_again(directory, monkeypatch, caplog):
    put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    store = opened(directory, imports=False)

    def sync():
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store.keeper, "sync", sync)
    store.import_all()
    assert "imported samples cannot be synced: Input/output error" in caplog.text
    store.close()
    store = opened(directory)
    assert store.imported == 5
    store.close()


def test_imported_samples_are_synced_before_the_ledger_says_so(directory, monkeypatch):
    put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    store = opened(directory, imports=False, sync="off")
    ledger = directory / "cc-metric-store" / "imported"
    synced, sync = [], store.keeper.sync

    def watched():
        synced.append(ledger.exists())
        sync()

    monkeypatch.setattr(store.keeper, "sync", watched)
    store.import_all()
    assert synced == [False]
    assert ledger.exists()
    store.close()


def test_the_ledger_forgets_files_that_are_gone(directory):
    path = put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    put_file(directory, f"c/i/{START}.json", json_bytes(HOST))
    opened(directory).close()
    path.unlink()
    opened(directory).close()
    ledger = json.loads((directory / "cc-metric-store" / "imported").read_bytes())
    assert list(ledger["files"]) == [f"c/i/{START}.json"]


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b'{"version": 1}', b"[]", b"\xff", b'{"version": 1, "files": {"a": 1}}']
)
def test_with_a_damaged_ledger_all_is_imported_again(directory, caplog, damaged):
    put_file(directory, f"c/h/{START}.json", json_bytes(HOST))
    opened(directory).close()
    (directory / "cc-metric-store" / "imported").write_bytes(damaged)
    store = opened(directory)
    assert store.imported == 5
    assert store.held() == HELD
    assert "imported is damaged" in caplog.text
    store.close()
    store = opened(directory)
    assert store.imported == 0
    store.close()


def test_a_ledger_of_a_later_release_ends_the_start(directory):
    put_file(directory, "cc-metric-store/imported", b'{"version": 2, "files": []}')
    with pytest.raises(NewerFormatError, match="imported has format version 2"):
        opened(directory)


def test_nothing_is_imported_twice_when_a_start_ends_in_its_middle(directory):
    for number in range(4):
        put_file(directory, f"c/h{number}/{START}.json", json_bytes(HOST))
    store = opened(directory, imports=False)
    pieces = store.legacy.import_all()
    for _ in range(5):
        next(pieces)
    pieces.close()
    store.close()
    store = opened(directory)
    assert len(store.held()) == 4 * len(HELD)
    store.close()
