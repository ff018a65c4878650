import pytest

from ccms_server.duration import duration_text, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("0s", 0),
        ("48h", 172_800),
        ("1h30m", 5400),
        ("30m1h", 5400),
        ("1.5h", 5400),
        ("1.h", 3600),
        (".5m", 30),
        ("1m1s1000ms", 62),
        ("+90s", 90),
        ("-1h", -3600),
        ("2540400h10m10.000000000s", 9_145_440_610),
    ],
)
def test_reads_go_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 1), ("1ns", 1), ("1us", 1), ("1\u00b5s", 1), ("1\u03bcs", 1), ("1.0001s", 2), ("-1ms", -1)],
)
def test_rounds_away_from_zero(text, seconds):
    """A retention of half a second must not become 0, which keeps samples for ever."""
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "1", "h", "1 h", "1h ", "1d", "1H", "--1h", "1h-30m", ".s", "1..5h", "1,5h", "\u0661h", "1e3s", "inf"],
)
def test_refuses_everything_else(text):
    with pytest.raises(ValueError, match=r"must be a duration such as `48h`"):
        parse_seconds(text)


def test_refuses_what_go_cannot_count_in_nanoseconds():
    assert parse_seconds("2562047h") == 9_223_369_200
    with pytest.raises(ValueError, match=r"must be shorter than 292 years"):
        parse_seconds("2562048h")


def test_refuses_long_text_before_it_reads_its_numbers():
    with pytest.raises(ValueError, match=r"must be a duration"):
        parse_seconds("9" * 100_000 + "h")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (1, "1s"),
        (90, "1m30s"),
        (3600, "1h"),
        (3601, "1h1s"),
        (172_800, "48h"),
        (9_145_440_610, "2540400h10m10s"),
    ],
)
def test_writes_what_it_reads(seconds, text):
    assert duration_text(seconds) == text
    assert parse_seconds(text) == seconds
