"""Windows on their way out: archived with all they hold and dropped, or just dropped."""

import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.durable import DurableStore
from pyarrow import parquet

from ccms_server.durability import disk_keeper
from ccms_server.durability.archive import scope_of
from ccms_server.store.layout import WINDOW_SLOTS

METRICS = {"load": {"frequency": 60, "aggregation": "sum"}, "power": {"frequency": 60}, "energy": {"frequency": 30}}
INTERVALS = {name: metric["frequency"] for name, metric in METRICS.items()}
WINDOW_SECONDS = 60 * WINDOW_SLOTS
ORIGIN = 110_676 * WINDOW_SECONDS
PATHS = {
    "load": [
        (cluster, host, f"hwthread{thread}") for cluster in ("c", "d") for host in ("n1", "n0") for thread in range(9)
    ],
    "power": [("c", "n0"), ("d", "n1"), ("c", "n2", "accelerator0", "mig1")],
    "energy": [("c", "n0")],
}


def expired(window):
    """The oldest time that is retained, when a window and all before it are not."""
    return ORIGIN + (window + 1) * WINDOW_SECONDS + 300


class Archived:
    """A store with an archive, and what was written to it."""

    def __init__(self, scratch, **archive):
        self.directory, self.archive = scratch / "0", scratch / "archive"
        self.section = archive or {"interval": "1h", "directory": str(self.archive)}
        self.rng = np.random.default_rng(1)
        self.written = {}
        self.open()

    def open(self, directory=None):
        self.directory = directory or self.directory
        self.durable = DurableStore(self.directory, metrics=METRICS, archive=self.section)
        self.store = self.durable.store

    def restart(self):
        self.durable.close()
        self.open()

    def write(self, window, slots, metrics=METRICS):
        """Any finite bit patterns, to all series: one record."""
        writes = []
        for metric in metrics:
            for path in PATHS[metric]:
                times = [ORIGIN + window * WINDOW_SECONDS + INTERVALS[metric] * slot for slot in slots]
                values = self.rng.integers(-(1 << 63), 1 << 63, len(slots)).view(np.float64)
                values = np.where(np.isfinite(values), values, 1.25).tolist()
                writes.append((metric, path, times, values))
                self.written.setdefault((metric, path), {}).update(zip(times, values, strict=True))
        self.durable.write_all(writes)

    def free(self, path, before):
        self.durable.keeper.free(path, before)
        for (_, series), samples in self.written.items():
            if series[: len(path)] == path:
                for time in [time for time in samples if time < before]:
                    del samples[time]

    def expected(self, interval, window):
        """Rows of the archive of a window, by cluster."""
        start = ORIGIN + window * WINDOW_SECONDS
        rows = {}
        for (metric, (cluster, host, *below)), samples in self.written.items():
            for time, value in samples.items():
                if INTERVALS[metric] == interval and start <= time < start + interval * WINDOW_SLOTS:
                    rows.setdefault(cluster, []).append((host, metric, *scope_of(*below), time, bits(value)))
        return {cluster: sorted(found) for cluster, found in rows.items()}

    def retained(self, start):
        later = {key: {time: value for time, value in s.items() if time >= start} for key, s in self.written.items()}
        return {key: samples for key, samples in later.items() if samples}

    def path(self, cluster, interval, window):
        return self.archive / cluster / f"{interval}s-{ORIGIN + window * WINDOW_SECONDS}.parquet"

    def check_archive(self, interval, window):
        expected = self.expected(interval, window)
        assert expected
        for cluster, rows in expected.items():
            assert archived_rows(self.path(cluster, interval, window)) == rows


def bits(value):
    return struct.pack("<d", value)


def archived_rows(path):
    columns = parquet.read_table(path).to_pydict()
    assert set(columns["cluster"]) == {path.parent.name}
    names = ("hostname", "metric", "scope", "scope_id", "timestamp")
    return list(zip(*(columns[name] for name in names), map(bits, columns["value"]), strict=True))


def blocks(store):
    return sorted(store.directory.rglob("*.block"))


@pytest.fixture
def archived(tmp_path):
    store = Archived(tmp_path)
    yield store
    store.durable.close()


