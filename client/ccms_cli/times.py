"""Times as people write them on a command line, and as they like to read them."""

import re
import time
from datetime import datetime
from typing import Final

SECONDS_BY_UNIT: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_EPOCH_SECONDS_END: Final = 10**11  # as the server has it: larger numbers are milliseconds, or finer


def parse_duration(text: str) -> float:
    """A length of time: `90s`, `5m`, `2h`, `1d`, `1w`, or several of these (`1h30m`).

    Returns:
        Seconds.

    Raises:
        ValueError: It is none.

    >>> parse_duration("1h30m")
    5400.0
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no length of time: write `90s`, `5m`, `2h` or `1d`")
    return sum(float(number) * SECONDS_BY_UNIT[unit] for number, unit in parts)


def parse_time(text: str, now: float | None = None) -> float:
    """A time: `now`, `-90m` (ago), `+1h` (from now), seconds since the epoch, or ISO 8601.

    Args:
        text: The time. One in ISO 8601 without a zone is in that of this machine.
        now: Seconds since the epoch; None: the clock of this machine.

    Returns:
        Seconds since the epoch.

    Raises:
        ValueError: It is none.

    >>> parse_time("-90m", now=10_000), parse_time("1970-01-01T01:00:00Z")
    (4600.0, 3600.0)
    """
    text = text.strip()
    now = time.time() if now is None else now
    if text == "now":
        return now
    if _DURATION.match(text[1:]) and text[0] in "-+":
        seconds = parse_duration(text[1:])
        return now + (seconds if text[0] == "+" else -seconds)
    if re.fullmatch(r"\d+(\.\d+)?", text) and "-" not in text and not _is_compact_date(text):
        return _epoch_seconds(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"{text!r} is no time: write `now`, `-90m`, `-2d`, seconds since the epoch, or `2026-03-01T12:00`"
        ) from error


def show_time(seconds: float) -> str:
    """A time in the zone of this machine, to the second.

    >>> len(show_time(1700000000))
    19
    """
    try:
        return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):  # no year of a calendar
        return f"{seconds:.0f} s"


def _is_compact_date(text: str) -> bool:
    """Whether digits are a date, `20260301`: as seconds they would be in 1970."""
    return re.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", text) is not None


def _epoch_seconds(text: str) -> float:
    seconds = float(text)
    if seconds >= _EPOCH_SECONDS_END:
        raise ValueError(f"{text} is too large for seconds since the epoch: leave out the digits of milliseconds")
    return seconds
