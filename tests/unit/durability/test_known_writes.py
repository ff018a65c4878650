"""Which writes are stored already, and what is kept of that."""

import numpy as np
import pytest

from ccms_server.durability import known_writes as module
from ccms_server.durability.damage import DamageLog
from ccms_server.durability.known_writes import (
    KnownWrite,
    KnownWrites,
    NameKind,
    WriteId,
    decode_identified,
    decode_writes,
    encode_identified,
    encode_writes,
)
from ccms_server.durability.state import COLUMNS as COLUMN_KINDS
from ccms_server.durability.state import HEAD, SeriesState, load_state, save_state
from ccms_server.errors import RejectReason
from ccms_server.model import Rejection, WriteReport

COLUMNS = {name: np.empty(0, kind) for name, kind in COLUMN_KINDS.items()}
REPORT = WriteReport(3, 1, {RejectReason.TOO_OLD: 2})


def write(name="a", number=1, kind=NameKind.STREAM, report=REPORT):
    return KnownWrite(WriteId(kind, name, number), report)


def test_the_last_write_of_each_name_is_known():
    known = KnownWrites()
    known.note([write("a", 1), write("b", 7), write("a", 2)])
    assert known.last(NameKind.STREAM, "a") == write("a", 2)
    assert known.last(NameKind.STREAM, "b") == write("b", 7)
    assert known.last(NameKind.REQUEST, "a") is None


def test_an_older_write_changes_nothing():
    known = KnownWrites()
    known.note([write("a", 5), write("a", 4)])
    assert known.last(NameKind.STREAM, "a") == write("a", 5)


def test_names_that_were_written_to_longest_ago_make_room_for_those_of_their_kind(monkeypatch):
    monkeypatch.setattr(module, "NAMES_MAX", 2)
    known = KnownWrites()
    known.note([write("request", kind=NameKind.REQUEST), write("a"), write("b"), write("a", 2), write("c")])
    assert {each.id.name for each in known.all()} == {"request", "a", "c"}


@pytest.mark.parametrize("count", [0, 1, 300])
def test_writes_are_kept_with_their_counts(count):
    explained = WriteReport(3, 1, {RejectReason.TOO_OLD: 2}, [Rejection(1, RejectReason.TOO_OLD, "too old")])
    writes = [write(f"näme {number}", number, report=explained) for number in range(1, count + 1)]
    counted = [write(f"näme {number}", number) for number in range(1, count + 1)]
    assert decode_writes(encode_writes(writes)) == counted
    found, rest = decode_identified(memoryview(b"".join([*encode_identified(writes), b"samples"])))
    assert (found, bytes(rest)) == (counted, b"samples")


@pytest.mark.parametrize("payload", [b"", b"\1\0", b"\xff\0\0\0", b"\1\0\0\0\xc1", b"\2\0\0\0\x91\1"])
def test_bytes_that_are_no_writes_are_refused(payload):
    with pytest.raises(ValueError, match=r"writes"):
        decode_identified(memoryview(payload))


def test_the_state_file_keeps_them(tmp_path):
    damage = DamageLog()
    save_state(tmp_path / "state", SeriesState(9, 0, COLUMNS, [write()]))
    assert load_state(tmp_path / "state", damage).writes == [write()]
    assert damage.count == 0


def test_a_state_file_of_format_1_knows_none(tmp_path, monkeypatch):
    path = tmp_path / "state"
    monkeypatch.setattr("ccms_server.durability.state.VERSION", 1)
    save_state(path, SeriesState(9, 0, COLUMNS, []))
    path.write_bytes(path.read_bytes()[: HEAD.size + 4])
    monkeypatch.undo()
    damage = DamageLog()
    state = load_state(path, damage)
    assert (state.number, state.is_whole, list(state.writes), damage.count) == (9, True, [], 0)
