"""Samples in records: their bytes, and how many there are."""

import struct

import numpy as np
import pytest

from ccms_server.durability.sample_codec import decode, decode_floors, encode, encode_floors


def samples(values, first=1000, slot=28_000_000, phase=17):
    n = len(values)
    ids = np.arange(first, first + n, dtype=np.int32)
    return ids, np.full(n, slot, np.int64), np.full(n, phase, np.int32), np.array(values, np.float64)


def assert_round_trip(placed):
    encoded = encode(*placed)
    for given, got in zip(placed, decode(memoryview(encoded)), strict=True):
        assert got.dtype == given.dtype
        assert got.tobytes() == given.tobytes()
    return encoded


def test_bytes_are_as_documented():
    ids, slots = np.array([2, 3, 9], np.int32), np.array([1, 1, -64], np.int64)
    phases, values = np.array([0, 0, 1], np.int32), np.array([1.25, -300.0, 1 / 3])
    expected = bytes([3])
    expected += bytes([2 << 2 | 2, 2 << 1, 1 << 1])  # two samples, another slot; id + 2; slot + 1
    expected += bytes([2 << 3 | 1, 125 << 1])  # 125 / 10**2
    expected += bytes([0 << 3 | 2, 0x59, 0x02])  # 300 << 1 | 1
    expected += bytes([1 << 2 | 3, 5 << 1, 0x81, 0x01, 1 << 1])  # one sample, all else; id + 5; slot - 65; phase + 1
    expected += bytes([0xF8]) + struct.pack("<d", 1 / 3)
    assert encode(ids, slots, phases, values) == expected
    assert_round_trip((ids, slots, phases, values))


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (0.0, 1),
        (-0.0, 2),
        (1.0, 2),
        (-1.0, 2),
        (127.0, 2),
        (128.0, 3),
        (0.1, 2),
        (999.999, 4),
        (-999.999, 4),
        (2199.3, 3),
        (1e15, 8),
        (1e-5, 2),
        (1.5e-20, 2),
        (1.21951219512195, 7),
        (float((1 << 51) - 1), 8),
        (float(1 << 53), 9),
        (1e22, 9),
        (1e300, 9),
        (1 / 3, 9),
        (0.1 + 0.2, 9),
        (5e-324, 9),
        (-2.2250738585072014e-308, 9),
        (1.7976931348623157e308, 9),
    ],
)
def test_length_of_a_value(value, length):
    place = len(encode(*samples([0.0]))) - 1
    assert len(assert_round_trip(samples([value]))) - place == length


def test_not_a_number_and_infinities_keep_their_bits():
    patterns = np.array([0x7FF8_0000_0000_0000, 0xFFF0_0000_0000_0001, 0x7FF0_0000_0000_0000, 0xFFF0_0000_0000_0000])
    assert_round_trip(samples(patterns.astype(np.uint64).view(np.float64)))


def test_extreme_places_round_trip():
    i32, i64 = np.iinfo(np.int32), np.iinfo(np.int64)
    ids = np.array([i32.max, i32.min, i32.max - 1, i32.max, 0], np.int32)
    slots = np.array([i64.min, i64.max, i64.min, i64.min, -1], np.int64)
    phases = np.array([i32.min, i32.max, i32.min, i32.min, 0], np.int32)
    assert_round_trip((ids, slots, phases, np.arange(5.0)))


def test_typical_values_take_four_bytes():
    values = np.random.default_rng(1).uniform(0, 1000, 10_000).round(3)
    assert len(assert_round_trip(samples(values))) <= 4 * len(values)


def test_unpredictable_values_take_nine_bytes():
    values = np.random.default_rng(1).normal(size=10_000)
    assert len(assert_round_trip(samples(values))) <= 9.01 * len(values)


def test_all_multiples_of_a_thousandth_are_decimals():
    values = np.arange(100_000) / 1000
    assert len(assert_round_trip(samples(values))) < 4 * len(values)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\x80",
        b"\xff" * 9 + b"\x7f",  # -1 samples
        b"\xff" * 11,
        b"\x01",
        b"\x00\x00",  # one byte too many
        b"\x02\x00\x00\x00\x00",  # a run of none
        b"\x01\x08\x00\x00\x00",  # a run of more than there are
        b"\x01\x04\x00\xb8\x00",  # 10**23
        b"\x01\x04\x00\xf9\x00",
        b"\x01\x04\x00\x02\x00",
        b"\x01\x04\x01\x00\x00",
        b"\x01\x04\x80\x80\x80\x80\x80\x01\x00",  # an id of 2**34
        b"\x01\x05\x00\x80\x80\x80\x80\x80\x01\x00",  # a phase of 2**34
        encode(*samples([1.5, 2.5])) + b"\x00",
        encode(*samples([1.5, 2.5]))[:-1],
    ],
)
def test_what_was_never_encoded_is_refused(damaged):
    with pytest.raises(ValueError):
        decode(damaged)


def test_floors_round_trip():
    series, slots = np.array([5, 1, 7], np.int32), np.array([-(1 << 62), 0, 1 << 62], np.int64)
    encoded = encode_floors(series, slots)
    assert encoded == struct.pack("<3i3q", 5, 1, 7, -(1 << 62), 0, 1 << 62)
    got_series, got_slots = decode_floors(memoryview(encoded))
    assert (got_series.dtype, got_slots.dtype) == (np.int32, np.int64)
    assert got_series.tolist() == series.tolist()
    assert got_slots.tolist() == slots.tolist()
    assert [len(column) for column in decode_floors(b"")] == [0, 0]
    with pytest.raises(ValueError):
        decode_floors(encoded[:-1])
