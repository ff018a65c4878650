"""Times in every form become whole seconds."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from ccms_client.times import seconds_array, whole_seconds

CET = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (1_700_000_000, 1_700_000_000),
        (1_700_000_000.0, 1_700_000_000),
        (1_700_000_000.25, 1_700_000_001),
        (np.int64(1_700_000_000), 1_700_000_000),
        (datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), 1_700_000_000),
        (datetime(2023, 11, 14, 23, 13, 20, tzinfo=CET), 1_700_000_000),
        (datetime(2023, 11, 14, 22, 13, 20, 1, tzinfo=UTC), 1_700_000_001),
        (pd.Timestamp("2023-11-14T22:13:20Z"), 1_700_000_000),
    ],
)
def test_ends_of_ranges(time, seconds):
    assert whole_seconds(time) == seconds


@pytest.mark.parametrize(
    ("time", "message"),
    [
        (datetime(2023, 11, 14), "no time zone"),
        (float("nan"), "not a time"),
        (float("inf"), "not a time"),
    ],
)
def test_what_is_no_time_is_refused(time, message):
    with pytest.raises(ValueError, match=message):
        whole_seconds(time)


@pytest.mark.parametrize(
    "times",
    [
        [1_700_000_000, 1_700_000_060],
        (1_700_000_000.9, 1_700_000_060.0),
        np.array([1_700_000_000, 1_700_000_060], np.uint32),
        np.array(["2023-11-14T22:13:20.9", "2023-11-14T22:14:20"], "datetime64[ns]"),
        pd.DatetimeIndex(["2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z"]),
        [datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), datetime(2023, 11, 14, 23, 14, 20, tzinfo=CET)],
    ],
)
def test_times_of_samples(times):
    seconds = seconds_array(times)
    assert (seconds.dtype, seconds.tolist()) == (np.int64, [1_700_000_000, 1_700_000_060])


def test_a_single_time_and_none_at_all():
    assert seconds_array(datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)).tolist() == 1_700_000_000
    assert seconds_array([]).tolist() == []


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([datetime(2023, 11, 14)], "no time zone"),
        ([1.0, float("nan")], "NaN or infinite"),
        (["now"], "seconds since the epoch"),
        ([True], "seconds since the epoch"),
        (np.array(["NaT"], "datetime64[s]"), "NaT"),
    ],
)
def test_times_of_samples_that_are_none_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        seconds_array(times)
