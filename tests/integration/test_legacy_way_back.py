"""JSON checkpoints that the predecessor can load, so that an operator can go back to it."""

import asyncio
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.launch import served
from helpers.legacy import (
    START,
    WAL_HEAD,
    LegacyStore,
    json_bytes,
    level,
    metric,
    put_file,
    snapshot_bytes,
    wal_record,
    written_samples,
)
from helpers.server import server_inside
from helpers.waiting import eventually

from ccms_server.durability import directory as store_directory

METRICS = {
    "load": {"frequency": 60},
    "flops": {"frequency": 60, "aggregation": "sum"},
    "mem_bw": {"frequency": 30, "aggregation": "sum"},
}
HOUR = 3600
PATHS = {
    "load": [("c", "a"), ("c", "b"), ("d", "a")],
    "flops": [("c", "a", f"hwthread{thread}") for thread in range(3)],
    "mem_bw": [("c", "a", "socket0", "dimm0"), ("c", "b", "socket0")],
}


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def opened(directory, **options):
    return LegacyStore(directory, **({"metrics": METRICS, "file_format": "json", "interval": "1h"} | options))


def fill(store, start, end, rng=None, metrics=METRICS):
    """Any finite bit patterns for every series, with gaps."""
    rng = rng or np.random.default_rng(start)
    writes = []
    for name in metrics:
        for path in PATHS[name]:
            times = [at for at in range(start, end, METRICS[name]["frequency"]) if rng.random() < 0.9]
            values = rng.integers(-(1 << 63), 1 << 63, len(times)).view(np.float64)
            writes.append((name, path, times, np.where(np.isfinite(values), values, 1.25).tolist()))
    store.write_all(writes)


def test_all_samples_are_in_them_with_every_bit(directory):
    store = opened(directory)
    fill(store, START, START + 5 * HOUR)
    store.write_checkpoints(START + 5 * HOUR)
    samples, documents = written_samples(directory)
    assert samples == store.bits()
    assert {Path(key).parts[:2] for key in documents} == {("c", "a"), ("c", "b"), ("d", "a")}
    assert all(document["to"] - document["from"] == HOUR for document in documents.values())
    store.close()


def test_they_are_imported_with_every_bit(directory, tmp_path):
    store = opened(directory)
    fill(store, START, START + 30 * HOUR)
    store.seal_and_store()
    fill(store, START + 20 * HOUR, START + 31 * HOUR)
    store.write_checkpoints(START + 31 * HOUR)
    other = tmp_path / "other"
    shutil.copytree(directory, other, ignore=shutil.ignore_patterns("cc-metric-store"))
    again = opened(other, now=START + 31 * HOUR)
    assert again.imported == sum(map(len, store.held().values()))
    assert again.bits() == store.bits()
    store.close()
    again.close()


def test_files_are_written_again_as_long_as_their_span_has_not_ended(directory):
    store = opened(directory)
    end = START
    for minutes in (20, 20, 15, 30, 60, 200):
        fill(store, end, end + minutes * 60)
        end += minutes * 60
        store.write_checkpoints(end)
        assert written_samples(directory)[0] == store.bits()
    assert len(written_samples(directory)[1]) == 3 * 6
    store.close()


def test_a_file_without_news_is_not_touched(directory):
    store = opened(directory)
    fill(store, START, START + 90 * 60)
    store.write_checkpoints(START + 90 * 60)
    before = {path: path.stat() for path in directory.glob("*/*/*.json")}
    store.write_checkpoints(START + 95 * 60)
    assert {path: path.stat() for path in directory.glob("*/*/*.json")} == before
    store.close()


def test_late_samples_are_included_for_a_span_and_then_only_in_the_store(directory):
    store = opened(directory)
    store.write_all([("load", ("c", "a"), [START, START + 90 * 60], [1.0, 2.0])])
    store.write_checkpoints(START + 90 * 60)
    store.write_all([("load", ("c", "a"), [START + 60, START + 91 * 60], [3.0, 4.0])])
    store.write_checkpoints(START + 119 * 60)
    assert written_samples(directory)[0] == store.bits()
    before = store.bits()
    store.write_checkpoints(START + 121 * 60)
    store.write_all([("load", ("c", "a"), [START + 120], [5.0])])
    store.write_checkpoints(START + 300 * 60)
    assert written_samples(directory)[0] == before
    assert store.bits() != before
    store.close()


