"""Windows on their way out, archived as the predecessor does it: ZIP files with JSON checkpoints."""

import json
import zipfile

import numpy as np
import pytest
from helpers.durable import DurableStore
from helpers.legacy import LegacyStore, put_file, samples_of

from ccms_server.durability import disk_keeper
from ccms_server.store.layout import WINDOW_SLOTS

METRICS = {"load": {"frequency": 60, "aggregation": "sum"}, "power": {"frequency": 60}, "energy": {"frequency": 30}}
WINDOW_SECONDS = 60 * WINDOW_SLOTS
ORIGIN = 110_676 * WINDOW_SECONDS
PATHS = {
    "load": [("c", "a", f"hwthread{thread}") for thread in range(3)] + [("d", "a"), ("c", "b")],
    "power": [("c", "a"), ("c", "b", "accelerator0", "mig1")],
    "energy": [("c", "a", "hwthread0"), ("c", "a")],
}


class Archived:
    """A store with an archive."""

    def __init__(self, scratch):
        self.directory, self.archive = scratch / "0", scratch / "archive"
        self.open(METRICS)

    def open(self, metrics, directory=None):
        self.directory = directory or self.directory
        section = {"interval": "1h", "directory": str(self.archive), "file-format": "zip"}
        self.durable = DurableStore(self.directory, metrics=metrics, archive=section)

    def fill(self, window, slots, metrics=METRICS, seed=1):
        """Any finite bit patterns for every series, with gaps."""
        rng = np.random.default_rng(seed + window)
        writes = []
        for metric, settings in metrics.items():
            for path in PATHS[metric]:
                start = ORIGIN + window * WINDOW_SECONDS
                times = [start + settings["frequency"] * slot for slot in slots if rng.random() < 0.9]
                values = rng.integers(-(1 << 63), 1 << 63, len(times)).view(np.float64)
                writes.append((metric, path, times, np.where(np.isfinite(values), values, 1.25).tolist()))
        self.durable.write_all(writes)

    def held(self, start, end):
        """What the store has in [start, end), as hex."""
        return {
            key: found
            for key, samples in self.durable.held().items()
            if (found := {time: value.hex() for time, value in samples.items() if start <= time < end})
        }

    def drop(self, window):
        self.durable.settle(ORIGIN + (window + 1) * WINDOW_SECONDS + 300)

    def samples(self):
        """All that is in the archive, by metric and path."""
        found = {}
        for path in sorted(self.archive.glob("*/*/*.zip")):
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
                assert archive.namelist() == [f"{path.stem}.json"]
                document = json.loads(archive.read(f"{path.stem}.json"))
            for key, samples in samples_of(document, (path.parent.parent.name, path.parent.name)):
                assert not found.get(key, {}).keys() & samples.keys()
                found.setdefault(key, {}).update(samples)
        return found

    def contents(self):
        return {path: path.read_bytes() for path in self.archive.rglob("*") if path.is_file()}


@pytest.fixture
def archived(tmp_path):
    store = Archived(tmp_path)
    yield store
    store.durable.close()


@pytest.mark.parametrize("is_stored", [False, True])
def test_an_archive_has_what_the_store_had_and_the_store_no_longer(archived, is_stored):
    for window in range(3):
        archived.fill(window, range(0, 200, 3))
    archived.durable.keeper.free(("c", "b"), ORIGIN + 60 * 30)
    if is_stored:
        archived.durable.seal_and_store()
    before = archived.held(ORIGIN, ORIGIN + 2 * WINDOW_SECONDS)
    archived.drop(1)
    assert archived.samples() == before
    assert archived.held(ORIGIN, ORIGIN + 2 * WINDOW_SECONDS) == {}
    assert archived.held(ORIGIN, ORIGIN + 3 * WINDOW_SECONDS) != {}


