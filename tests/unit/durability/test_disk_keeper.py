"""The keeper: what is written when, what may be forgotten, and what happens when the disk refuses."""

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.durable import DurableStore

from ccms_server import opening
from ccms_server.durability import block_job, disk_keeper, wal_bounds
from ccms_server.durability.block import Block
from ccms_server.durability.catalogue import SERIES, Catalogue
from ccms_server.durability.damage import DamageLog
from ccms_server.durability.records import Scan
from ccms_server.durability.wal import Wal
from ccms_server.errors import DirectoryError, DirectoryInUseError, DiskUnavailableError, NewerFormatError
from ccms_server.store.layout import WINDOW_SLOTS
from ccms_server.store.metric import Aggregation, Metric

METRICS = {
    "fast": {"frequency": 1},
    "load": {"frequency": 60, "aggregation": "sum"},
    "slow": {"frequency": 3600},
}
WINDOW_SECONDS = 60 * WINDOW_SLOTS
ORIGIN = 3600 * WINDOW_SLOTS * 1840  # a window begins here, for all of them
THREADS = [("c", "n0", f"hwthread{thread}") for thread in range(9)]
FOREVER = 1 << 61


class Kept:
    """A durable store, and all samples it should answer."""

    def __init__(self, scratch, metrics=METRICS, segment_bytes=600, **sections):
        self.scratch, self.sections = scratch, sections
        self.metrics = metrics
        self.value = 0.5
        self.samples = {}
        self.copies = 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(opening, "SEGMENTS", (1 << 30) // segment_bytes)
        self.open(scratch / "0")

    def open(self, directory):
        self.durable = DurableStore(directory, metrics=self.metrics, **self.sections)
        self.keeper, self.store, self.wal = self.durable.keeper, self.durable.store, self.durable.keeper._wal

    def restart(self):
        self.durable.close()
        self.open(self.durable.directory)

    def kill(self):
        """Goes on with what a killed process leaves."""
        self.copies += 1
        left = self.durable.killed(self.scratch / f"killed{self.copies}")
        self.durable.close()
        self.open(left)

    def write(self, metric, paths, times):
        writes = []
        for path in paths:
            values = [self.value + at for at in range(len(times))]
            self.value += len(times)
            writes.append((metric, path, times, values))
        self.durable.write_all(writes)
        for _, path, _, values in writes:
            self.samples.setdefault((metric, path), {}).update(zip(times, values, strict=True))

    def check(self):
        assert self.durable.held() == self.samples

    def maintain(self, oldest=-FOREVER):
        for _ in self.keeper.maintain(oldest):
            pass

    def files(self, pattern="*.block"):
        return sorted(path.relative_to(self.durable.directory) for path in self.durable.directory.rglob(pattern))

    @property
    def root(self):
        return self.durable.directory / "cc-metric-store"

    def close(self):
        self.durable.close()
        self.patch.undo()


@pytest.fixture
def kept(tmp_path):
    store = Kept(tmp_path)
    yield store
    store.close()


@pytest.fixture
def clock(monkeypatch):
    """Lets pauses of the keeper pass."""
    now = [1e6]
    for module in (disk_keeper, wal_bounds):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def minutes(first, count):
    return [ORIGIN + 60 * minute for minute in range(first, first + count)]


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# --- what may be forgotten


def test_nothing_is_cut_that_no_block_holds(kept):
    rng = np.random.default_rng(5)
    for step in range(24):
        kept.write("load", THREADS[:2], minutes(30 * step, 30))
        kept.write("load", [THREADS[int(rng.integers(9))]], minutes(int(rng.integers(30 * step + 1)), 5))  # late
        if rng.integers(2):
            kept.store.seal_all()
        elif rng.integers(2):
            for _ in kept.keeper.write_early(int(rng.integers(kept.store.log_number + 2))):
                pass
        kept.durable.settle()
        pinned = [
            entry for table in kept.store.tables for n in table.unstored for entry in table.windows[n].unstored.values()
        ]
        assert kept.wal.first_number <= min(pinned, default=kept.wal.first_number)
        if step % 4 == 3:
            kept.kill()
            kept.check()
    assert kept.wal.first_number > 20
    assert kept.durable.damage.count == 0


def test_a_window_that_is_opened_again_while_its_block_is_written_stays_in_the_log(kept, monkeypatch):
    may_write, write = threading.Event(), block_job.BlockJob.write

    def write_later(*arguments):
        assert may_write.wait(10)
        return write(*arguments)

    monkeypatch.setattr(block_job.BlockJob, "write", write_later)
    kept.write("load", THREADS, minutes(0, 10))
    kept.store.seal_all()
    kept.maintain()
    assert not kept.keeper.is_idle
    kept.write("load", THREADS[:1], minutes(5, 2))
    number = kept.store.log_number
    may_write.set()
    kept.keeper.wait()
    kept.maintain()
    assert kept.keeper._first_needed() == number
    kept.check()
    kept.wal._leave_segment(kept.wal._segments[-1])
    kept.write("load", THREADS[:1], minutes(7, 1))
    kept.durable.settle()
    assert kept.wal.first_number <= number
    kept.kill()
    kept.check()
    kept.durable.seal_and_store()
    assert kept.keeper._first_needed() > number
    kept.kill()
    kept.check()


def test_a_slow_metric_does_not_hold_back_the_wal(kept):
    kept.keeper._bounds._bytes = 20_000
    largest, rng = 0, np.random.default_rng(1)
    hosts = [("c", f"n{host}") for host in range(20)]
    for hour in range(40):
        kept.write("slow", hosts[:3], [ORIGIN + 3600 * hour])
        for second in range(hour * 30, hour * 30 + 30):
            values = rng.normal(size=20)
            kept.durable.write_all([("fast", h, [ORIGIN + second], [v]) for h, v in zip(hosts, values, strict=True)])
            for host, value in zip(hosts, values.tolist(), strict=True):
                kept.samples.setdefault(("fast", host), {})[ORIGIN + second] = value
        kept.maintain()
        kept.keeper.wait()
        largest = max(largest, kept.wal.bytes)
    assert largest < 2 * 20_000
    assert kept.store.log_number - kept.wal.first_number < 200  # of 1240
    assert {path.parent.name for path in kept.files()} >= {"3600s", "1s"}
    kept.kill()
    kept.check()


def test_what_was_logged_an_interval_ago_is_written_to_blocks(tmp_path, clock):
    kept = Kept(tmp_path, interval="1h")
    kept.write("load", THREADS, minutes(0, 10))
    kept.durable.settle()
    clock(1799.0)
    kept.durable.settle()
    assert kept.files() == []
    kept.write("slow", THREADS[:1], [ORIGIN])  # after it was looked what there was
    clock(1.0)
    kept.durable.settle()
    assert [path.parent.name for path in kept.files()] == ["60s"]
    kept.check()
    clock(1800.0)
    kept.durable.settle()
    assert {path.parent.name for path in kept.files()} == {"60s", "3600s"}
    kept.kill()
    kept.check()
    kept.close()


def test_a_small_bound_for_the_wal_is_held_with_segments_of_the_usual_size(tmp_path, monkeypatch):
    monkeypatch.setattr(wal_bounds, "BYTES_LEAST", 1000)
    kept = Kept(tmp_path, segment_bytes=1 << 24, **{"max-wal-size": 5000})
    largest = 0
    for second in range(2000):
        kept.write("fast", THREADS[:2], [ORIGIN + second])
        if second % 20 == 0:
            kept.maintain()
            kept.keeper.wait()
            largest = max(largest, kept.wal.bytes)
    assert 5000 < largest < 2 * 5000
    kept.kill()
    kept.check()
    kept.close()


@pytest.mark.parametrize("pauses", range(6))
def test_a_metric_of_a_new_interval_can_be_added_in_any_pause_of_maintenance(kept, pauses):
    for metric, step in (("load", 60), ("slow", 3600), ("fast", 1)):
        kept.write(metric, THREADS[:2], [ORIGIN + step * at for at in range(0, 600, 50)])
    kept.keeper._bounds._bytes = 1
    maintenance = kept.keeper.maintain(ORIGIN + 10_000)
    for _ in range(pauses):
        next(maintenance, None)
    kept.keeper.configure([Metric("new", 7)])
    for _ in maintenance:
        pass
    kept.keeper._bounds._bytes = 1 << 30
    kept.write("new", THREADS[:1], [ORIGIN])
    assert kept.durable.samples("new", THREADS[0]) == {ORIGIN: kept.value - 1}


def test_the_wal_may_grow_with_the_hosts_up_to_its_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(wal_bounds, "BYTES_LEAST", 1000)
    kept = Kept(tmp_path, **{"max-wal-size": 2500})
    assert kept.keeper._bounds.bytes_max == 1000
    hosts = [("c", "n0"), ("c", "n1"), ("d", "n0")]
    kept.write("fast", hosts, [ORIGIN])
    assert kept.keeper._bounds.bytes_max == 7500
    largest = 0
    for second in range(1, 2000):
        kept.write("fast", hosts, [ORIGIN + second])
        if second % 20 == 0:
            kept.maintain()
            kept.keeper.wait()
            largest = max(largest, kept.wal.bytes)
    assert 2500 < largest < 2 * 7500
    kept.keeper._bounds._bytes = 6000
    assert kept.keeper._bounds.bytes_max == 6000
    kept.kill()
    kept.check()
    kept.close()


# --- retention


def test_windows_past_the_retention_go_with_their_files(kept):
    sizes = []
    for window in range(24):
        kept.write("load", THREADS, minutes(256 * window, 3))
        kept.write("slow", THREADS[:1], [ORIGIN + window * 3600])
        kept.store.seal_all()
        oldest = ORIGIN + (window - 2) * WINDOW_SECONDS + 120
        kept.durable.settle(oldest)
        sizes.append(sum(path.stat().st_size for path in kept.durable.directory.rglob("*") if path.is_file()))
        for key, samples in kept.samples.items():
            if key[0] == "load":
                kept.samples[key] = {
                    time: value for time, value in samples.items() if time >= ORIGIN + (window - 2) * WINDOW_SECONDS
                }
        kept.check()
    assert [path for path in kept.files() if path.parent.name == "60s"] == [
        Path(f"cc-metric-store/blocks/60s/{ORIGIN + window * WINDOW_SECONDS}.block") for window in (21, 22, 23)
    ]
    assert max(sizes[12:]) < 1.1 * max(sizes[6:12])
    kept.restart()
    kept.check()


def test_a_window_that_is_dropped_while_its_block_is_written_leaves_no_file(kept):
    kept.write("load", THREADS, minutes(0, 3))
    kept.write("load", THREADS, minutes(256, 3))
    kept.store.seal_all()
    kept.maintain()
    kept.keeper.wait()
    kept.durable.settle(ORIGIN + WINDOW_SECONDS + 300)
    assert len(kept.files()) == 1


def test_a_block_that_was_written_in_vain_is_deleted_with_its_window(kept, monkeypatch, clock):
    write, refused = block_job.write_block, []

    def write_first(path, interval, window, *entries):
        if window != ORIGIN // WINDOW_SECONDS:
            refused.append(path)
            raise OSError(errno.EIO, "Input/output error")
        return write(path, interval, window, *entries)

    monkeypatch.setattr(block_job, "write_block", write_first)
    kept.write("load", THREADS, minutes(0, 3))
    kept.write("load", THREADS, minutes(256, 3))
    kept.store.seal_all()
    kept.durable.settle()
    assert refused
    assert len(kept.files()) == 1
    kept.durable.settle(ORIGIN + WINDOW_SECONDS + 300)
    assert kept.files() == []


# --- memory


def test_beyond_the_memory_cap_windows_are_sealed_and_blocks_released(tmp_path, monkeypatch, clock, caplog):
    kept = Kept(tmp_path, **{"memory-cap": 1})
    used = iter([2 << 30] * 2 + [0] * 1000)
    monkeypatch.setattr(disk_keeper, "resident_bytes", lambda: next(used))
    kept.write("load", THREADS, minutes(0, 10))
    kept.durable.seal_and_store()
    monkeypatch.setattr(disk_keeper, "resident_bytes", lambda: 2 << 30)
    kept.write("load", THREADS, minutes(300, 10))
    kept.write("slow", THREADS[:1], [ORIGIN])
    kept.check()
    block = next(iter(kept.keeper.blocks.values()))
    assert block._tiles
    clock(100.0)
    kept.durable.settle()
    assert kept.store.size().open_tiles == 0
    assert not block._tiles
    assert "beyond `memory-cap`" in caplog.text
    kept.check()
    kept.write("load", THREADS, minutes(303, 10))
    open_tiles = kept.store.size().open_tiles
    kept.durable.settle()
    assert kept.store.size().open_tiles == open_tiles > 0  # not once a second
    kept.check()
    kept.kill()
    kept.check()
    kept.close()


# --- metrics that come and go


def test_the_samples_of_a_metric_are_back_when_it_is(kept):
    kept.write("load", THREADS, minutes(0, 10))
    kept.write("slow", THREADS[:2], [ORIGIN])
    kept.durable.seal_and_store()
    kept.write("load", THREADS, minutes(8, 10))  # in the WAL
    samples, files = dict(kept.samples), kept.files()
    aside = {key: value for key, value in samples.items() if key[0] == "load"}
    for key in aside:
        del kept.samples[key]
    for metrics in ({"slow": METRICS["slow"]}, {"load": {"frequency": 30}, "slow": METRICS["slow"]}):
        kept.metrics = metrics
        kept.restart()
        kept.check()
        kept.durable.seal_and_store()
        kept.check()
        assert set(kept.files()) >= set(files)
        assert kept.durable.damage.count == 0
    kept.write("load", THREADS[:1], [ORIGIN, ORIGIN + 30])
    kept.check()
    kept.metrics = {"new": {"frequency": 60}, **METRICS}
    kept.restart()
    kept.samples = samples
    kept.check()
    kept.write("new", THREADS[:1], [ORIGIN])
    kept.durable.seal_and_store()
    kept.restart()
    kept.check()


def test_samples_of_a_metric_that_is_gone_are_dropped_in_time(kept):
    kept.write("load", THREADS, minutes(0, 10))
    kept.durable.seal_and_store()
    kept.metrics = {"slow": METRICS["slow"]}
    kept.restart()
    kept.durable.settle(ORIGIN + WINDOW_SECONDS + 300)
    assert kept.files() == []


def test_metrics_can_be_added_while_samples_are_kept(kept):
    kept.write("load", THREADS, minutes(0, 10))
    kept.durable.seal_and_store()  # windows that the new tables do not have
    kept.keeper.configure([Metric("new", 60, Aggregation.SUM), Metric("other", 5), Metric("load", 60, Aggregation.AVG)])
    assert kept.store.tables[kept.store.metric_id("load")].metric.aggregation is Aggregation.AVG
    kept.write("new", THREADS, minutes(2, 10))
    kept.write("other", THREADS, [ORIGIN, ORIGIN + 5])
    kept.write("load", THREADS, minutes(10, 1))
    kept.check()
    kept.metrics = {**METRICS, "other": {"frequency": 5}, "new": {"frequency": 60, "aggregation": "sum"}}
    kept.kill()
    kept.check()
    kept.durable.seal_and_store()
    kept.restart()
    kept.check()
    assert kept.durable.damage.count == 0


def test_a_unit_is_served_and_changes_no_file(kept):
    kept.write("load", THREADS, minutes(0, 10))
    kept.durable.seal_and_store()
    before = contents(kept.durable.directory)
    kept.keeper.configure([Metric("load", 60, Aggregation.SUM, "1")])
    kept.durable.settle()
    assert kept.store.tables[kept.store.metric_id("load")].metric.unit == "1"
    assert contents(kept.durable.directory) == before
    kept.metrics = METRICS | {"load": METRICS["load"] | {"unit": "%"}}
    kept.restart()
    kept.check()
    assert kept.store.tables[kept.store.metric_id("load")].metric.unit == "%"


def test_a_metric_that_is_back_while_samples_are_kept_has_its_samples(kept):
    kept.write("load", THREADS, minutes(0, 10))
    kept.write("slow", THREADS, [ORIGIN])
    kept.durable.seal_and_store()
    kept.metrics = {"slow": METRICS["slow"]}
    kept.restart()
    kept.keeper.configure([Metric("load", 60, Aggregation.SUM)])
    kept.check()
    kept.write("load", THREADS, minutes(5, 10))
    kept.metrics = METRICS
    kept.kill()
    kept.check()


# --- a catalogue that lost series


def damaged_record(path, position):
    """A catalogue whose record at some position is damaged."""
    content = bytearray(path.read_bytes())
    record = list(Scan(path, bytes(content), DamageLog()))[position]
    content[record.offset + 40] ^= 1
    path.write_bytes(content)
    return record


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("position", [1, 2, 3, -1])
def test_series_that_are_lost_leave_no_trace(kept, position, is_stored):
    hosts = [("c", f"n{host}") for host in range(12)]
    for begin in range(0, 12, 3):  # a record each
        kept.write("load", hosts[begin : begin + 3], minutes(0, 20))
        kept.write("load", hosts[begin : begin + 3], minutes(30, 20))
    if is_stored:
        kept.durable.seal_and_store()
    kept.durable.close()
    for path in (kept.root / "series.a", kept.root / "series.b"):
        record = damaged_record(path, position)
        assert record.kind == SERIES
    kept.open(kept.durable.directory)
    assert kept.durable.damage.count > 0
    first = 3 * (position % 5 - 1)
    for host in hosts[first : first + 3]:
        del kept.samples["load", host]
    kept.check()
    for _ in range(2):
        for host in [("c", f"x{at}") for at in range(4)]:
            kept.write("load", [host], minutes(25, 1))
            kept.check()
            kept.write("load", [host], minutes(45, 1))  # beyond what the lost ones have
            kept.check()
            kept.write("load", [host], minutes(2, 1))
            kept.check()
        kept.restart()
        kept.check()
        kept.durable.seal_and_store()
        kept.restart()
        kept.check()
        (kept.root / "state").unlink(missing_ok=True)
        kept.restart()
        kept.check()


def test_a_catalogue_that_is_cut_in_both_copies_gives_no_lost_number_again(kept):
    hosts = [("c", f"n{host}") for host in range(6)]
    for host in hosts:
        kept.write("load", [host], minutes(0, 20))
    kept.durable.seal_and_store()
    kept.durable.close()
    for path in (kept.root / "series.a", kept.root / "series.b"):
        *_, last = Scan(path, path.read_bytes(), DamageLog())
        os.truncate(path, last.offset)
    del kept.samples["load", hosts[-1]]
    kept.open(kept.durable.directory)
    kept.check()
    assert kept.durable.damage.count > 0
    kept.write("load", [("c", "x")], minutes(25, 1))
    kept.write("load", [("c", "x")], minutes(3, 1))
    kept.check()
    kept.restart()
    kept.check()


def test_a_catalogue_that_lost_its_metrics_is_refused(kept):
    kept.write("load", THREADS, minutes(0, 20))
    kept.durable.close()
    for path in (kept.root / "series.a", kept.root / "series.b"):
        damaged_record(path, 0)
    before = {path: path.read_bytes() for path in kept.root.rglob("*") if path.is_file() and path.name != "lock"}
    kept.metrics = {"slow": METRICS["slow"], "load": METRICS["load"]}
    with pytest.raises(DirectoryError, match="which metrics there are is lost"):
        kept.open(kept.durable.directory)
    assert {path: path.read_bytes() for path in before} == before


# --- opening


def test_a_directory_is_opened_once(kept):
    with pytest.raises(DirectoryInUseError):
        DurableStore(kept.durable.directory, metrics=METRICS)
    kept.write("load", THREADS, minutes(0, 3))
    kept.check()


@pytest.mark.parametrize("pattern", ["series.b", "state", "*.wal", "*.block"])
def test_a_later_format_of_any_file_is_refused_and_nothing_is_touched(kept, pattern, monkeypatch):
    kept.write("load", THREADS, minutes(0, 3))
    kept.durable.seal_and_store()
    kept.wal._leave_segment(kept.wal._segments[-1])
    kept.durable.settle()
    kept.write("load", THREADS, minutes(3, 3))
    kept.durable.close()
    module = {"series.b": "catalogue", "*.wal": "wal", "state": "state", "*.block": "block_format"}[pattern]
    monkeypatch.setattr(f"ccms_server.durability.{module}.VERSION", 0)
    before = {path: path.read_bytes() for path in kept.root.rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(NewerFormatError) as caught:
        kept.open(kept.durable.directory)
    assert (caught.value.version, caught.value.known) == (2 if pattern in ("state", "*.wal") else 1, 0)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in before} == before
    kept.open(kept.durable.directory)  # the lock was let go of
    kept.check()


# --- aggregates


def test_damaged_aggregates_are_added_up_again(kept):
    kept.write("load", THREADS, minutes(0, 30))
    kept.durable.seal_and_store()
    kept.durable.close()
    before = kept.samples["load", THREADS[0]]
    (path,) = kept.root.rglob("*.block")
    (_, _, _, _, _, offset) = Block.open(path, DamageLog())._loaded().aggregates.tolist()[0]
    content = bytearray(path.read_bytes())
    content[offset + 30] ^= 1
    path.write_bytes(content)
    kept.open(kept.durable.directory)
    for _ in range(2):
        sums = kept.durable.samples("load", ("c", "n0"))
        assert sums == {time: sum(kept.samples["load", thread][time] for thread in THREADS) for time in before}
        assert kept.durable.damage.count == 1


# --- a disk that refuses


def refusing(times=10**9, error=errno.ENOSPC):
    left = [times]

    def refuse(*arguments, **named):
        if left[0]:
            left[0] -= 1
            raise OSError(error, os.strerror(error))
        raise AssertionError("asked too often")

    return refuse


@pytest.mark.parametrize(("owner", "name"), [(Wal, "commit"), (Catalogue, "save")])
def test_samples_that_cannot_be_logged_are_refused_and_not_seen(kept, monkeypatch, caplog, owner, name):
    kept.write("load", THREADS, minutes(0, 10))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refusing())
        for at in range(4):
            with pytest.raises(DiskUnavailableError, match="No space left on device"):
                kept.durable.write("load", ("c", "n0", f"new{at}"), minutes(0, 3), [1.0] * 3)
            with pytest.raises(DiskUnavailableError):
                kept.durable.write("load", THREADS[0], minutes(300, 3), [1.0] * 3)
            with pytest.raises(DiskUnavailableError):
                kept.keeper.free((), ORIGIN + 60)
        kept.check()
        assert [m for m in caplog.messages if "cannot be logged" in m] == [
            "samples cannot be logged: No space left on device; trying again until it works"
        ]
    kept.write("load", [("c", "n0", "new1")], minutes(1, 3))
    kept.write("load", THREADS[:1], minutes(301, 3))
    kept.check()
    kept.kill()
    kept.check()
    kept.durable.seal_and_store()
    kept.restart()
    kept.check()


