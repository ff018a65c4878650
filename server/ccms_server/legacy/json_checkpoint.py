"""Reads JSON checkpoints, `<time>.json`: of the October 2024 release of the predecessor, of 1.5, and our own.

    {"from": seconds, "to": seconds,
     "metrics": {name: {"frequency": seconds, "start": seconds, "data": [number or null, ...]}},
     "children": {name: {"from", "to", "metrics", "children"}}}

The outermost object is the host's level; members may come in any order, and those with other names do not matter.
`data` holds a value for every `frequency` seconds from `start` on, null where there is no sample. The predecessor
prints values with one decimal.

It writes these files in place. One that it was killed over ends somewhere in its middle; what is before that is good.
"""

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ccms_server.legacy.content import LEVELS_MAX, Column, Report, Series, column


class _Metric(msgspec.Struct):
    """Values of one series."""

    frequency: int
    start: int
    data: msgspec.Raw = msgspec.Raw(b"[]")


class _Level(msgspec.Struct):
    """A level, with the levels below it."""

    metrics: dict[str, _Metric] | None = None
    children: dict[str, "_Level"] | None = None


_levels: Final = msgspec.json.Decoder(_Level)
_values: Final = msgspec.json.Decoder(list[float | None] | None)
_metrics: Final = msgspec.json.Decoder(_Metric)


def read_json(content: bytes, report: Report) -> Iterator[Column]:
    """Reads all columns that are whole.

    Args:
        content: Of the file.
        report: Is told of damage.
    """
    try:
        host = _levels.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        yield from _Salvage(content, report).read()
    else:
        yield from _columns(host, (), content, report)


def _columns(level: _Level, path: tuple[str, ...], content: bytes, report: Report) -> Iterator[Column]:
    """The columns of a level that could be decoded, and of those below it."""
    for name, metric in (level.metrics or {}).items():
        try:
            found = _column(name, metric, path)
        except (msgspec.MsgspecError, ValueError) as error:
            data = bytes(metric.data)
            report(max(content.find(data), 0), len(data), f"{name!r}: {error}")
        else:
            yield found
    for name, child in (level.children or {}).items():
        if len(path) == LEVELS_MAX:
            report(0, len(content), f"levels deeper than {LEVELS_MAX}")
            return
        yield from _columns(child, (*path, name), content, report)


def _column(name: str, metric: _Metric, path: tuple[str, ...]) -> Column:
    """Makes a column; a ValueError or MsgspecError says why there is none."""
    values: NDArray[np.float64] = np.array(_values.decode(metric.data) or [], np.float64)  # None becomes NaN
    return column(Series(path, name, metric.frequency), metric.start, metric.frequency, values)


class _BrokenError(Exception):
    """The rest of the text cannot be told apart."""


class _Salvage:
    """Goes through a damaged file token by token, as far as it can be understood.

    What is damaged within a metric costs that metric; what is damaged elsewhere costs all that follows.
    """

    _space: Final = re.compile(r"[ \t\r\n]*")

    def __init__(self, content: bytes, report: Report) -> None:
        self._text = content.decode(errors="surrogateescape")  # what is no text breaks the rule for names
        self._at = 0
        self._report = report
        self._value_at = JSONDecoder().raw_decode

    def read(self) -> Iterator[Column]:
        try:
            yield from self._level(())
            self._skip_space()
            if self._at < len(self._text):
                raise _BrokenError("there is something behind the last level")
        except _BrokenError as error:
            self._lose(self._at, len(self._text), str(error))

    def _level(self, path: tuple[str, ...]) -> Iterator[Column]:
        if len(path) > LEVELS_MAX:
            raise _BrokenError(f"levels deeper than {LEVELS_MAX}")
        for key in self._members():
            if key == "metrics" and not self._is_null():
                for metric in self._members():
                    yield from self._metric(metric, path)
            elif key == "children" and not self._is_null():
                for child in self._members():
                    yield from self._level((*path, child))
            else:
                self._value()

    def _metric(self, name: str, path: tuple[str, ...]) -> Iterator[Column]:
        self._skip_space()
        begin = self._at
        try:
            end = begin
            try:
                self._value()
                end = self._at
            except _BrokenError:  # a metric has no objects within
                end = self._text.find("}", begin) + 1
                if not end:
                    self._at = begin
                    raise
                self._at = end
            found = _column(name, _metrics.decode(self._text[begin:end].encode(errors="surrogateescape")), path)
        except (msgspec.MsgspecError, ValueError) as error:
            self._lose(begin, end, f"{name!r}: {error}")
        else:
            yield found

    def _members(self) -> Iterator[str]:
        """Keys of the object that begins here; whoever takes one moves on to the end of its value."""
        self._expect("{")
        if self._next() == "}":
            self._at += 1
            return
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise _BrokenError("a key is no text")
            self._expect(":")
            yield key
            if self._next() == "}":
                self._at += 1
                return
            self._expect(",")

    def _value(self) -> Any:  # noqa: ANN401  JSON holds anything
        self._skip_space()
        try:
            value, self._at = self._value_at(self._text, self._at)
        except (JSONDecodeError, RecursionError, ValueError) as error:
            reason = error.msg if isinstance(error, JSONDecodeError) else str(error)
            raise _BrokenError(f"it is no JSON: {reason}") from error
        return value

    def _is_null(self) -> bool:
        self._skip_space()
        return self._text.startswith("null", self._at)

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise _BrokenError(f"it is no JSON: expecting {token!r}")
        self._at += 1

    def _next(self) -> str:
        self._skip_space()
        return self._text[self._at : self._at + 1]

    def _skip_space(self) -> None:
        match = self._space.match(self._text, self._at)
        assert match is not None, "it matches nothing at least"
        self._at = match.end()

    def _lose(self, begin: int, end: int, what: str) -> None:
        before, lost = self._text[:begin], self._text[begin:end]
        self._report(len(before.encode(errors="surrogateescape")), len(lost.encode(errors="surrogateescape")), what)
