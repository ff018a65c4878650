"""Arrays in and out of messages, compared with protobuf's own slow way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccms.v1.metric_store_service_pb2 import QueryResponse, SeriesHeader
from ccms_server.rpc.columns import set_packed


def set_values(message, values):
    set_packed(message, QueryResponse.VALUES_FIELD_NUMBER, values)


@given(st.lists(st.floats(), max_size=300))
def test_a_message_is_the_same_as_one_filled_value_by_value(values):
    expected = QueryResponse(query_index=3, header=SeriesHeader(metric="m"), offset=7, values=values)
    message = QueryResponse(query_index=3, header=SeriesHeader(metric="m"), offset=7)
    set_values(message, np.array(values, dtype=np.float64))
    assert message.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    np.testing.assert_array_equal(np.array(message.values, dtype=np.float64), values)


@pytest.mark.parametrize("n_values", [15, 16, 2047, 2048, 15_360])
def test_lengths_around_those_that_take_another_byte(n_values):
    values = np.arange(n_values) / 3
    message = QueryResponse()
    set_values(message, values)
    np.testing.assert_array_equal(np.array(message.values), values)


def test_the_message_keeps_nothing_of_the_array():
    values = np.zeros(4)
    message = QueryResponse()
    set_values(message, values)
    values[:] = 1.0
    assert list(message.values) == [0.0] * 4