@pytest.mark.parametrize(
    ("owner", "name", "trouble"),
    [
        (block_job, "write_block", "blocks cannot be written"),
        (disk_keeper, "save_state", "the WAL cannot be cut"),
        (Wal, "sync", "blocks cannot be written"),
        (Wal, "delete_before", "the WAL cannot be cut"),
    ],
)
def test_what_cannot_be_written_is_logged_once_and_written_later(
    kept, monkeypatch, clock, caplog, owner, name, trouble
):
    caplog.set_level("INFO")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refusing(error=errno.EIO))
        for at in range(6):
            kept.write("load", THREADS, minutes(10 * at, 20))
            kept.store.seal_all()
            kept.durable.settle()
            clock(6.0)
        kept.check()
        assert kept.wal.first_number == 1
        assert [m for m in caplog.messages if "trying again" in m] == [
            f"{trouble}: Input/output error; trying again until it works"
        ]
    kept.kill()
    kept.check()
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refusing(error=errno.EIO))
        kept.write("load", THREADS, minutes(100, 20))
        kept.durable.seal_and_store()
        clock(1.0)
        kept.durable.settle()
    clock(1.0)
    kept.durable.settle()
    assert f"no longer: {trouble}" not in caplog.messages  # not before the pause is over
    clock(5.0)
    kept.durable.settle()
    assert f"no longer: {trouble}" in caplog.messages
    assert not any(table.unstored for table in kept.store.tables)
    assert kept.wal.first_number > 1
    kept.kill()
    kept.check()


