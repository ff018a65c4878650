"""Columns are encoded as protobuf does it."""

import numpy as np
import pytest

from ccms.v1.sample_pb2 import SampleBatch
from ccms_client.packed import packed_field


@pytest.mark.parametrize("n_samples", [0, 1, 15, 16, 17, 3000])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("step", [1, 2])
def test_a_batch_is_what_protobuf_makes_of_it(n_samples, order, step):
    numbers = np.arange(n_samples * step, dtype=f"{order}u4")[::step]
    timestamps = np.arange(-n_samples * step, 0, dtype=f"{order}i8")[::step]
    values = np.random.default_rng(1).normal(size=n_samples * step).astype(f"{order}f8")[::step]
    expected = SampleBatch(
        series_numbers=numbers.tolist(), timestamps_seconds=timestamps.tolist(), values=values.tolist()
    )
    encoded = packed_field(2, numbers) + packed_field(3, timestamps) + packed_field(4, values)
    assert encoded == expected.SerializeToString(deterministic=True)