@pytest.fixture
def clock(monkeypatch):
    """Lets pauses of the keeper pass."""
    now = [0.0]
    monkeypatch.setattr(disk_keeper, "monotonic", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def fill(archived):
    """Four windows: overwritten slots, late samples, freed ones; two stored, one in the WAL alone, one still open."""
    archived.write(0, range(0, 200, 3))
    archived.write(0, [0, 3, 7])
    archived.free(("c", "n1"), ORIGIN + 60 * 30)
    archived.write(1, range(20))
    archived.durable.seal_and_store()
    archived.write(0, [40, 41, 60])
    archived.write(0, [61], ["load"])
    archived.write(2, range(5))
    archived.write(3, range(5))


@pytest.mark.parametrize("is_stored", [False, True])
def test_an_archive_has_what_the_store_had_and_the_store_no_longer(archived, is_stored):
    fill(archived)
    if is_stored:
        archived.durable.seal_and_store()
    before = archived.durable.held()
    assert before == archived.written
    archived.durable.settle(expired(1))
    for interval in (60, 30):
        for window in (0, 1):
            archived.check_archive(interval, window)
    for window in (2, 3):
        assert not archived.path("c", 60, window).exists()
    assert archived.durable.held() == archived.retained(ORIGIN + 2 * WINDOW_SECONDS)
    assert [path for path in blocks(archived) if int(path.stem) < ORIGIN + 2 * WINDOW_SECONDS] == []
    assert archived.durable.damage.count == 0


def test_what_was_freed_is_not_archived(archived):
    archived.write(0, [0, 1])
    archived.free((), ORIGIN + WINDOW_SECONDS)
    archived.write(0, [2], ["power"])
    archived.durable.settle(expired(0))
    assert archived_rows(archived.path("c", 60, 0)) == archived.expected(60, 0)["c"]
    assert not archived.path("c", 30, 0).exists()
    assert archived.durable.held() == {}


def test_an_archive_that_was_written_before_a_crash_is_written_again_alike(archived, tmp_path):
    fill(archived)
    for _ in archived.durable.keeper.maintain(expired(0)):
        pass
    left = archived.durable.killed(tmp_path / "killed")
    content = {path: path.read_bytes() for path in archived.archive.rglob("*.parquet")}
    assert content
    archived.durable.close()
    archived.open(left)
    assert archived.durable.held() == archived.written
    archived.durable.settle(expired(0))
    assert {path: path.read_bytes() for path in content} == content
    archived.check_archive(60, 0)
    archived.check_archive(30, 0)
    assert archived.durable.held() == archived.retained(ORIGIN + WINDOW_SECONDS)


def test_what_the_wal_still_has_of_an_archived_window_does_not_replace_its_archive(archived):
    archived.write(0, range(100))
    archived.write(1, range(100))
    archived.durable.seal_and_store()
    archived.durable.keeper._wal._leave_segment(archived.durable.keeper._wal._segments[-1])
    archived.durable.settle()  # the WAL is cut: the samples above are in blocks alone
    archived.write(0, [7, 130])  # late
    archived.durable.seal_and_store()
    archived.durable.settle(expired(0))
    archived.check_archive(60, 0)
    archived.restart()
    assert archived.durable.held() == archived.retained(ORIGIN + WINDOW_SECONDS)
    archived.durable.settle(expired(0))
    archived.check_archive(60, 0)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_window_that_was_dropped_stays_dropped(archived, tmp_path, is_killed):
    fill(archived)
    archived.durable.settle(expired(1))
    retained = archived.retained(ORIGIN + 2 * WINDOW_SECONDS)
    if is_killed:
        left = archived.durable.killed(tmp_path / "killed")
        archived.durable.close()
        archived.open(left)
    else:
        archived.restart()
    assert archived.durable.held() == retained
    archived.write(2, [9])
    archived.durable.seal_and_store()
    archived.restart()
    assert archived.durable.held() == archived.retained(ORIGIN + 2 * WINDOW_SECONDS)


def test_windows_that_cannot_be_archived_stay_and_keep_nothing_else_waiting(archived, clock, caplog):
    archived.archive.rmdir()
    archived.archive.write_text("not a directory")
    fill(archived)
    for _ in range(8):
        clock(3.0)
        archived.durable.settle(expired(0))
    assert archived.durable.held() == archived.written
    assert sum("cannot be archived" in message for message in caplog.messages) == 1
    archived.durable.store.seal_all()
    for _ in range(8):
        clock(3.0)
        archived.durable.settle(expired(0))
    assert all(not table.unstored for table in archived.store.tables)  # blocks are written all the same
    archived.restart()
    archived.archive.unlink()
    clock(6.0)
    archived.durable.settle(expired(0))
    archived.check_archive(60, 0)
    assert archived.durable.held() == archived.retained(ORIGIN + WINDOW_SECONDS)


def test_deleting_instead_deletes(tmp_path):
    store = Archived(tmp_path, **{"interval": "1h", "directory": str(tmp_path / "archive"), "delete-instead": True})
    fill(store)
    store.durable.seal_and_store()
    assert len(blocks(store)) == 8
    store.durable.settle(expired(1))
    assert len(blocks(store)) == 4
    assert store.durable.held() == store.retained(ORIGIN + 2 * WINDOW_SECONDS)
    assert not store.archive.exists()
    store.durable.close()


def test_archiving_takes_little_memory(tmp_path):
    output = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    ).stdout
    grown, n_rows = map(int, output.split())
    assert n_rows == N_HOSTS * N_THREADS * WINDOW_SLOTS
    assert grown < 200 << 20


N_HOSTS, N_THREADS = 200, 64


def archive_a_large_window(scratch):
    """Prints by how many bytes the peak of memory grew, and the rows that were archived."""
    store = DurableStore(
        scratch / "0",
        metrics=METRICS,
        open_tiles=N_HOSTS + 1,
        archive={"interval": "1h", "directory": str(scratch / "archive")},
        sync="off",
    )
    n_series = N_HOSTS * N_THREADS
    ids = [
        store.series_id("load", ("c", f"n{host}", f"hwthread{thread}"))
        for host in range(N_HOSTS)
        for thread in range(N_THREADS)
    ]
    ids, rng = np.array(ids, np.int32), np.random.default_rng(1)
    for slot in range(WINDOW_SLOTS):
        values = rng.integers(0, 1000, n_series) / 10
        store.append(ids, np.full(n_series, ORIGIN + 60 * slot), values, oldest=0, newest=1 << 61)
    store.seal_and_store()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store.settle(expired(0))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    files = list((scratch / "archive").rglob("*.parquet"))
    print(1024 * grown, sum(parquet.ParquetFile(path).metadata.num_rows for path in files))  # noqa: T201
    store.close()


if __name__ == "__main__":
    archive_a_large_window(Path(sys.argv[1]))
