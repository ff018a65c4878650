"""The JSON of an answer, put together from chunks that may end anywhere."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccms_gateway import answer_json
from ccms_gateway.answer_json import BLOCK_VALUES, PIECE_VALUES, AnswerEncoder, round_to_thousandths
from ccms_server.model import QueryRequest, SeriesAnswer, SeriesError, SeriesErrorReason, SeriesQuery, Statistics


def request(n_queries):
    return QueryRequest(cluster="c", start=0, end=60, queries=[SeriesQuery(metric="m", host="h")] * n_queries)


def series(query_index, series_index=0, values=(1.0,), host="h"):
    return SeriesAnswer(
        query_index=query_index,
        series_index=series_index,
        metric="m",
        host=host,
        end=60,
        interval=60,
        values=None if values is None else np.array(values, dtype=float),
    )


def encoded(n_queries, *chunks):
    encoder = AnswerEncoder(request(n_queries))
    text = b"".join([encoder.encode(chunk) for chunk in chunks] + [encoder.finish()])
    return json.loads(text, parse_constant=pytest.fail)


def lengths(answer):
    return [len(results) for results in answer["results"]]


@pytest.mark.parametrize(
    ("n_queries", "places", "expected"),
    [
        (0, [], []),
        (3, [], [0, 0, 0]),
        (1, [(0, 0)], [1]),
        (3, [(1, 0)], [0, 1, 0]),
        (4, [(0, 0), (0, 1), (3, 0)], [2, 0, 0, 1]),
        (2, [(0, 0), (1, 0), (1, 1), (1, 2)], [1, 3]),
    ],
)
def test_results_stand_where_their_queries_stood(n_queries, places, expected):
    answers = [series(*place) for place in places]
    assert lengths(encoded(n_queries, answers)) == expected
    one_by_one = encoded(n_queries, *[[answer] for answer in answers])
    assert one_by_one == encoded(n_queries, answers)
    assert "queries" not in one_by_one


def test_queries_that_were_generated_are_named_behind_the_results():
    answer = encoded(1, [series(0), series(1, host="n1")], [series(2, host="n2")])
    assert lengths(answer) == [1, 1, 1]
    assert answer["queries"] == [
        {"metric": "m", "host": "n1", "resolution": 0, "aggreg": False},
        {"metric": "m", "host": "n2", "resolution": 0, "aggreg": False},
    ]


def test_a_series_has_the_fields_of_the_predecessor_in_its_order():
    answer = series(0, values=[1.0, math.nan, 2.0004, 2.0006, 1.7976931348623157e308])
    answer.start, answer.statistics = 30, Statistics(min=1.0, avg=1.23456, max=math.nan, count=3)
    [[result]] = encoded(1, [answer])["results"]
    assert list(result) == ["data", "from", "to", "resolution", "avg", "min", "max"]
    assert result == {
        "data": [1.0, None, 2.0, 2.001, 1.7976931348623157e308],
        "from": 30,
        "to": 60,
        "resolution": 60,
        "avg": 1.235,
        "min": 1.0,
        "max": None,
    }


@pytest.mark.parametrize("values", [None, []])
def test_a_series_without_values_has_no_data(values):
    [[result]] = encoded(1, [series(0, values=values)])["results"]
    assert "data" not in result


def test_statistics_that_were_not_asked_for_are_zero():
    [[result]] = encoded(1, [series(0)])["results"]
    assert (result["avg"], result["min"], result["max"]) == (0.0, 0.0, 0.0)


def test_an_error_is_told_beside_zeros():
    failed = SeriesAnswer(
        query_index=0, series_index=0, metric="m", host="h", error=SeriesError(SeriesErrorReason.NOT_FOUND, "no such")
    )
    [[result]] = encoded(1, [failed])["results"]
    assert result == {"error": "no such", "from": 0, "to": 0, "resolution": 0, "avg": 0.0, "min": 0.0, "max": 0.0}


@given(st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=12), st.integers(1, 50))
def test_values_stay_with_their_series_however_they_are_rounded_together(sizes, block_values):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_json, "BLOCK_VALUES", block_values)
        answers = [
            series(index, values=None if size is None else index + np.arange(size) / 64)
            for index, size in enumerate(sizes)
        ]
        results = encoded(len(sizes), answers)["results"]
    for index, size in enumerate(sizes):
        [result] = results[index]
        assert result.get("data", []) == [round(index + number / 64, 3) for number in range(size or 0)]


def test_a_series_longer_than_a_piece_is_complete():
    values = np.arange(2 * PIECE_VALUES + 5) / 8
    [[result]] = encoded(1, [series(0, values=values)])["results"]
    assert result["data"] == values.tolist()


@given(st.lists(st.floats(), max_size=50))
def test_rounding_is_off_by_no_more_than_half_a_thousandth(values):
    exact = np.array(values, dtype=float)
    before = exact.copy()
    rounded = round_to_thousandths(exact)
    np.testing.assert_array_equal(exact, before)
    assert not np.shares_memory(exact, rounded)
    np.testing.assert_array_equal(np.isnan(rounded), np.isnan(exact))
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(rounded[~finite], exact[~finite])
    for value, result in zip(exact[finite].tolist(), rounded[finite].tolist(), strict=True):
        assert abs(result - value) <= 0.0005 + abs(value) * 1e-15
        assert result == pytest.approx(round(value, 3), abs=0.001 + 1e-9, rel=1e-15)
        assert abs(value) >= 2**43 or repr(abs(result)).partition(".")[2].rstrip("0").partition("e")[0].__len__() <= 3


def test_rounding_goes_on_behind_the_first_block():
    values = np.full(2 * BLOCK_VALUES + 1, 0.12345)
    assert (round_to_thousandths(values) == 0.123).all()
