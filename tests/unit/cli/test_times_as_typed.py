"""Times as people write them on a command line."""

import pytest

from ccms_cli.times import parse_duration, parse_time

NOW = 1_700_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", NOW),
        ("-90m", NOW - 5400),
        ("+1h30m", NOW + 5400),
        ("-2d", NOW - 172_800),
        ("1600000000", 1_600_000_000),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T23:13:20+01:00", NOW),
    ],
)
def test_a_time(text, seconds):
    assert parse_time(text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "-90", "-90x", "2023-13-01", "1700000000000", "--1h"])
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match=r"is no time|too large|is no length"):
        parse_time(text, NOW)


@pytest.mark.parametrize("text", ["", "5", "m5", "5mm", "1h 5m", "-1h"])
def test_what_is_no_length_of_time(text):
    with pytest.raises(ValueError, match="is no length of time"):
        parse_duration(text)
