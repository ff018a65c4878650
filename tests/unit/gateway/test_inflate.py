"""Decompression in bounded steps, of data that comes in any portions."""

import gzip
import zlib

import pytest

from ccms_gateway.inflate import STEP_BYTES, Inflater

SIZES = [0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES, 40 * STEP_BYTES + 7]


def inflated(data, portion):
    inflater, pieces = Inflater(), []
    for start in range(0, len(data), portion):
        pieces += inflater.pieces(data[start : start + portion])
    return inflater, pieces


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("portion", [1, 7, 1 << 20])
def test_everything_comes_out_in_small_pieces(size, compress, portion):
    content = bytes(size)
    inflater, pieces = inflated(compress(content), portion)
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= STEP_BYTES
    assert inflater.complete


@pytest.mark.parametrize("portion", [1, 7, 1 << 20])
def test_members_follow_each_other(portion):
    inflater, pieces = inflated(gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two"), portion)
    assert b"".join(pieces) == b"onetwo"
    assert inflater.complete


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_data_cut_anywhere_are_incomplete(compress):
    whole = compress(b"value=88802773")
    for end in range(len(whole)):
        assert not inflated(whole[:end], 1 << 20)[0].complete
