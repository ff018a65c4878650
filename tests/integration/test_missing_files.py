"""A directory that has lost files: what is left is served, or the start says what is missing; nothing is made worse."""

import pytest
from helpers.durable import DurableStore

from ccms_server.errors import DirectoryError

METRICS = {"load": {"frequency": 60}}
HOST = ("c", "h")
ORIGIN = 1_700_000_000
VALUES = {ORIGIN + 60 * slot: float(slot) for slot in range(600)}


@pytest.fixture
def directory(tmp_path):
    """Some windows, written by three records, all in blocks as well; the WAL was never cut, so there is no state."""
    durable = DurableStore(tmp_path / "store", metrics=METRICS)
    for first in range(0, 600, 200):
        times = list(VALUES)[first : first + 200]
        durable.write("load", HOST, times, [VALUES[time] for time in times])
    durable.seal_and_store()
    return durable.killed(tmp_path / "killed")


def files(directory, pattern):
    found = list((directory / "cc-metric-store").glob(pattern))
    assert found
    return found


def test_a_lost_end_of_the_wal_hides_nothing_that_is_in_blocks(directory, caplog):
    [segment] = files(directory, "wal/*.wal")
    segment.write_bytes(segment.read_bytes()[:500])
    assert DurableStore(directory, metrics=METRICS).samples("load", HOST) == VALUES
    assert "ends at record 0, but 3 were written" in caplog.text


def test_a_lost_wal_hides_nothing_that_is_in_blocks(directory, caplog):
    for segment in files(directory, "wal/*.wal"):
        segment.unlink()
    durable = DurableStore(directory, metrics=METRICS)
    assert durable.samples("load", HOST) == VALUES
    assert durable.damage.count == 1
    durable.write("load", HOST, [ORIGIN + 60 * 600], [600.0])
    durable.close()
    assert DurableStore(directory, metrics=METRICS).samples("load", HOST) == VALUES | {ORIGIN + 60 * 600: 600.0}


def test_without_any_catalogue_nothing_is_started_and_nothing_changed(directory):
    for copy in files(directory, "series.*"):
        copy.unlink()
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != "lock"}
    with pytest.raises(DirectoryError, match=r"series\.a and .*series\.b are missing, but there are 3 blocks"):
        DurableStore(directory, metrics=METRICS)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != "lock"} == before


def test_a_lost_copy_of_the_catalogue_is_made_again_and_told(directory, caplog):
    one, other = sorted(files(directory, "series.*"))
    whole = one.read_bytes()
    one.unlink()
    assert DurableStore(directory, metrics=METRICS).samples("load", HOST) == VALUES
    assert one.read_bytes() == other.read_bytes() == whole
    assert f"{one} was missing or not as it should be: mended" in caplog.text


def test_lost_names_are_told_and_what_is_left_of_the_catalogue_is_kept(directory, caplog):
    copies = sorted(files(directory, "series.*"))
    left = [copy.read_bytes()[:-4] for copy in copies]
    for copy, content in zip(copies, left, strict=True):
        copy.write_bytes(content)
    durable = DurableStore(directory, metrics=METRICS)
    assert durable.held() == {}
    assert "names of series are lost: their samples stay on disk" in caplog.text
    assert [copy.with_name(f"{copy.name}.damaged").read_bytes() for copy in copies] == left
    durable.write("load", ("c", "new"), [ORIGIN], [1.0])
    durable.close()
    assert DurableStore(directory, metrics=METRICS).held() == {("load", ("c", "new")): {ORIGIN: 1.0}}
