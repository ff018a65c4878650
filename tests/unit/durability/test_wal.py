"""The write-ahead log: what it gives back after any damage, and what a failing disk does to it."""

import errno
import logging
import os
import resource
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from ccms_server.durability.damage import DamageLog
from ccms_server.durability.records import HEAD_BYTES, HEADER_BYTES, file_header, frame
from ccms_server.durability.wal import MAGIC, RESERVED_BYTES, SYNC_ALWAYS, VERSION, Wal
from ccms_server.errors import NewerFormatError

SEGMENT_BYTES = 130
"""Three records of some ten bytes."""
PAYLOADS = [b"%d" % number * (8 + number) for number in range(1, 7)]
EXPECTED = list(enumerate(PAYLOADS, 1))


def new_wal(directory, damage=None, *, segment_bytes=SEGMENT_BYTES, sync_seconds=None):
    return Wal(directory, damage or DamageLog(), segment_bytes=segment_bytes, sync_seconds=sync_seconds)


def opened(directory, **arguments):
    wal = new_wal(directory, **arguments)
    for _ in wal.replay():
        pass
    wal.open(wal.last_number + 1)
    return wal


def filled(directory, payloads=PAYLOADS, **arguments):
    wal = opened(directory, **arguments)
    for payload in payloads:
        wal.commit(5, [payload])
    return wal


def replayed(directory):
    """The records of a directory, and how much damage was found."""
    damage = DamageLog()
    wal = new_wal(directory, damage)
    found = [(record.number, bytes(record.payload)) for record in wal.replay()]
    assert wal.last_number >= max([0, *(number for number, _ in found)])
    return found, damage.count


def files(directory):
    return sorted(directory.iterdir())


def names(directory):
    return [path.name for path in files(directory)]


