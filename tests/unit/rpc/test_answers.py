"""The messages of an answer: what protobuf reads out of them, how many there are, and how large."""

import numpy as np
import pytest
from helpers.answers import in_columns
from hypothesis import given
from hypothesis import strategies as st

from ccms.v1.metric_store_service_pb2 import QueryResponse
from ccms_server.model import SeriesAnswer, SeriesError, SeriesErrorReason, Statistics
from ccms_server.rpc.answers import BUNDLE_BYTES_MAX, PART_VALUES_MAX, answer_messages

values_of_series = st.lists(st.floats(), max_size=40)
int64 = st.integers(-(2**63), 2**63 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
errors = st.builds(SeriesError, st.sampled_from(SeriesErrorReason), names)
answered = st.fixed_dictionaries(
    {
        "start": int64,
        "end": int64,
        "interval": int64,
        "values": values_of_series.map(np.array),
        "statistics": st.builds(Statistics, st.floats(), st.floats(), st.floats(), st.integers(0, 2**40)),
    }
)
refused = st.fixed_dictionaries({"error": errors})
indexes = st.integers(0, 2**32 - 1)
series = st.builds(
    lambda parts, numbers, texts: SeriesAnswer(
        query_index=numbers[0],
        series_index=numbers[1],
        metric=texts[0],
        host=texts[1],
        component=texts[2],
        subcomponent=texts[3],
        **parts,
    ),
    answered | refused,
    st.tuples(indexes, indexes),
    st.tuples(names, names, names, names),
)


def answer(number, values, **settings):
    values = None if values is None else np.asarray(values, np.float64)
    return SeriesAnswer(query_index=number, series_index=1, metric="m", host="h", values=values, **settings)


def messages(chunks, *, bundled):
    columns = [in_columns(chunk) for chunk in chunks]
    return [b"".join(pieces) for each in answer_messages(columns, bundled=bundled) for pieces in each]


def parts(chunks, *, bundled):
    """The parts in all messages, in order."""
    found = [QueryResponse.FromString(message) for message in messages(chunks, bundled=bundled)]
    return [part for message in found for part in (message, *message.following)]


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    """Compiling is no part of what Hypothesis times."""
    messages([[answer(0, [1.0])]], bundled=True)


@pytest.mark.parametrize("bundled", [False, True])
@given(st.lists(st.lists(values_of_series, max_size=5), max_size=3))
def test_protobuf_finds_the_series_in_order(bundled, chunks):
    numbers = iter(range(100))
    answers = [[answer(next(numbers), values) for values in chunk] for chunk in chunks]
    found = parts(answers, bundled=bundled)
    assert [part.query_index for part in found] == [each.query_index for chunk in answers for each in chunk]
    for part, values in zip(found, [values for chunk in chunks for values in chunk], strict=True):
        assert part.header.value_count == len(values)
        np.testing.assert_array_equal(np.array(part.values), values)


@given(st.lists(series, max_size=5))
def test_bytes_are_those_of_protobuf(answers):
    found = messages([answers], bundled=False)
    assert found == [QueryResponse.FromString(message).SerializeToString() for message in found]
    for message, each in zip(map(QueryResponse.FromString, found), answers, strict=True):
        header = message.header
        assert (message.query_index, message.series_index) == (each.query_index, each.series_index)
        assert (header.metric, header.host, header.component, header.subcomponent) == (
            (each.metric, each.host, each.component, each.subcomponent)
        )
        assert (header.start_seconds, header.end_seconds, header.interval_seconds) == (
            (each.start, each.end, each.interval)
        )
        assert header.HasField("error") == (each.error is not None)
        if each.error is not None:
            assert (header.error.reason, header.error.message) == (each.error.reason, each.error.message)
            assert not header.HasField("statistics")
        else:
            found_statistics, expected = header.statistics, each.statistics
            np.testing.assert_array_equal(
                [found_statistics.min, found_statistics.avg, found_statistics.max, found_statistics.count],
                [expected.min, expected.avg, expected.max, expected.count],
            )


@given(st.lists(series, max_size=5))
def test_bundles_are_those_of_protobuf(answers):
    for message in messages([answers], bundled=True):
        assert QueryResponse.FromString(message).SerializeToString() == message


def test_header_statistics_and_errors_are_in_the_first_part():
    found = answer(3, None, component="c", start=60, end=180, interval=60, statistics=Statistics(1, 2, 3, 4))
    [part] = parts([[found]], bundled=False)
    header = part.header
    assert (part.query_index, part.series_index, header.metric, header.host, header.component) == (3, 1, "m", "h", "c")
    assert (header.start_seconds, header.end_seconds, header.interval_seconds, header.value_count) == (60, 180, 60, 0)
    assert (header.statistics.min, header.statistics.avg, header.statistics.max, header.statistics.count) == (
        1,
        2,
        3,
        4,
    )
    assert not header.HasField("error")
    [part] = parts([[answer(0, None, statistics=Statistics(0, 0, 0, 0))]], bundled=False)
    assert part.header.HasField("statistics")
    error = SeriesError(SeriesErrorReason.NOT_FOUND, "there is none")
    [part] = parts([[answer(0, None, error=error)]], bundled=True)
    assert (part.header.error.reason, part.header.error.message) == (SeriesErrorReason.NOT_FOUND, "there is none")


@pytest.mark.parametrize("bundled", [False, True])
def test_a_long_series_is_cut_into_parts(bundled):
    values = np.arange(2.0 * PART_VALUES_MAX + 1)
    found = parts([[answer(0, values)]], bundled=bundled)
    assert [(part.offset, len(part.values)) for part in found] == [
        (0, PART_VALUES_MAX),
        (PART_VALUES_MAX, PART_VALUES_MAX),
        (2 * PART_VALUES_MAX, 1),
    ]
    assert [part.HasField("header") for part in found] == [True, False, False]
    np.testing.assert_array_equal(np.concatenate([part.values for part in found]), values)


def test_short_series_share_a_message_and_no_message_is_too_large():
    found = messages([[answer(number, np.ones(3000)) for number in range(200)]], bundled=True)
    per_message = BUNDLE_BYTES_MAX // 24_100
    assert len(found) == -(-200 // per_message)
    assert max(map(len, found)) <= BUNDLE_BYTES_MAX


def test_each_part_is_a_message_of_its_own_for_those_who_do_not_ask_for_bundles():
    found = messages([[answer(number, [1.0]) for number in range(20)]], bundled=False)
    assert [len(QueryResponse.FromString(message).following) for message in found] == [0] * 20
