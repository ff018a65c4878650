"""Arrays that grow in place."""

import numpy as np
import pytest

from ccms_server.ingest.growing import GrowingArray


def test_what_is_there_stays_and_what_is_added_is_zero():
    growing = GrowingArray(np.dtype(np.int64), 10)
    for size in (10, 11, 1000, 100_000, 5):
        before = growing.array.copy()
        growing.array[:] = before = before + 1

        growing.reserve(size)

        assert len(growing.array) >= max(size, len(before))
        assert (growing.array[: len(before)] == before).all()
        assert not growing.array[len(before) :].any()


def test_an_array_that_somebody_keeps_is_not_moved_from_under_them():
    growing = GrowingArray(np.dtype(np.uint8), 10)
    kept = growing.array
    kept[3] = 7

    with pytest.raises(BufferError):
        growing.reserve(1 << 20)

    assert growing.array.tolist() == kept.tolist() == [0, 0, 0, 7, 0, 0, 0, 0, 0, 0]
