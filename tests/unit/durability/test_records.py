"""Records: what a scan gives, and what it reports, when bytes are not what was written."""

import os
from pathlib import Path

import pytest

from ccms_server.durability.damage import DamageLog
from ccms_server.durability.records import (
    HEAD_BYTES,
    HEADER_BYTES,
    RECORD_MAGIC,
    Scan,
    check_header,
    file_header,
    frame,
    write_all,
)
from ccms_server.errors import NewerFormatError

PATH = Path("somewhere")
MAGIC = b"testfile"
PAYLOADS = [b"first", b"", b"third " * 3, b"fourth"]


class Reports(DamageLog):
    """Keeps what is reported."""

    def __init__(self):
        super().__init__()
        self.all = []

    def add(self, damage):
        super().add(damage)
        self.all.append((damage.offset, damage.length))


def content(payloads=PAYLOADS):
    """A file with the payloads, numbered from 1, and the offsets at which records begin or end."""
    data, edges = bytearray(file_header(MAGIC, 1, 1)), [HEADER_BYTES]
    for number, payload in enumerate(payloads, 1):
        data += b"".join(frame(number, 7, [payload[:2], payload[2:]]))
        edges.append(len(data))
    return data, edges


def scanned(data, **arguments):
    reports = Reports()
    scan = Scan(PATH, bytes(data), reports, **arguments)
    return [(record.number, bytes(record.payload)) for record in scan], reports.all, scan.end


EXPECTED = list(enumerate(PAYLOADS, 1))


def test_records_come_back_with_place_and_kind():
    data, edges = content()
    records = list(Scan(PATH, bytes(data), DamageLog()))
    assert [(record.number, bytes(record.payload)) for record in records] == EXPECTED
    assert [record.offset for record in records] == edges[:-1]
    assert {(record.kind, record.path) for record in records} == {(7, PATH)}


def test_bytes_are_as_documented():
    header = file_header(MAGIC, 3, 5)
    assert header[:28] == MAGIC + bytes([3, 0, 0, 0, 0, 0, 0, 0, 5]) + bytes(11)
    assert len(header) == HEADER_BYTES
    head, payload = frame(0x0102, 9, [b"123456789"])
    assert payload == b"123456789"
    assert head[:24] == RECORD_MAGIC + bytes([9, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0]) + bytes.fromhex(
        "839206e3"
    )
    assert len(head) == HEAD_BYTES


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_changed_byte_costs_one_record_and_is_one_damage(mask):
    data, edges = content()
    for offset in range(HEADER_BYTES, len(data)):
        damaged = data.copy()
        damaged[offset] ^= mask
        hit = next(number for number in range(len(PAYLOADS)) if offset < edges[number + 1])
        found, reports, end = scanned(damaged)
        assert found == EXPECTED[:hit] + EXPECTED[hit + 1 :]
        if hit == len(PAYLOADS) - 1:
            assert (reports, end) == ([], edges[hit]), "whether this is a torn tail, the caller knows"
        else:
            assert (reports, end) == ([(edges[hit], edges[hit + 1] - edges[hit])], edges[-1])


def test_a_file_cut_anywhere_has_the_records_before():
    data, edges = content()
    for size in range(len(data)):
        whole = sum(edge <= size for edge in edges[1:])
        assert scanned(data[:size]) == (EXPECTED[:whole], [], min(edges[whole], size))


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"\xff", RECORD_MAGIC * 9, RECORD_MAGIC + b"\xff" * 40])
def test_garbage_between_records_is_stepped_over(garbage):
    data, edges = content()
    at = edges[2]
    found, reports, end = scanned(data[:at] + garbage + data[at:])
    assert (found, reports, end) == (EXPECTED, [(at, len(garbage))], len(data) + len(garbage))


def test_neighbouring_damage_is_one():
    data, edges = content()
    data[edges[1] + 3] ^= 1  # a head
    data[edges[2] + HEAD_BYTES] ^= 1  # a payload
    found, reports, _ = scanned(data)
    assert (found, reports) == ([EXPECTED[0], EXPECTED[3]], [(edges[1], edges[3] - edges[1])])


def test_a_payload_that_holds_a_record_is_one_record_even_when_it_is_damaged():
    inner = b"".join(frame(3, 7, [b"not a record of this file"]))
    data, edges = content([b"first", inner, b"third"])
    data[edges[2] - 1] ^= 1
    assert scanned(data)[0] == [(1, b"first"), (3, b"third")]


def test_numbers_that_do_not_increase_are_no_records():
    data, _ = content()
    again = b"".join(frame(2, 7, [b"again"]))
    assert scanned(data + again)[0] == EXPECTED
    assert scanned(data, after=2)[0] == EXPECTED[2:]


def test_a_newer_header_is_refused_and_a_damaged_one_reported():
    reports = Reports()
    check_header(PATH, MAGIC, 2, file_header(MAGIC, 2, 1), reports)
    with pytest.raises(NewerFormatError) as caught:
        check_header(PATH, MAGIC, 2, file_header(MAGIC, 3, 1), reports)
    assert (caught.value.path, caught.value.version, caught.value.known) == (PATH, 3, 2)
    newer = file_header(MAGIC, 3, 1)
    for size in range(HEADER_BYTES):
        check_header(PATH, MAGIC, 2, newer[:size], reports)
    check_header(PATH, MAGIC, 2, bytes(HEADER_BYTES), reports)
    assert reports.count == 0, "what was never written whole is not damaged"
    for offset in range(HEADER_BYTES):
        damaged = bytearray(newer)
        damaged[offset] ^= 0x10
        check_header(PATH, MAGIC, 2, damaged, None)
        check_header(PATH, MAGIC, 2, damaged, reports)
        assert reports.count == offset + 1


@pytest.mark.parametrize("most", [1, 7, 1 << 20])
def test_short_writes_go_on(tmp_path, monkeypatch, most):
    writev, write = os.writev, os.write
    monkeypatch.setattr(os, "writev", lambda fd, buffers: writev(fd, [b"".join(buffers)[:most]]))
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:most]))
    buffers = [b"abc", b"", bytearray(b"defgh"), memoryview(b"ijklmnopq")] * 500
    path = tmp_path / "file"
    with path.open("wb") as file:
        assert write_all(file.fileno(), buffers) == 17 * 500
    assert path.read_bytes() == b"abcdefghijklmnopq" * 500


def test_any_number_of_buffers_can_be_written(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        write_all(file.fileno(), [b"ab"] * 5000)
    assert path.read_bytes() == b"ab" * 5000
