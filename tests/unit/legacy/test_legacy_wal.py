import io
import struct

import pytest
from helpers.legacy import WAL_HEAD, wal_frame, wal_record

from ccms_server.legacy import wal
from ccms_server.legacy.content import Series
from ccms_server.legacy.wal import WalReader

RECORDS = [
    wal_record(1000, "load", (), 1.5),
    wal_record(1000, "flops", ("hwthread0",), 2.5),
    wal_record(1060, "load", (), -1.0),
    wal_record(1060, "mem_bw", ("socket0", "dimm0"), 0.25),
    wal_record(1120, "load", (), 3.0),
]
SAMPLES = [
    (Series((), "load", None), 1000, 1.5),
    (Series(("hwthread0",), "flops", None), 1000, 2.5),
    (Series((), "load", None), 1060, -1.0),
    (Series(("socket0", "dimm0"), "mem_bw", None), 1060, 0.25),
    (Series((), "load", None), 1120, 3.0),
]
CONTENT = WAL_HEAD + b"".join(RECORDS)
ENDS = [len(WAL_HEAD) + sum(map(len, RECORDS[: n + 1])) for n in range(len(RECORDS))]


def read(content):
    """The samples of a WAL, the damage that was reported, and the bytes at its end that are torn."""
    damage = []
    reader = WalReader(io.BytesIO(content), lambda *report: damage.append(report))
    samples = [
        (block.series[number], time, value)
        for block in reader.read()
        for number, time, value in zip(
            block.numbers.tolist(), block.timestamps.tolist(), block.values.tolist(), strict=True
        )
    ]
    return samples, damage, reader.torn_bytes


@pytest.fixture(params=[1 << 20, 7], ids=["at once", "in small pieces"])
def pieces(request, monkeypatch):
    monkeypatch.setattr(wal, "READ_BYTES", request.param)


@pytest.mark.usefixtures("pieces")
def test_all_records_are_read_in_order():
    assert read(CONTENT) == (SAMPLES, [], 0)


def test_an_empty_file_is_a_wal_without_records():
    assert read(b"") == ([], [], 0)
    assert read(WAL_HEAD) == ([], [], 0)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("end", range(len(CONTENT)))
def test_a_torn_end_is_no_damage(end):
    samples, damage, torn = read(CONTENT[:end])
    whole = [at for at in ENDS if at <= end]
    assert samples == SAMPLES[: len(whole)]
    assert damage == []
    assert torn == end - max([len(WAL_HEAD) if end >= len(WAL_HEAD) else 0, *whole])


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_costs_the_record_it_is_in(mask):
    for at in range(len(CONTENT)):
        flipped = bytearray(CONTENT)
        flipped[at] ^= mask
        samples, damage, torn = read(bytes(flipped))
        if at < len(WAL_HEAD):
            assert (samples, damage) == (SAMPLES, [(0, len(WAL_HEAD), "records of a WAL")])
            continue
        hit = sum(end <= at for end in ENDS)
        begin = ENDS[hit] - len(RECORDS[hit])
        assert samples == SAMPLES[:hit] + SAMPLES[hit + 1 :], at
        if torn:  # a length that leads beyond the end may be that of a record which was never finished
            assert (hit, damage, torn) == (len(RECORDS) - 1, [], len(RECORDS[-1]))
        else:
            assert damage == [(begin, len(RECORDS[hit]), "records of a WAL")]


@pytest.mark.usefixtures("pieces")
def test_records_behind_a_torn_one_are_found():
    """A killed process leaves a torn record; the next one goes on behind it."""
    for kept in range(1, len(RECORDS[1])):
        samples, damage, torn = read(WAL_HEAD + RECORDS[0] + RECORDS[1][:kept] + RECORDS[2] + RECORDS[3])
        assert samples == [SAMPLES[0], SAMPLES[2], SAMPLES[3]]
        assert damage == [(ENDS[0], kept, "records of a WAL")]
        assert torn == 0


def test_damage_that_is_longer_than_what_is_read_at_once_is_one_place(monkeypatch):
    monkeypatch.setattr(wal, "READ_BYTES", 100)
    garbage = bytes(range(256)) * 10
    samples, damage, _ = read(WAL_HEAD + RECORDS[0] + garbage + RECORDS[2])
    assert samples == [SAMPLES[0], SAMPLES[2]]
    assert damage == [(ENDS[0], len(garbage), "records of a WAL")]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(8),
        bytes(14),
        struct.pack("<qH", 1000, 4) + b"lo",
        struct.pack("<qH", 1000, 4) + b"load" + bytes([2]) + b"\x03abc" + bytes(4),
        struct.pack("<qH", 1000, 4) + b"load" + bytes([1]) + b"\x09abc" + bytes(4),
        struct.pack("<qH", 1000, 4) + b"load" + bytes([0]) + b"more" + bytes(4),
    ],
    ids=len,
)
def test_a_record_that_contradicts_itself_costs_only_itself(payload):
    frame = wal_frame(payload)
    samples, damage, _ = read(WAL_HEAD + RECORDS[0] + frame + RECORDS[2])
    assert samples == [SAMPLES[0], SAMPLES[2]]
    assert [report[:2] for report in damage] == [(ENDS[0], len(frame))]


def test_a_length_beyond_all_bounds_is_damage():
    frame = RECORDS[1][:4] + struct.pack("<I", wal.PAYLOAD_BYTES_MAX + 1)
    samples, damage, _ = read(WAL_HEAD + RECORDS[0] + frame)
    assert samples == [SAMPLES[0]]
    assert damage == [(ENDS[0], 8, "records of a WAL")]


def test_blocks_are_bounded(monkeypatch):
    monkeypatch.setattr(wal, "BLOCK_SAMPLES_MAX", 2)
    reader = WalReader(io.BytesIO(CONTENT), lambda *report: pytest.fail(str(report)))
    assert [len(block.values) for block in reader.read()] == [2, 2, 1]
    assert read(CONTENT)[0] == SAMPLES


def test_names_that_are_no_text_are_kept_apart_from_those_that_are():
    record = RECORDS[1].replace(b"hwthread0", b"hwthread\xff")
    [(series, _, _)] = read(WAL_HEAD + wal_frame(record[8:-4]))[0]
    assert series.path == ("hwthread\udcff",)
