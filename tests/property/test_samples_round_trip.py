"""Whatever samples are encoded, the same are decoded; whatever bytes are decoded, an error is the worst of it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccms_server.durability.sample_codec import decode, encode

BOUNDS_CHECKED = "NUMBA_BOUNDSCHECK"
EXAMPLES = 100 if BOUNDS_CHECKED in os.environ else 400

i32 = st.integers(-(1 << 31), (1 << 31) - 1)
i64 = st.integers(-(1 << 63), (1 << 63) - 1)
decimals = st.builds(lambda digits, exponent: digits / 10**exponent, st.integers(-(10**17), 10**17), st.integers(0, 25))
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), decimals, st.floats(-1000, 1000).map(lambda v: round(v, 3))
)


@st.composite
def placed_samples(draw):
    """Samples some of which form runs."""
    columns = [], [], [], []
    for first in draw(st.lists(i32, max_size=6)):
        length = min(draw(st.integers(1, 20)), (1 << 31) - first)
        columns[0].extend(range(first, first + length))
        columns[1].extend([draw(st.one_of(i64, st.integers(28_000_000, 28_000_003)))] * length)
        columns[2].extend([draw(st.one_of(i32, st.integers(0, 2)))] * length)
        columns[3].extend(draw(st.lists(values, min_size=length, max_size=length)))
    return tuple(np.array(column, kind) for column, kind in zip(columns, "iqid", strict=True))


def assert_decodes_or_refuses(payload):
    try:
        series, slots, phases, got = decode(payload)
    except ValueError:
        return
    assert len(series) == len(slots) == len(phases) == len(got) <= len(payload)


@settings(max_examples=EXAMPLES, deadline=None)
@given(placed_samples())
def test_samples_round_trip_bit_by_bit(placed):
    encoded = encode(*placed)
    for given_column, got in zip(placed, decode(encoded), strict=True):
        assert got.dtype == given_column.dtype
        assert got.tobytes() == given_column.tobytes()


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(values, max_size=100))
def test_a_run_takes_at_most_nine_bytes_a_sample(column):
    n = len(column)
    ids, slots, phases = np.arange(n, dtype=np.int32), np.zeros(n, np.int64), np.zeros(n, np.int32)
    encoded = encode(ids, slots, phases, np.array(column, float))
    assert len(encoded) <= 9 * n + 5
    assert decode(encoded)[3].tobytes() == np.array(column, float).tobytes()


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda rest: bytes([len(rest) // 4]) + rest)))
def test_any_bytes_decode_or_are_refused(payload):
    assert_decodes_or_refuses(payload)


@settings(max_examples=EXAMPLES, deadline=None)
@given(placed_samples(), st.data())
def test_changed_bytes_decode_or_are_refused(placed, data):
    payload = bytearray(encode(*placed))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.integers(0, 255))
    assert_decodes_or_refuses(payload)
    assert_decodes_or_refuses(bytes(payload[: data.draw(st.integers(0, len(payload)))]))


@pytest.mark.skipif(BOUNDS_CHECKED in os.environ, reason="this is the process with bounds checking")
def test_with_bounds_checking(tmp_path):
    """The tests of this file in a process whose kernels are compiled with bounds checking: nothing is read outside."""
    environment = os.environ | {BOUNDS_CHECKED: "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]

    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, check=False)

    assert done.returncode == 0, done.stdout.decode()
