"""Spans of time as the configuration writes them: Go's duration syntax, `48h`, `1h30m`, `500ms`."""

import math
import re
from fractions import Fraction
from typing import Final

DURATION_FORM: Final = "a duration such as `48h`, `1h30m`, `1.5h`, `500ms` or `0`"
"""What `parse_seconds` accepts, for error messages."""

_SECONDS_PER_UNIT: Final = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "\u00b5s": Fraction(1, 10**6),  # micro sign
    "\u03bcs": Fraction(1, 10**6),  # Greek letter mu
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_PART: Final = rf"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)({'|'.join(_SECONDS_PER_UNIT)})"
_DURATION: Final = re.compile(rf"[-+]?(?:0|(?:{_PART})+)")
_TEXT_CHARACTERS_MAX: Final = 64
_SECONDS_MAX: Final = 2**63 // 10**9
"""Go counts nanoseconds in 64 bits; a longer span is no duration there either."""


def parse_seconds(text: str) -> int:
    """Reads a duration.

    Args:
        text: Numbers with units, in any order, with an optional sign in front; or a bare `0`.

    Returns:
        Whole seconds, rounded away from zero: a short span must not turn into 0, which often means "never".

    Raises:
        ValueError: The text is no duration; the message is the rule it breaks.
    """
    span = parse_span(text)
    return math.ceil(span) if span > 0 else math.floor(span)


def parse_span(text: str) -> Fraction:
    """Reads a duration as `parse_seconds` does, in seconds that are not rounded.

    Raises:
        ValueError: The text is no duration; the message is the rule it breaks.
    """
    if len(text) > _TEXT_CHARACTERS_MAX or not _DURATION.fullmatch(text):
        raise ValueError(f"must be {DURATION_FORM}")
    span = sum((Fraction(number) * _SECONDS_PER_UNIT[unit] for number, unit in re.findall(_PART, text)), Fraction())
    if span > _SECONDS_MAX:
        raise ValueError("must be shorter than 292 years")
    return -span if text.startswith("-") else span


def duration_text(seconds: int) -> str:
    """Writes a duration, as `parse_seconds` reads it: `48h`, `1h30m`, `0`.

    Args:
        seconds: Not negative.
    """
    minutes, rest = divmod(seconds, 60)
    parts = zip((*divmod(minutes, 60), rest), "hms", strict=True)
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0"