def test_what_was_written_is_not_imported_at_the_next_start_and_the_chain_goes_on(directory):
    store = opened(directory)
    for number in range(4):
        fill(store, START + number * 40 * 60, START + (number + 1) * 40 * 60)
        store.write_checkpoints(START + (number + 1) * 40 * 60)
        store.close()
        store = opened(directory)
        assert store.imported == 0
    assert written_samples(directory)[0] == store.bits()
    store.close()


def test_without_its_ledger_it_is_imported_and_changes_nothing(directory):
    """As after a crash between the files and the ledger."""
    store = opened(directory)
    fill(store, START, START + 3 * HOUR)
    store.write_checkpoints(START + 3 * HOUR)
    before = store.bits()
    store.close()
    (directory / "cc-metric-store" / "imported").unlink()
    store = opened(directory, now=START + 3 * HOUR)
    assert store.imported > 0
    assert store.bits() == before
    fill(store, START + 3 * HOUR, START + 5 * HOUR)
    store.write_checkpoints(START + 5 * HOUR)
    assert written_samples(directory)[0] == store.bits()
    store.close()


def test_the_chain_goes_on_behind_what_the_predecessor_left(directory):
    old = level({"load": [1.0, 2.0, 3.0]}, start=START, end=START + 180)
    put_file(directory, f"c/a/{START}.json", json_bytes(old))
    store = opened(directory)
    fill(store, START + 180, START + 3 * HOUR)
    store.write_all([("load", ("c", "a"), [START + 60], [9.0])])
    store.write_checkpoints(START + 3 * HOUR)
    samples, documents = written_samples(directory)
    assert documents[f"c/a/{START}.json"] == old
    late = store.bits()
    late["load", ("c", "a")][START + 60] = (2.0).hex()
    assert samples == late
    store.close()


def test_a_collector_that_was_restarted_off_the_grid_loses_nothing(directory):
    store = opened(directory)
    minutes = list(range(START, START + 600 * 60, 60))
    late = [at + 25 for at in range(START + 600 * 60, START + 1200 * 60, 60)]
    values = np.random.default_rng(1).random(1200).tolist()
    store.write("load", ("c", "a"), minutes + late, values)
    store.write_checkpoints(START + 1200 * 60)
    samples = written_samples(directory)[0]["load", ("c", "a")]
    assert list(samples.values()) == [value.hex() for value in values]
    assert all(abs(at - time) <= 30 for at, time in zip(samples, minutes + late, strict=True))
    store.close()


def test_freed_samples_and_metrics_that_are_configured_no_more_are_left_out(directory):
    store = opened(directory)
    fill(store, START, START + 2 * HOUR)
    store.keeper.free(("c",), START + HOUR)
    store.close()
    store = opened(directory, metrics={name: METRICS[name] for name in ("load", "flops")})
    store.write_checkpoints(START + 2 * HOUR)
    samples = written_samples(directory)[0]
    assert samples == store.bits()
    assert {name for name, _ in samples} == {"load", "flops"}
    store.close()


def test_they_reach_back_as_far_as_the_predecessor_reads(directory):
    store = opened(directory, retention="2h", restore="3h", now=START + 10 * HOUR)
    fill(store, START, START + 10 * HOUR)
    store.write_checkpoints(START + 10 * HOUR)
    first = min(time for samples in written_samples(directory)[0].values() for time in samples)
    assert START + 7 * HOUR <= first < START + 7 * HOUR + 300
    fill(store, START + 10 * HOUR, START + 12 * HOUR)
    store.write_checkpoints(START + 12 * HOUR)
    ends = [document["to"] for document in written_samples(directory)[1].values()]
    assert START + 9 * HOUR < min(ends) <= START + 10 * HOUR
    store.close()


def test_files_of_others_are_neither_written_over_nor_deleted(directory):
    store = opened(directory, retention="3h", now=START + HOUR)
    fill(store, START, START + HOUR)
    path = put_file(directory, f"c/a/{START}.json", b"{}")
    store.write_checkpoints(START + HOUR)
    assert path.read_bytes() == b"{}"
    [ours] = [each for each in directory.glob("c/a/*.json") if each != path]
    ours.write_bytes(b"changed")
    fill(store, START + HOUR, START + 10 * HOUR)
    store.write_checkpoints(START + 10 * HOUR)
    assert (path.read_bytes(), ours.read_bytes()) == (b"{}", b"changed")
    store.close()


