"""The store's directory: who gets it, and what a file in it can look like after an error."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ccms_server.durability import directory as module
from ccms_server.durability.directory import StoreDirectory, make_directories, replacing, write_durably
from ccms_server.errors import DirectoryError, DirectoryInUseError, NewerFormatError

HOLD = """
import sys
from pathlib import Path
from pathlib import Path
from ccms_server.durability.directory import StoreDirectory
with StoreDirectory(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def content(path):
    """Every file below a path, with what it holds."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def synced(monkeypatch):
    """Names of the files and directories that were synced, in order."""
    names = []
    fsync = os.fsync

    def observe(descriptor):
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", observe)
    return names


def test_a_new_directory_is_made_with_all_above_it(tmp_path):
    with StoreDirectory(tmp_path / "var" / "checkpoints") as store:
        assert store.path == tmp_path / "var" / "checkpoints" / "cc-metric-store"
        assert store.wal.is_dir()
        assert store.blocks.is_dir()
        assert [path.name for path in (*store.catalogue, store.state)] == ["series.a", "series.b", "state"]
        assert json.loads((store.path / "format").read_text()) == {"format": 1}
        assert (store.path / "lock").read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE(store.path.stat().st_mode) & ~0o750 == 0
    assert content(store.path).keys() == {"format", "lock"}


def test_naming_the_paths_touches_nothing(tmp_path):
    StoreDirectory(tmp_path / "var")
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_used_again_and_is_not_written_again(tmp_path):
    for _ in range(2):
        with StoreDirectory(tmp_path) as store:
            store.state.write_bytes(b"state")
            written = (store.path / "format").stat().st_mtime_ns, (store.path / "format").stat().st_ino
    with store:
        assert store.state.read_bytes() == b"state"
        assert written == ((store.path / "format").stat().st_mtime_ns, (store.path / "format").stat().st_ino)


def test_another_process_that_holds_it_is_named(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        before = content(tmp_path)
        with pytest.raises(DirectoryInUseError, match=f"cc-metric-store is in use by process {holder.pid}; stop it"):
            StoreDirectory(tmp_path).__enter__()
        assert content(tmp_path) == before
        holder.kill()
    with StoreDirectory(tmp_path) as store:
        assert (store.path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_holder_that_is_not_known_is_another_process(tmp_path):
    with StoreDirectory(tmp_path) as store:
        (store.path / "lock").write_text("")
        with pytest.raises(DirectoryInUseError, match="is in use by another process; "):
            StoreDirectory(tmp_path).__enter__()


def test_a_lock_without_room_for_its_holder_is_a_lock(tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with StoreDirectory(tmp_path):
        pass
    monkeypatch.setattr(os, "pwrite", refuse)
    with StoreDirectory(tmp_path) as store:
        assert caplog.messages == [f"{store.path / 'lock'} does not say who holds it: No space left on device"]
        with pytest.raises(DirectoryInUseError):
            StoreDirectory(tmp_path).__enter__()


def test_a_later_format_is_refused_and_nothing_is_touched(tmp_path):
    path = tmp_path / "cc-metric-store"
    (path / "blocks" / "60s").mkdir(parents=True)
    (path / "blocks" / "60s" / "0.block.tmp").write_text("?")
    (path / "format").write_text('{"format": 2, "compression": "best"}')
    before = content(tmp_path)
    with pytest.raises(NewerFormatError) as caught:
        StoreDirectory(tmp_path).__enter__()
    assert (caught.value.path, caught.value.version, caught.value.known) == (path / "format", 2, 1)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "text", ["", "1", "[1]", "{}", '{"format": "1"}', '{"format": true}', '{"format": 0}', '{"format": 1.0}', "\udcff"]
)
def test_a_damaged_format_is_refused_and_nothing_is_touched(text, tmp_path):
    path = tmp_path / "cc-metric-store"
    path.mkdir()
    (path / "format").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DirectoryError, match=r'/cc-metric-store/format is damaged: it does not hold {"format": 1}; '):
        StoreDirectory(tmp_path).__enter__()
    assert content(path).keys() == {"format"}


def test_leftovers_are_deleted_and_nothing_else(tmp_path):
    with StoreDirectory(tmp_path) as store:
        (store.blocks / "60s").mkdir()
    for path in (store.state, store.blocks / "60s" / "15360.block"):
        path.write_text("whole")
        path.with_name(f"{path.name}.tmp").write_text("half")
    with store:
        assert content(store.path).keys() == {"format", "lock", "state", "blocks/60s/15360.block"}


@pytest.mark.parametrize("parent", ["file", "file/below"])
def test_a_directory_that_cannot_be_made_is_named_with_the_reason(parent, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        StoreDirectory(tmp_path / parent).__enter__()
    assert caught.value.strerror == f"cannot use {tmp_path / 'file'}: Not a directory"
    assert caught.value.filename is None  # it is in the message


def test_an_error_after_the_lock_lets_go_of_it(tmp_path, monkeypatch):
    def refuse(path, parts):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_durably", refuse)
        with pytest.raises(OSError, match=r"cannot use .*/cc-metric-store/format: Read-only file system"):
            StoreDirectory(tmp_path).__enter__()
    with StoreDirectory(tmp_path):
        pass


def test_new_directories_are_synced_into_those_above(tmp_path, synced):
    make_directories(tmp_path / "a" / "b")
    make_directories(tmp_path / "a" / "b")
    assert synced == [tmp_path.name, "a"]


def test_a_file_is_synced_before_and_after_it_gets_its_name(tmp_path, synced):
    write_durably(tmp_path / "state", [b"one ", memoryview(b"two")])
    assert content(tmp_path) == {"state": b"one two"}
    assert synced == ["state.tmp", tmp_path.name]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "state"
    path.write_text("much longer than what replaces it")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text().startswith("much")
    assert content(tmp_path) == {"state": b"new"}


@pytest.mark.parametrize("failing", ["fsync", "replace", "write"])
def test_after_an_error_the_file_is_as_it_was(failing, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def parts():
        yield b"half"
        if failing == "write":
            refuse()

    (tmp_path / "state").write_text("old")
    if failing != "write":
        monkeypatch.setattr(os, failing, refuse)
    with pytest.raises(OSError, match="No space left on device"):
        write_durably(tmp_path / "state", parts())
    assert content(tmp_path) == {"state": b"old"}
