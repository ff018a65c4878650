"""The chore `-cleanup-checkpoints`."""

import shutil
import zipfile

import pytest
from helpers.legacy import (
    START,
    WAL_HEAD,
    LegacyStore,
    contents,
    json_bytes,
    level,
    put_file,
    snapshot_bytes,
    wal_record,
)
from helpers.server import config_text

from ccms_server.config import parse_config
from ccms_server.errors import DirectoryInUseError
from ccms_server.legacy.cleanup import clean_up_checkpoints

METRICS = {"load": {"frequency": 60}}
NOW = START + 3600
WINDOW_SECONDS = 256 * 60


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level("INFO")
    return caplog


def clean_up(directory, *, now=NOW, file_format="wal", retention="0", **sections):
    checkpoints = {"directory": str(directory), "file-format": file_format}
    settings = {"retention-in-memory": retention, "checkpoints": checkpoints, **sections}
    clean_up_checkpoints(parse_config(config_text(metrics=METRICS, **settings)), lambda: now)


def host(value, start=START):
    return level({"load": [value, None, value + 1]}, start=start)


def left_behind(directory):
    put_file(directory, f"c/a/{START}.json", json_bytes(host(1)))
    put_file(directory, f"c/a/{START + 600}.json", json_bytes(host(2, START + 600)))
    put_file(directory, f"c/b/{START}.bin", snapshot_bytes(host(3)))
    put_file(directory, "c/b/current.wal", WAL_HEAD + wal_record(START + 600, "load"))
    return contents(directory)


def opened(directory, **options):
    return LegacyStore(directory, metrics=METRICS, now=options.pop("now", NOW), **options)


def test_files_that_were_imported_are_deleted_with_their_folders(directory, log):
    left_behind(directory)
    store = opened(directory)
    held = store.held()
    store.close()
    clean_up(directory)
    assert contents(directory) == {}
    assert [path.name for path in directory.iterdir()] == ["cc-metric-store"]
    assert "4 files of 2 hosts, " in log.text
    store = opened(directory)
    assert (store.imported, store.held()) == (0, held)
    store.close()


def test_files_that_were_not_imported_or_have_changed_or_are_damaged_are_kept_and_named(directory, log):
    before = left_behind(directory)
    put_file(directory, f"c/d/{START}.json", b"damaged")
    opened(directory).close()
    put_file(directory, f"c/e/{START}.json", json_bytes(host(9)))
    changed = put_file(directory, "c/b/current.wal", before["c/b/current.wal"] + wal_record(START + 660, "load"))
    put_file(directory, "c/a/notes", b"mine")
    clean_up(directory)
    assert set(contents(directory)) == {f"c/d/{START}.json", f"c/e/{START}.json", "c/b/current.wal", "c/a/notes"}
    assert changed.read_bytes().startswith(before["c/b/current.wal"])
    assert f"kept: c/d/{START}.json (it is damaged" in log.text
    assert f"kept: c/e/{START}.json (it was not imported yet)" in log.text
    assert "kept: c/b/current.wal (it was not imported yet)" in log.text
    store = opened(directory)
    assert store.imported == 4, "what was kept is imported at the next start"
    store.close()


def test_without_any_import_nothing_is_deleted(directory):
    before = left_behind(directory)
    clean_up(directory)
    assert contents(directory) == before


def test_with_an_archive_files_are_moved_there(directory, tmp_path, log):
    before = left_behind(directory)
    opened(directory).close()
    archive = tmp_path / "archive"
    section = {"interval": "1h", "directory": str(archive)}
    clean_up(directory, archive=section)
    assert contents(directory) == {}
    assert sorted(str(path.relative_to(archive)) for path in archive.rglob("*.zip")) == [
        f"c/a/{NOW}.zip",
        f"c/b/{NOW}.zip",
    ]
    moved = {}
    for path in archive.rglob("*.zip"):
        with zipfile.ZipFile(path) as found:
            key = path.parent.relative_to(archive)
            moved |= {f"{key}/{name}": found.read(name) for name in found.namelist()}
    assert moved == before
    assert f"moved to {archive}" in log.text


def test_archives_are_not_written_over(directory, tmp_path):
    """As after a crash between the archive and the deletion."""
    left_behind(directory)
    opened(directory).close()
    archive = tmp_path / "archive"
    put_file(archive, f"c/a/{NOW}.zip", b"before")
    clean_up(directory, archive={"interval": "1h", "directory": str(archive)})
    assert (archive / "c" / "a" / f"{NOW}.zip").read_bytes() == b"before"
    with zipfile.ZipFile(archive / "c" / "a" / f"{NOW + 1}.zip") as found:
        assert len(found.namelist()) == 2


def test_deleting_instead_deletes(directory, tmp_path):
    left_behind(directory)
    opened(directory).close()
    archive = tmp_path / "archive"
    clean_up(directory, archive={"interval": "1h", "directory": str(archive), "delete-instead": True})
    assert contents(directory) == {}
    assert not archive.exists()


@pytest.mark.parametrize(("file_format", "n_kept"), [("json", 1), ("wal", 0)])
def test_checkpoints_of_its_own_are_kept_as_long_as_they_are_wanted(directory, file_format, n_kept):
    store = opened(directory, file_format="json")
    store.write_all([("load", ("c", "a"), [START], [1.0])])
    store.write_checkpoints(NOW)
    store.close()
    clean_up(directory, file_format=file_format)
    assert len(contents(directory)) == n_kept


def test_while_a_server_runs_nothing_is_done(directory):
    before = left_behind(directory)
    store = opened(directory)
    with pytest.raises(DirectoryInUseError):
        clean_up(directory)
    assert contents(directory) == before
    store.close()


def test_windows_past_the_retention_are_dropped(directory, log):
    store = opened(directory)
    times = list(range(START, START + 10 * WINDOW_SECONDS, 60))
    store.write_all([("load", ("c", "a"), times, [1.0] * len(times))])
    store.seal_and_store()
    n_blocks = len(store.keeper.blocks)
    store.close()
    now = START + 10 * WINDOW_SECONDS
    clean_up(directory, now=now, retention="8h32m")
    store = opened(directory, now=now)
    assert 2 <= len(store.keeper.blocks) <= 4 < n_blocks
    held = store.held()["load", ("c", "a")]
    assert set(held) >= {time for time in times if time >= now - 2 * WINDOW_SECONDS}
    assert f"{n_blocks - len(store.keeper.blocks)} windows past the retention were dropped" in log.text
    store.close()


def test_with_a_backend_that_knows_nodes_in_use_windows_are_left_to_the_server(directory, log):
    opened(directory).close()
    clean_up(directory, retention="1h", **{"backend-url": "http://localhost:1"})
    assert "left to the server" in log.text


def test_without_a_directory_there_is_nothing_to_do(log):
    clean_up_checkpoints(parse_config(config_text(metrics=METRICS)), lambda: NOW)
    assert "there is nothing to clean up" in log.text


def test_it_may_be_done_again(directory):
    left_behind(directory)
    opened(directory).close()
    clean_up(directory)
    clean_up(directory)
    shutil.rmtree(directory / "cc-metric-store")
    clean_up(directory)
    assert contents(directory) == {}