def test_a_disk_that_refuses_is_told_once_and_tried_again(directory, monkeypatch, caplog):
    store = opened(directory)
    fill(store, START, START + HOUR)

    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_directory.os, "fsync", fsync)
        store.write_checkpoints(START + HOUR)
        store.write_checkpoints(START + HOUR)
    assert caplog.text.count("JSON checkpoints cannot be written: No space left on device (2 more") == 1
    assert written_samples(directory)[0] == {}
    store.write_checkpoints(START + HOUR)
    assert written_samples(directory)[0] == store.bits()
    store.close()


def test_what_a_crash_has_left_of_a_file_is_deleted(directory):
    store = opened(directory)
    fill(store, START, START + HOUR)
    store.write_checkpoints(START + HOUR)
    for path in directory.glob("*/*/*.json"):
        path.with_name(path.name + ".tmp").write_bytes(b"half")
    store.write_checkpoints(START + HOUR)
    assert not list(directory.glob("*/*/*.tmp"))
    store.close()


def test_in_the_other_format_nothing_is_written(directory):
    store = opened(directory, file_format="wal")
    fill(store, START, START + HOUR)
    store.write_checkpoints(START + HOUR)
    assert not list(directory.glob("*/*/*.json"))
    store.close()


async def test_the_server_writes_them_now_and_then(directory):
    now = int(time.time())
    checkpoints = {"directory": str(directory), "file-format": "json", "interval": "1s"}
    async with server_inside(metrics=METRICS, checkpoints=checkpoints) as server:
        answer = await server.rest.write(f"load,cluster=c,hostname=a value=1.5 {now}\n")
        assert answer.status == 200
        [path] = await eventually(lambda: list(directory.glob("c/a/*.json")), "a checkpoint")
        assert json.loads(path.read_bytes())["metrics"]["load"]["data"] == [1.5]


async def test_the_last_sample_before_the_end_is_in_them(directory, tmp_path):
    now = int(time.time()) // 60 * 60
    options = {"metrics": METRICS, "checkpoints": {"directory": str(directory), "file-format": "json"}}
    async with served(tmp_path, **options) as server:
        for number in range(20):
            lines = f"load,cluster=c,hostname=a value={number} {now - 60 * (19 - number)}\n"
            writing = asyncio.create_task(server.rest.write(lines))
            assert (await writing).status == 200
        assert await server.terminate() == 0
    samples = written_samples(directory)[0]["load", ("c", "a")]
    assert [float.fromhex(value) for value in samples.values()] == list(range(20))


def test_absurd_times_in_old_files_do_not_end_the_chain(directory):
    far = START + 400 * 86_400
    put_file(directory, "c/a/current.wal", WAL_HEAD + wal_record(START, "load") + wal_record(far, "load"))
    put_file(directory, "c/a/999999999999999.json", json_bytes(level()))
    store = opened(directory, now=START + HOUR)
    assert store.imported == 1
    store.write_all([("load", ("c", "a"), [START + 60], [2.0])])
    store.write_checkpoints(START + HOUR)
    [path] = [path for path in directory.glob("c/a/*.json") if len(path.stem) == 10]
    assert json.loads(path.read_bytes())["metrics"]["load"] == metric([1.0, 2.0], START)
    store.close()


def test_what_only_release_1_5_can_read_is_written_all_the_same(directory):
    put_file(directory, f"c/a/{START}.bin", snapshot_bytes(level({"load": [1.0, 2.0]})))
    put_file(directory, "c/a/current.wal", WAL_HEAD + wal_record(START + 120, "load", value=3.0))
    put_file(directory, f"c/b/{START}.json", json_bytes(level({"load": [4.0, 5.0]})))
    store = opened(directory, now=START + HOUR)
    store.write_checkpoints(START + HOUR)
    [path] = directory.glob("c/a/*.json")
    assert json.loads(path.read_bytes())["metrics"]["load"] == metric([1.0, 2.0, 3.0], START)
    assert [path.name for path in directory.glob("c/b/*")] == [f"{START}.json"]
    store.close()


def test_a_host_whose_folder_cannot_be_written_costs_only_itself_and_catches_up(directory):
    store = opened(directory)
    fill(store, START, START + 90 * 60)
    put_file(directory, "c/a", b"no folder")
    for minutes in (90, 300, 600):
        store.write_checkpoints(START + minutes * 60)
        fill(store, START + minutes * 60, START + (minutes + 30) * 60)
    assert {path for _, path in written_samples(directory)[0]} == {("c", "b"), ("c", "b", "socket0"), ("d", "a")}
    (directory / "c" / "a").unlink()
    store.write_checkpoints(START + 630 * 60)
    assert written_samples(directory)[0] == store.bits()
    store.close()