@contextmanager
def file_size_limit(size):
    """Lets no file of this process grow beyond a size: a write stops short there, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def failing(code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    return fail


# --- without damage


def test_records_come_back_in_order_after_any_number_of_restarts(tmp_path):
    expected = []
    for restart in range(5):
        wal = opened(tmp_path)
        expected += [(wal.commit(5, [payload[:3], payload[3:]]), payload) for payload in PAYLOADS[: restart + 1]]
        wal.close()
        assert replayed(tmp_path) == (expected, 0)
    assert [number for number, _ in expected] == list(range(1, 16))


def test_the_log_in_a_directory_that_is_not_there_is_empty(tmp_path):
    wal = new_wal(tmp_path / "none")
    wal.check_versions()
    assert list(wal.replay()) == []
    assert (wal.last_number, wal.bytes, wal.segments, wal.first_number, wal.middle) == (0, 0, 0, None, 1)


def test_segments_are_files_of_bounded_size(tmp_path):
    wal = filled(tmp_path)
    assert names(tmp_path) == ["00000000000000000001.wal", "00000000000000000004.wal"]
    assert wal.bytes == sum(path.stat().st_size for path in files(tmp_path))
    assert (wal.segments, wal.first_number, wal.last_number) == (2, 1, 6)
    first = b"".join(
        [file_header(MAGIC, VERSION, 1), *(part for n in (1, 2, 3) for part in frame(n, 5, [PAYLOADS[n - 1]]))]
    )
    assert files(tmp_path)[0].read_bytes() == first


def test_a_segment_is_begun_by_the_first_commit(tmp_path):
    wal = opened(tmp_path)
    assert names(tmp_path) == []
    wal.open(41)
    assert wal.commit(5, [b"x"]) == 41
    assert names(tmp_path) == ["00000000000000000041.wal"]
    assert replayed(tmp_path) == ([(41, b"x")], 0)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "1.wal").touch()
    (tmp_path / "notes").touch()
    filled(tmp_path).close()
    assert replayed(tmp_path) == (EXPECTED, 0)


def test_whole_segments_are_deleted_but_never_the_one_being_written(tmp_path):
    wal = filled(tmp_path)
    assert [wal.can_delete_before(number) for number in (1, 3, 4, 7)] == [False, False, True, True]
    assert wal.delete_before(3) == 0
    assert wal.delete_before(100) == 1
    assert names(tmp_path) == ["00000000000000000004.wal"]
    assert wal.bytes == files(tmp_path)[0].stat().st_size
    assert (wal.segments, wal.first_number) == (1, 4)
    assert wal.commit(5, [b"x"]) == 7
    assert replayed(tmp_path) == ([*EXPECTED[3:], (7, b"x")], 0)


def test_after_replay_and_after_close_all_segments_can_go(tmp_path):
    filled(tmp_path).close()
    wal = opened(tmp_path)
    assert wal.delete_before(6) == 1
    assert wal.delete_before(7) == 1
    assert (wal.segments, wal.first_number, wal.bytes) == (0, None, 0)
    assert wal.commit(5, [b"x"]) == 7
    wal.close()
    assert wal.delete_before(8) == 1
    assert names(tmp_path) == []


def test_the_middle_is_where_a_segment_begins(tmp_path):
    wal = opened(tmp_path)
    middles = []
    for number in range(1, 19):
        assert wal.commit(5, [b"x" * 14]) == number
        middles.append(wal.middle)
    assert wal.segments == 6
    assert middles[:3] == [2, 3, 4], "of one segment, the end"
    assert middles[-1] == 10


# --- damage


@pytest.fixture
def written(tmp_path):
    """Two segments: content of each, and where the header and each record end."""
    filled(tmp_path).close()
    contents = [path.read_bytes() for path in files(tmp_path)]
    edges = []
    for numbers in ((1, 2, 3), (4, 5, 6)):
        edges.append([HEADER_BYTES])
        for number in numbers:
            edges[-1].append(edges[-1][-1] + sum(map(len, frame(number, 5, [PAYLOADS[number - 1]]))))
    assert [edge[-1] for edge in edges] == [len(content) for content in contents]
    return contents, edges


def restore(directory, contents):
    for path in files(directory):
        path.unlink()
    for first, content in zip((1, 4), contents, strict=True):
        (directory / f"{first:020}.wal").write_bytes(content)


def goes_on(directory, found, damage):
    """After replay, the log can be written, and the next replay finds what this one did, and what was added."""
    wal = opened(directory)
    number = wal.commit(5, [b"added"])
    wal.close()
    again, damage_again = replayed(directory)
    assert (again, damage_again) == ([*found, (number, b"added")], damage)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_changed_byte_costs_the_record_it_is_in(tmp_path, written, mask):
    contents, edges = written
    for segment in (0, 1):
        for offset in range(len(contents[segment])):
            damaged = [bytearray(content) for content in contents]
            damaged[segment][offset] ^= mask
            restore(tmp_path, damaged)
            hit = sum(offset >= edge for edge in edges[segment])  # 0: the header
            expected = [record for record in EXPECTED if not hit or record[0] != 3 * segment + hit]
            is_tail = (segment, hit) == (1, 3)
            found, damage = replayed(tmp_path)
            assert (found, damage) == (expected, 0 if is_tail else 1)
            if offset % 8 == 0:
                goes_on(tmp_path, found, damage)


def test_a_last_segment_cut_anywhere_has_the_records_before_and_is_not_damaged(tmp_path, written):
    contents, edges = written
    for size in range(len(contents[1])):
        restore(tmp_path, [contents[0], contents[1][:size]])
        whole = sum(size >= edge for edge in edges[1][1:])
        assert replayed(tmp_path) == (EXPECTED[: 3 + whole], 0)
        left = [contents[0], contents[1][: edges[1][whole]]][: 1 + (whole > 0)]
        assert [path.read_bytes() for path in files(tmp_path)] == left
        goes_on(tmp_path, EXPECTED[: 3 + whole], 0)


def test_an_earlier_segment_cut_anywhere_has_lost_what_is_missing(tmp_path, written):
    contents, edges = written
    for size in range(len(contents[0])):
        restore(tmp_path, [contents[0][:size], contents[1]])
        whole = sum(size >= edge for edge in edges[0][1:])
        expected = EXPECTED[:whole] + EXPECTED[3:]
        assert replayed(tmp_path) == (expected, 1)
        goes_on(tmp_path, expected, 1)


@pytest.mark.parametrize("garbage", [b"\0" * 4096, b"\xff" * 5, b"\xccREC" * 20])
def test_garbage_at_an_end_costs_nothing(tmp_path, written, garbage):
    contents, _ = written
    restore(tmp_path, [content + garbage for content in contents])
    assert replayed(tmp_path) == (EXPECTED, 0)
    goes_on(tmp_path, EXPECTED, 0)


def test_records_that_are_missing_without_a_trace_are_damage(tmp_path, written, caplog):
    contents, edges = written
    hole = contents[0][: edges[0][1]] + contents[0][edges[0][2] :]
    restore(tmp_path, [hole, contents[1]])
    assert replayed(tmp_path) == (EXPECTED[:1] + EXPECTED[2:], 1)
    assert "record 2" in caplog.text
    filled(tmp_path, PAYLOADS).close()  # 7 to 12
    files(tmp_path)[1].unlink()
    assert replayed(tmp_path)[1] == 2
    assert "records 4 to 6" in caplog.text


def test_a_segment_that_lost_all_its_records_goes_with_the_segments_around_it(tmp_path, written):
    contents, _ = written
    restore(tmp_path, [bytes(len(contents[0])), contents[1]])
    wal = new_wal(tmp_path)
    assert [record.number for record in wal.replay()] == [4, 5, 6]
    assert len(names(tmp_path)) == 2
    assert wal.delete_before(4) == 1


def test_what_is_cut_off_is_told(tmp_path, written, caplog):
    contents, _ = written
    restore(tmp_path, [contents[0], contents[1] + b"torn"])
    with caplog.at_level(logging.INFO):
        replayed(tmp_path)
    assert [(record.levelname, "4 bytes" in record.getMessage()) for record in caplog.records] == [("INFO", True)]


def test_a_newer_segment_is_refused_before_anything_is_touched(tmp_path, written):
    contents, _ = written
    newer = [contents[0], file_header(MAGIC, VERSION + 1, 4) + contents[1][HEADER_BYTES:] + b"torn"]
    restore(tmp_path, newer)
    with pytest.raises(NewerFormatError) as caught:
        new_wal(tmp_path).check_versions()
    assert caught.value.path == tmp_path / "00000000000000000004.wal"
    with pytest.raises(NewerFormatError):
        list(new_wal(tmp_path).replay())
    assert [path.read_bytes() for path in files(tmp_path)] == newer


# --- a failing disk


@pytest.mark.parametrize("short_by", [1, 10, 50, 1 << 12])
@pytest.mark.parametrize("committed", [0, 1, 4])
def test_a_commit_that_does_not_fit_leaves_no_trace(tmp_path, committed, short_by):
    """The real thing: the system writes up to the limit, and refuses the rest."""
    # A segment has room for one byte more than what is committed.
    reserved = HEADER_BYTES + 1 + sum(HEAD_BYTES + len(payload) for payload in PAYLOADS[:committed])
    wal = filled(tmp_path, PAYLOADS[:committed], segment_bytes=reserved, sync_seconds=SYNC_ALWAYS)
    before = [path.read_bytes().rstrip(b"\0") for path in files(tmp_path)]
    size = max([0, *map(len, before)]) + 3000 - short_by
    for _ in range(3):
        with file_size_limit(max(size, 0)), pytest.raises(OSError, match="File too large") as caught:
            wal.commit(5, [b"x" * 1500, b"y" * 8000])
        assert caught.value.errno == errno.EFBIG
        assert [path.read_bytes() for path in files(tmp_path)] == before
        assert (wal.last_number, wal.segments, wal.bytes) == (committed, len(before), sum(map(len, before)))
    expected = [*EXPECTED[:committed], (committed + 1, b"later")]
    assert wal.commit(5, [b"later"]) == committed + 1
    assert wal.segments == len(before) + 1
    wal.close()
    assert replayed(tmp_path) == (expected, 0)


@pytest.mark.parametrize("committed", [0, 2])
@pytest.mark.parametrize("part", [20, 1 << 20], ids=["torn", "whole"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_what_cannot_be_removed_is_passed_over(tmp_path, monkeypatch, committed, part, code):
    """Neither the commit nor its removal works; part of the record, or all of it, stays."""
    wal = filled(tmp_path, PAYLOADS[:committed])
    writev = os.writev

    def write_some(fd, buffers):
        writev(fd, [b"".join(buffers)[:part]])
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", write_some)
        patch.setattr(os, "ftruncate", failing(code))
        patch.setattr("pathlib.Path.unlink", failing(code))
        for _ in range(2):
            with pytest.raises(OSError):
                wal.commit(5, [b"never acknowledged"])
    assert wal.last_number == committed
    expected = EXPECTED[:committed] + [
        (wal.commit(5, [payload]), payload) for payload in (b"acknowledged", b"this too")
    ]
    assert [number for number, _ in expected] == list(range(1, committed + 3))
    wal.close()
    assert replayed(tmp_path) == (expected, 0)


@pytest.mark.parametrize("committed", [0, 2])
def test_a_commit_that_cannot_be_synced_is_taken_back(tmp_path, monkeypatch, committed):
    wal = filled(tmp_path, PAYLOADS[:committed], sync_seconds=SYNC_ALWAYS)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(OSError):
            wal.commit(5, [b"lost"])
    assert replayed(tmp_path) == (EXPECTED[:committed], 0)
    assert wal.commit(5, [b"kept"]) == committed + 1
    assert replayed(tmp_path)[0][-1] == (committed + 1, b"kept")


def test_a_directory_that_takes_no_files_fails_the_commit_only(tmp_path):
    directory = tmp_path / "wal"
    wal = opened(directory)
    with pytest.raises(FileNotFoundError):
        wal.commit(5, [b"x"])
    directory.mkdir()
    assert wal.commit(5, [b"x"]) == 1
    assert replayed(directory) == ([(1, b"x")], 0)


@pytest.mark.parametrize("sync_seconds", [SYNC_ALWAYS, 1.0, None])
def test_failing_commits_keep_no_descriptors(tmp_path, monkeypatch, sync_seconds):
    wal = filled(tmp_path, PAYLOADS, sync_seconds=sync_seconds)
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", failing(errno.ENOSPC))
        for _ in range(20):
            with pytest.raises(OSError):
                wal.commit(5, [b"x"])
    assert descriptors() <= before
    wal.close()


# --- syncs


@pytest.fixture
def synced(monkeypatch):
    """Inodes that were synced."""
    inodes = []
    fdatasync = os.fdatasync

    def note(fd):
        fdatasync(fd)
        inodes.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fdatasync", note)
    return inodes


def inodes(directory):
    return [path.stat().st_ino for path in files(directory)]


def test_with_always_each_commit_is_synced(tmp_path, synced):
    wal = filled(tmp_path, sync_seconds=SYNC_ALWAYS)
    assert synced == [inode for inode in inodes(tmp_path) for _ in range(3)]
    wal.sync()
    assert not wal.is_sync_due(1e9)
    wal.close()
    assert len(synced) == 6


def test_a_sync_covers_all_segments_written_since_the_last_one(tmp_path, synced):
    wal = filled(tmp_path)
    assert synced == []
    assert not wal.is_sync_due(1e9), "it is left to the system"
    wal.sync()
    assert sorted(synced) == sorted(inodes(tmp_path))
    wal.sync()
    assert len(synced) == 2
    wal.commit(5, [b"x"])
    wal.close()
    assert synced[2:] == inodes(tmp_path)[2:]


def test_with_an_interval_a_sync_is_due_when_it_has_passed(tmp_path, synced):
    wal = filled(tmp_path, PAYLOADS[:1], sync_seconds=2.0)
    for now, count in ((100.0, 1), (101.0, 1), (103.0, 1)):
        wal.sync_if_due(now)
        assert len(synced) == count
    wal.commit(5, [b"x"])
    assert wal.is_sync_due(103.0)
    wal.sync_if_due(103.0)
    assert len(synced) == 2
    wal.commit(5, [b"x"])
    assert not wal.is_sync_due(104.9)


def test_what_the_last_process_left_to_the_system_is_synced_by_replay(tmp_path, synced):
    filled(tmp_path)
    assert synced == []
    replayed(tmp_path)
    assert synced == inodes(tmp_path)


def test_a_failing_sync_is_told_and_the_next_one_tries_again(tmp_path, monkeypatch, synced):
    wal = filled(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(OSError):
            wal.sync()
    wal.sync()
    assert synced == inodes(tmp_path)[1:]


def test_another_thread_may_sync_while_segments_come_and_go(tmp_path):
    wal = opened(tmp_path)
    done, errors = threading.Event(), []

    def sync():
        try:
            while not done.is_set():
                wal.sync()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=sync)
    thread.start()
    for number in range(1, 301):
        wal.commit(5, [b"%d" % number])
    done.set()
    thread.join()
    wal.close()
    assert errors == []
    assert replayed(tmp_path) == ([(number, b"%d" % number) for number in range(1, 301)], 0)


def test_space_is_reserved_and_given_back(tmp_path):
    wal = filled(tmp_path, PAYLOADS[:2], segment_bytes=1 << 22, sync_seconds=SYNC_ALWAYS)
    [path] = files(tmp_path)
    assert path.stat().st_size == wal.bytes - HEAD_BYTES - len(PAYLOADS[1]) + RESERVED_BYTES
    assert wal.bytes < 500
    left = tmp_path.with_name("left")
    shutil.copytree(tmp_path, left)  # what a crash leaves
    wal.close()
    assert path.stat().st_size == wal.bytes
    assert replayed(tmp_path) == (EXPECTED[:2], 0)
    assert replayed(left) == (EXPECTED[:2], 0)
    assert files(left)[0].stat().st_size == wal.bytes


def test_a_disk_without_room_to_reserve_is_written_all_the_same(tmp_path):
    with file_size_limit(1 << 16):
        wal = filled(tmp_path, PAYLOADS[:2], segment_bytes=1 << 20, sync_seconds=SYNC_ALWAYS)
    wal.close()
    assert replayed(tmp_path) == (EXPECTED[:2], 0)


@pytest.mark.parametrize("reserved", [1, 64, 1 << 20])
def test_records_of_any_size_survive_what_is_written_ahead(tmp_path, monkeypatch, reserved):
    monkeypatch.setattr("ccms_server.durability.wal.RESERVED_BYTES", reserved)
    payloads = [b"a", b"b" * (3 << 20), *[b"c" * size for size in (1, 1, 1, 1, 100, 70_000, 1)]]
    (tmp_path / "wal").mkdir()
    wal = filled(tmp_path / "wal", payloads, segment_bytes=1 << 24, sync_seconds=SYNC_ALWAYS)
    assert replayed(shutil.copytree(tmp_path / "wal", tmp_path / "killed")) == (list(enumerate(payloads, 1)), 0)
    wal.close()
    assert replayed(tmp_path / "wal") == (list(enumerate(payloads, 1)), 0)


def test_a_segment_that_could_not_be_synced_is_not_written_any_more(tmp_path, monkeypatch):
    wal = filled(tmp_path, PAYLOADS[:2], segment_bytes=1 << 20, sync_seconds=None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            wal.sync()
    wal.commit(5, [PAYLOADS[2]])
    assert wal.segments == 2
    wal.close()
    assert replayed(tmp_path) == (EXPECTED[:3], 0)


def test_a_directory_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    filled(tmp_path).close()
    monkeypatch.setattr(Path, "iterdir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(PermissionError):
        new_wal(tmp_path)


def test_a_segment_that_was_not_seen_is_not_overwritten(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    wal = opened(tmp_path / "elsewhere")
    filled(tmp_path / "elsewhere", PAYLOADS[:2]).close()
    with pytest.raises(FileExistsError):
        wal.commit(5, [b"new"])
    assert replayed(tmp_path / "elsewhere") == (EXPECTED[:2], 0)
