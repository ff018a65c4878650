"""Answers as sequences and as tables."""

import sys

import numpy as np
import pandas as pd
import pytest

from ccms_client import QueryResult, Series, SeriesError, SeriesUnansweredError

START = 1_700_000_000


def series(metric="load", host="n1", start=START, interval=60, values=(), error=None, **names):
    return Series(
        query_index=0,
        series_index=0,
        metric=metric,
        host=host,
        component=names.get("component", ""),
        subcomponent=names.get("subcomponent", ""),
        start=start,
        end=start + interval * len(values),
        interval=interval,
        statistics=None,
        error=error,
        values=np.array(values, float),
    )


MISSING = SeriesError("NOT_FOUND", "no such host: n9")
RESULT = QueryResult(
    [
        series(values=[1, np.nan, 3]),
        series("power", start=START + 60, interval=120, values=[10, 20], component="socket0"),
        series(host="n9", error=MISSING),
        series(host="n2"),
    ]
)


def test_a_result_is_a_sequence():
    assert (len(RESULT), RESULT[1].metric, RESULT[-1].host) == (4, "power", "n2")
    assert [each.host for each in RESULT[2:]] == ["n9", "n2"]
    assert isinstance(RESULT[2:], QueryResult)
    assert repr(RESULT) == "<QueryResult: 4 series, 5 values, 1 errors>"


def test_series_without_an_answer_are_an_error_if_one_wishes():
    assert [each.host for each in RESULT.failed] == ["n9"]
    with pytest.raises(SeriesUnansweredError, match="1 of 4 series have no answer: no such host: n9") as raised:
        RESULT.raise_for_errors()
    assert raised.value.messages == ["no such host: n9"]
    RESULT[:2].raise_for_errors()


def test_a_wide_frame_has_a_column_for_each_series():
    frame = RESULT.to_pandas()
    assert frame.index.name == "time"
    assert str(frame.index.tz) == "UTC"
    assert [int(time.timestamp()) for time in frame.index] == [START, START + 60, START + 120, START + 180]
    assert frame.columns.names == ["metric", "host", "component", "subcomponent"]
    assert frame.columns.tolist() == [("load", "n1", "", ""), ("power", "n1", "socket0", ""), ("load", "n2", "", "")]
    np.testing.assert_array_equal(
        frame.to_numpy(),
        [[1, np.nan, np.nan], [np.nan, 10, np.nan], [3, np.nan, np.nan], [np.nan, 20, np.nan]],
    )


def test_a_tidy_frame_has_a_row_for_each_sample():
    frame = RESULT.to_pandas(tidy=True)
    assert frame.columns.tolist() == ["time", "metric", "host", "component", "subcomponent", "value"]
    assert frame["value"].tolist() == [1, 3, 10, 20]
    assert frame["metric"].tolist() == ["load", "load", "power", "power"]
    assert frame["component"].tolist() == ["", "", "socket0", "socket0"]
    assert frame["time"].tolist() == [pd.Timestamp(START + after, unit="s", tz="UTC") for after in (0, 120, 60, 180)]


def test_an_arrow_table_holds_each_name_once():
    table = RESULT.to_arrow()
    assert str(table.schema.field("time").type) == "timestamp[s, tz=UTC]"
    assert str(table.schema.field("metric").type) == "dictionary<values=string, indices=int32, ordered=0>"
    assert table.column("value").to_pylist() == [1, 3, 10, 20]
    assert table.column("metric").to_pylist() == ["load", "load", "power", "power"]
    assert table.column("metric").chunk(0).dictionary.to_pylist() == ["load", "power"]


def test_tables_of_nothing_have_columns_all_the_same():
    empty = QueryResult([])
    assert empty.to_pandas().shape == (0, 0)
    assert empty.to_arrow().column_names == ["time", "metric", "host", "component", "subcomponent", "value"]
    assert empty.to_pandas(tidy=True).empty


@pytest.mark.parametrize(
    ("method", "library"),
    [
        (QueryResult.to_pandas, "pandas"),
        (QueryResult.to_arrow, "pyarrow"),
        (lambda result: result.to_pandas(tidy=True), "pyarrow"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_the_extra(monkeypatch, method, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{library}.*cc-metric-store\[dataframe\]") as raised:
        method(RESULT)
    assert raised.value.name == library