def test_files_that_cannot_be_deleted_are_deleted_later(kept, monkeypatch, caplog):
    kept.write("load", THREADS, minutes(0, 3))
    kept.write("load", THREADS, minutes(256, 3))
    kept.durable.seal_and_store()
    oldest = ORIGIN + WINDOW_SECONDS + 300
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refusing(error=errno.EROFS))
        for _ in range(3):
            kept.durable.settle(oldest)
    assert sum("cannot be deleted" in message for message in caplog.messages) == 1
    assert len(kept.files()) == 2
    kept.samples = {
        key: {t: v for t, v in s.items() if t >= ORIGIN + WINDOW_SECONDS} for key, s in kept.samples.items()
    }
    kept.check()
    kept.kill()  # with the file
    kept.check()
    kept.durable.settle(oldest)
    assert len(kept.files()) == 1
    kept.check()


def test_a_wal_that_grows_without_end_refuses_samples_and_says_why(kept, monkeypatch, clock):
    kept.keeper._bounds._bytes = 5000
    with monkeypatch.context() as patch:
        patch.setattr(block_job, "write_block", refusing())
        reason = r"blocks cannot be written \(No space left on device\)"
        with pytest.raises(DiskUnavailableError, match=reason):  # noqa: PT012  sooner or later
            for at in range(1000):
                kept.write("load", THREADS, minutes(at, 1))
                kept.maintain()
                kept.keeper.wait()
        assert kept.wal.bytes < 2.2 * 5000
        kept.check()
    for _ in range(40):
        clock(6.0)
        kept.durable.settle()
    kept.write("load", THREADS, minutes(2000, 1))
    kept.kill()
    kept.check()
