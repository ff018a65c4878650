"""Numbers that stand for series, in one connection."""

import numpy as np
import pytest

from ccms_server.errors import InvalidRequestError, RejectReason
from ccms_server.ingest.numbered_series import (
    NUMBER_LIMIT,
    NUMBERS_AHEAD_MAX,
    RETRIED_MAX,
    NumberedSeries,
    rejection_reason,
)
from ccms_server.model import SeriesName


class Series:
    """Numbers series in the order in which they are first looked up; metrics may be unknown."""

    def __init__(self, *metrics):
        self.metrics = set(metrics)
        self.ids = {}

    def look_up(self, name):
        if name.metric not in self.metrics:
            return RejectReason.UNKNOWN_METRIC, f"{name.metric} is unknown"
        return self.ids.setdefault(name, len(self.ids))


@pytest.fixture
def series():
    return Series("load", "power")


@pytest.fixture
def known():
    return NumberedSeries()


def name(host="n1", metric="load"):
    return SeriesName(metric, "c", host)


def numbers(*values):
    return np.array(values, np.uint32)


def test_numbers_of_any_size_stand_for_series(known, series):
    chosen = [5, 0, 1000, NUMBERS_AHEAD_MAX, 63, 64]
    for number in chosen:
        known.define(number, name(str(number)), series.look_up)
    assert known.resolve(numbers(*chosen, 5), series.look_up).tolist() == [0, 1, 2, 3, 4, 5, 0]
    assert known.resolve(numbers(), series.look_up).tolist() == []


def test_two_numbers_may_stand_for_the_same_series(known, series):
    known.define(1, name(), series.look_up)
    known.define(2, name(), series.look_up)
    assert known.resolve(numbers(1, 2), series.look_up).tolist() == [0, 0]


def test_a_number_stands_for_one_series_only(known, series):
    known.define(1, name(), series.look_up)
    with pytest.raises(InvalidRequestError, match="1 stands for a series already"):
        known.define(1, name("n2"), series.look_up)


@pytest.mark.parametrize("number", [NUMBER_LIMIT, 2**32 - 1])
def test_a_number_that_is_too_large_is_refused(known, series, number):
    with pytest.raises(InvalidRequestError, match="is not below"):
        known.define(number, name(), series.look_up)


def test_numbers_that_leave_out_too_many_are_refused(known, series):
    known.define(NUMBERS_AHEAD_MAX, name(), series.look_up)
    with pytest.raises(InvalidRequestError, match="leaves out too many numbers"):
        known.define(NUMBERS_AHEAD_MAX + 3, name("n2"), series.look_up)
    known.define(NUMBERS_AHEAD_MAX + 2, name("n2"), series.look_up)


@pytest.mark.parametrize("number", [1, 64, 2**32 - 1])
def test_a_number_that_was_not_defined_is_refused(known, series, number):
    known.define(0, name(), series.look_up)
    with pytest.raises(InvalidRequestError, match=f"{number:,} stands for no series"):
        known.resolve(numbers(0, number, 0), series.look_up)


def test_a_series_that_cannot_be_is_told_apart(known, series):
    known.define(0, name(), series.look_up)
    known.define(1, name(metric="nope"), series.look_up)
    [good, bad] = known.resolve(numbers(0, 1), series.look_up).tolist()
    assert good == 0
    assert rejection_reason(bad) is RejectReason.UNKNOWN_METRIC
    assert known.rejection(1) == "nope is unknown"


def test_a_series_that_can_be_by_now_is_found(known, series):
    known.define(0, name(metric="new"), series.look_up)
    assert known.resolve(numbers(0), series.look_up)[0] < 0
    series.metrics.add("new")
    assert known.resolve(numbers(0, 0), series.look_up).tolist() == [0, 0]


def test_a_bounded_number_of_rejected_series_is_looked_up_again(known, series):
    for number in range(RETRIED_MAX + 1):
        known.define(number, name(str(number), metric="new"), series.look_up)
    series.metrics.add("new")
    found = known.resolve(np.arange(RETRIED_MAX + 1, dtype=np.uint32), series.look_up)
    assert (found >= 0).sum() == RETRIED_MAX
    assert "was rejected when it was defined" in known.rejection(RETRIED_MAX)
