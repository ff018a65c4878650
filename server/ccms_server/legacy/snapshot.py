"""Reads binary snapshots, `<time>.bin`: what release 1.5 of the predecessor keeps beside its WAL.

All numbers are little endian. There is no checksum, and no length of the whole.

    0   u32   magic 0xCC5B0001, bytes 01 00 5B CC
    4   i64   from: the snapshot holds samples from this time on, seconds since the epoch
    12  i64   to: and before this one
    20        the level of the host, which holds all others

    level:
        u32   n_metrics
        of each metric, in no particular order:
            u16   n_bytes of its name, and the name in UTF-8
            i64   frequency, seconds between two values
            i64   start, time of the first value
            u32   n_values
            f32[n_values], NaN where there is no sample
        u32   n_children
        of each child:
            u16   n_bytes of its name, and the name in UTF-8
            level

Values were doubles once, and are rounded to what a float32 can hold.
"""

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np

from ccms_server.legacy.content import LEVELS_MAX, Column, Report, Series, column

MAGIC: Final = 0xCC5B0001
_HEAD: Final = struct.Struct("<Iqq")
_COUNT: Final = struct.Struct("<I")
_NAME_LENGTH: Final = struct.Struct("<H")
_TIMES: Final = struct.Struct("<qqI")
_VALUE_BYTES: Final = 4


class _DamagedError(Exception):
    """From here on, nothing can be told apart any more."""


def read_snapshot(content: bytes, report: Report) -> Iterator[Column]:
    """Reads all columns in front of the first damage.

    Args:
        content: Of the file.
        report: Is told of damage.
    """
    reader = _Reader(content, report)
    try:
        yield from reader.read()
    except _DamagedError as error:
        report(reader.at, len(content) - reader.at, str(error))


class _Reader:
    """Goes through a snapshot; `at` is the first byte that was not understood."""

    def __init__(self, content: bytes, report: Report) -> None:
        self.at = 0
        self._content = content
        self._report = report

    def read(self) -> Iterator[Column]:
        if self._unpack(_HEAD, "the head of a snapshot")[0] != MAGIC:
            self.at = 0
            raise _DamagedError(f"it does not begin with the magic number {MAGIC:#010x} of a snapshot")
        yield from self._level(())
        if self.at < len(self._content):
            raise _DamagedError("there is something behind the last level")

    def _level(self, path: tuple[str, ...]) -> Iterator[Column]:
        if len(path) > LEVELS_MAX:
            raise _DamagedError(f"levels deeper than {LEVELS_MAX}")
        for _ in range(self._unpack(_COUNT, "the number of metrics")[0]):
            begin = self.at
            metric = self._name()
            frequency, start, n_values = self._unpack(_TIMES, f"the times of {metric!r}")
            if n_values * _VALUE_BYTES > len(self._content) - self.at:
                self.at = begin
                raise _DamagedError(f"{n_values:,} values of {metric!r} do not fit into the file")
            values = np.frombuffer(self._content, "<f4", n_values, self.at).astype(np.float64)
            self.at += n_values * _VALUE_BYTES
            try:
                found = column(Series(path, metric, frequency), start, frequency, values)
            except ValueError as error:
                self._report(begin, self.at - begin, f"{metric!r}: {error}")
            else:
                yield found
        for _ in range(self._unpack(_COUNT, "the number of children")[0]):
            yield from self._level((*path, self._name()))

    def _name(self) -> str:
        (n_bytes,) = self._unpack(_NAME_LENGTH, "a name")
        name = self._content[self.at : self.at + n_bytes]
        if len(name) < n_bytes:
            raise _DamagedError("a name is cut off")
        self.at += n_bytes
        return name.decode(errors="surrogateescape")  # what is no text breaks the rule for names

    def _unpack(self, layout: struct.Struct, what: str) -> tuple[int, ...]:
        if len(self._content) - self.at < layout.size:
            raise _DamagedError(f"it ends within {what}")
        fields = layout.unpack_from(self._content, self.at)
        self.at += layout.size
        return fields