def test_windows_that_begin_together_share_a_file(archived):
    archived.fill(0, range(10))
    archived.durable.seal_and_store()
    before = archived.held(ORIGIN, ORIGIN + WINDOW_SECONDS)
    archived.drop(0)
    assert sorted(str(path.relative_to(archived.archive)) for path in archived.contents()) == [
        f"c/a/{ORIGIN}.zip",
        f"c/b/{ORIGIN}.zip",
        f"d/a/{ORIGIN}.zip",
    ]
    assert archived.samples() == before
    assert {metric for metric, _ in before} == set(METRICS)


def test_an_archive_that_was_written_before_a_crash_is_written_again_alike(archived, tmp_path):
    archived.fill(0, range(50))
    archived.fill(1, range(50))
    archived.durable.seal_and_store()
    before = archived.held(ORIGIN, ORIGIN + WINDOW_SECONDS)
    for _ in archived.durable.keeper.maintain(ORIGIN + WINDOW_SECONDS + 300):
        pass
    left = archived.durable.killed(tmp_path / "killed")
    names = archived.contents().keys()
    assert names
    archived.durable.close()
    archived.open(METRICS, left)
    archived.drop(0)
    assert archived.samples() == before
    assert archived.contents().keys() >= names
    assert len(archived.contents()) == 3


def test_a_metric_whose_interval_was_changed_keeps_both_windows(archived):
    archived.fill(0, range(10), {"power": METRICS["power"]})
    archived.durable.seal_and_store()
    archived.durable.close()
    changed = METRICS | {"power": {"frequency": 30}}
    archived.open(changed)
    archived.fill(0, range(10), {"power": changed["power"]}, seed=2)
    archived.durable.seal_and_store()
    archived.drop(0)
    names = sorted(path.name for path in archived.contents())
    assert names == [f"{ORIGIN}.zip"] * 2 + [f"{ORIGIN + 1}.zip"] * 2


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"PK\x05\x06" + bytes(18), "wrong member", "wrong content", "absurd size"],
    ids=lambda content: str(content)[:14],
)
def test_a_file_that_is_no_such_archive_is_left_alone(archived, caplog, content):
    path = put_file(archived.archive, f"c/a/{ORIGIN}.zip", content if isinstance(content, bytes) else b"")
    if isinstance(content, str):
        member = "x.json" if content == "wrong member" else f"{ORIGIN}.json"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, '{"from": 1, "to": 2, "metrics": {"load": 3}, "children": {}}')
    if content == "absurd size":
        whole = path.read_bytes()
        at = whole.index(b"PK\x01\x02") + 24
        path.write_bytes(whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :])
    before = path.read_bytes()
    archived.fill(0, range(10), {"load": METRICS["load"]})
    archived.drop(0)
    assert path.read_bytes() == before
    assert path.with_name(f"{ORIGIN + 1}.zip").exists()
    assert f"{ORIGIN}.zip is no archive of this host" in caplog.text


def test_windows_that_cannot_be_archived_stay(archived, monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(disk_keeper, "monotonic", lambda: now[0])
    archived.fill(0, range(10))
    archived.durable.seal_and_store()
    before = archived.held(ORIGIN, ORIGIN + WINDOW_SECONDS)
    archived.archive.rmdir()
    archived.archive.write_text("not a directory")
    archived.drop(0)
    assert archived.held(ORIGIN, ORIGIN + WINDOW_SECONDS) == before
    assert "windows cannot be archived" in caplog.text
    archived.archive.unlink()
    now[0] += 60.0
    archived.drop(0)
    assert archived.samples() == before


def test_what_is_unpacked_is_imported(archived, tmp_path):
    archived.fill(0, range(200))
    archived.fill(1, range(200))
    archived.durable.seal_and_store()
    before = archived.held(ORIGIN, ORIGIN + 2 * WINDOW_SECONDS)
    archived.drop(1)
    for path in archived.archive.glob("*/*/*.zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "again" / path.parent.relative_to(archived.archive))
    again = LegacyStore(tmp_path / "again", metrics=METRICS, now=ORIGIN + 10 * WINDOW_SECONDS)
    assert again.bits() == before
    again.close()
