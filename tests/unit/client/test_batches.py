"""Batches as they are sent, and the numbers of their series."""

import numpy as np
import pytest

from ccms.v1.metric_store_service_pb2 import WriteStreamRequest
from ccms_client import SeriesKey, series_numbers
from ccms_client.batches import SampleBuffer
from ccms_client.series_numbers import DefinedNumbers, SeriesNumbers

KEYS = [SeriesKey("load", "alex", f"n{host}", "socket0", "core1") for host in range(3)]


def batch(numbers, timestamps, values):
    buffer = SampleBuffer(10)
    taken = buffer.append(np.array(numbers, np.uint32), np.array(timestamps), np.array(values, float))
    assert taken == len(values)
    return buffer.take(7)


def test_a_batch_is_decoded_as_what_it_was_made_from():
    numbers = SeriesNumbers()
    batch_ = batch(numbers.numbers(KEYS), [10, 20, 30], [1, 2, 3])
    request = WriteStreamRequest.FromString(batch_.request(numbers.definitions(np.arange(3, dtype=np.uint32))))
    assert (request.sequence, request.WhichOneof("batch")) == (7, "samples")
    samples = request.samples
    assert list(samples.series_numbers) == [0, 1, 2]
    assert list(samples.timestamps_seconds) == [10, 20, 30]
    assert list(samples.values) == [1, 2, 3]
    assert [(new.number, new.metric, new.selector.host) for new in samples.new_series] == [
        (0, "load", "n0"),
        (1, "load", "n1"),
        (2, "load", "n2"),
    ]
    assert (samples.new_series[0].selector.component.type, samples.new_series[0].selector.subcomponent.type) == (
        "socket0",
        "core1",
    )


def test_what_is_the_same_for_all_samples_is_sent_once():
    request = WriteStreamRequest.FromString(batch([0, 1], [60, 60], [1, 2]).request(b""))
    assert (list(request.samples.series_numbers), list(request.samples.timestamps_seconds)) == ([0, 1], [60])
    request = WriteStreamRequest.FromString(batch([1, 1], [60, 120], [1, 2]).request(b""))
    assert (list(request.samples.series_numbers), list(request.samples.timestamps_seconds)) == ([1], [60, 120])


def test_a_buffer_takes_what_fits_in():
    buffer = SampleBuffer(2)
    assert buffer.append(np.zeros(3, np.uint32), np.zeros(3, np.int64), np.array([1.0, 2.0, 3.0])) == 2
    assert buffer.is_full
    assert buffer.take(1).sample_count == 2
    assert buffer.count == 0


def test_numbers_are_those_of_the_first_time():
    numbers = SeriesNumbers()
    assert numbers.number(KEYS[1]) == 0
    assert numbers.numbers(KEYS).tolist() == [1, 0, 2]
    assert numbers.number(KEYS[2]) == 2
    assert len(numbers) == 3


def test_each_number_is_defined_once_in_a_call():
    defined = DefinedNumbers()
    assert defined.add(np.array([3, 1, 3], np.uint32)).tolist() == [1, 3]
    assert defined.add(np.array([1, 2, 3], np.uint32)).tolist() == [2]
    assert defined.add(np.array([1000], np.uint32)).tolist() == [1000]
    assert defined.add(np.array([1, 1000, 64], np.uint32)).tolist() == [64]
    assert defined.add(np.empty(0, np.uint32)).tolist() == []


def test_there_are_only_so_many_numbers(monkeypatch):
    monkeypatch.setattr(series_numbers, "NUMBER_LIMIT", 2)
    numbers = SeriesNumbers()
    with pytest.raises(ValueError, match="at most 2 series"):
        numbers.numbers(KEYS)
