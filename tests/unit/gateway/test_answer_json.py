"""The JSON of an answer, put together from chunks that may end anywhere."""

import json
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import pytest
from helpers.answers import in_columns
from hypothesis import given, settings
from hypothesis import strategies as st

from ccms_gateway import answer_json
from ccms_gateway.answer_json import BLOCK_VALUES, PIECE_VALUES, AnswerEncoder, round_to_thousandths
from ccms_server.model import QueryRequest, SeriesAnswer, SeriesError, SeriesErrorReason, SeriesQuery, Statistics

BOUNDS_CHECKED = "NUMBA_BOUNDSCHECK"
EXAMPLES = 200 if BOUNDS_CHECKED in os.environ else 1000


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
    return json.loads(text(n_queries, map(in_columns, chunks)), parse_constant=pytest.fail)


def text(n_queries, chunks):
    return b"".join(AnswerEncoder(request(n_queries)).pieces(chunks))


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


@given(st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=12), st.integers(512, 1000))
def test_values_stay_with_their_series_wherever_the_text_is_cut(sizes, text_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_json, "TEXT_BYTES_MAX", text_bytes)
        answers = [
            series(index, values=None if size is None else index + np.arange(size) / 64)
            for index, size in enumerate(sizes)
        ]
        results = encoded(len(sizes), answers)["results"]
    for index, size in enumerate(sizes):
        [result] = results[index]
        assert result.get("data", []) == [round(index + number / 64, 3) for number in range(size or 0)]


def by_orjson(n_queries, answers, paddings):
    """The text of an answer, written by another encoder."""
    results = [[] for _ in range(n_queries)]
    for answer, padding in zip(answers, paddings, strict=True):
        one = {} if answer.error is None else {"error": answer.error.message}
        values = np.concatenate([np.full(padding, np.nan), [] if answer.values is None else answer.values])
        if len(values):
            one["data"] = round_to_thousandths(values).tolist()
        one |= {"from": answer.start, "to": answer.end, "resolution": answer.interval}
        found = answer.statistics or Statistics(0.0, 0.0, 0.0, 0)
        one |= {"avg": round(found.avg, 3), "min": round(found.min, 3), "max": round(found.max, 3)}
        results[answer.query_index].append(one)
    return orjson.dumps({"results": results})


i64 = st.integers(-(1 << 63), (1 << 63) - 1)
decimals = st.builds(lambda digits, exponent: digits / 10**exponent, st.integers(-(10**17), 10**17), st.integers(0, 20))
halves = st.builds(lambda thousandths: (thousandths + 0.5) / 1000, st.integers(-(10**7), 10**7))
numbers = st.one_of(st.floats(), decimals, halves, st.floats(-1000, 1000).map(lambda value: round(value, 3)))
some_series = st.builds(
    SeriesAnswer,
    query_index=st.integers(0, 9),
    series_index=st.just(0),
    metric=st.just("m"),
    host=st.just("h"),
    start=i64,
    end=i64,
    interval=i64,
    values=st.lists(numbers, max_size=30).map(lambda values: np.array(values, float)),
    statistics=st.one_of(st.none(), st.builds(Statistics, numbers, numbers, numbers, st.just(1))),
    error=st.one_of(st.none(), st.none(), st.builds(SeriesError, st.just(SeriesErrorReason.NOT_FOUND), st.text())),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.tuples(some_series, st.integers(0, 40)), max_size=8),
    st.lists(st.integers(0, 8), max_size=3),
    st.integers(512, 1500),
)
def test_the_text_is_byte_by_byte_that_of_another_encoder(found, cuts, text_bytes):
    found.sort(key=lambda pair: pair[0].query_index)
    cuts = [0, *sorted(cuts), len(found)]
    parts = [found[first:last] for first, last in pairwise(cuts)]
    chunks = [in_columns([answer for answer, _ in part], [padding for _, padding in part]) for part in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_json, "TEXT_BYTES_MAX", text_bytes)
        written = text(10, chunks)
    answers, paddings = [answer for answer, _ in found], [padding for _, padding in found]
    assert written == by_orjson(10, answers, paddings)


@pytest.mark.parametrize("exponent", range(-4, 17))
def test_numbers_of_any_size_are_those_of_another_encoder(exponent):
    random = np.random.default_rng(100 + exponent)
    values = random.normal(0, 10.0**exponent, 20_000)
    values[::7], values[::11] = np.rint(values[::7]), np.nan
    assert text(10, [in_columns([series(0, values=values)])]) == by_orjson(10, [series(0, values=values)], [0])


@pytest.mark.skipif(BOUNDS_CHECKED in os.environ, reason="this is the process with bounds checking")
def test_with_bounds_checking(tmp_path):
    """The tests of this file in a process whose kernels are compiled with bounds checking."""
    environment = os.environ | {BOUNDS_CHECKED: "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]

    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[3], capture_output=True, check=False)

    assert done.returncode == 0, done.stdout.decode()


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
