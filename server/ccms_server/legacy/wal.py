"""Reads the WAL, `current.wal`, that release 1.5 of the predecessor keeps for every host.

All numbers are little endian.

    0   u32   magic 0xCC1DA701, bytes 01 A7 1D CC
    4         records, one sample each, in order of arrival

    record:
        u32   magic 0xCC1DA7A1, bytes A1 A7 1D CC
        u32   n_bytes of the payload
        payload:
            i64   time of the sample, seconds since the epoch
            u16   n_bytes of the metric's name, and the name in UTF-8
            u8    number of levels below the host
            of each level: u8 n_bytes of its name, and the name in UTF-8
            f32   value
        u32   CRC-32 (that of zlib) of the payload

There is one such file for each host. It is never renamed: after a snapshot it is deleted, and the next sample begins a
new one. When the snapshot is written but the file not deleted yet, its samples are in both. A process that is killed
leaves a part of its last record; the next one goes on behind it, so records may follow what is torn. They are found by
their magic.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final
from zlib import crc32

import numpy as np

from ccms_server.legacy.content import BLOCK_SAMPLES_MAX, Block, Report, Series

FILE_MAGIC: Final = b"\x01\xa7\x1d\xcc"
RECORD_MAGIC: Final = b"\xa1\xa7\x1d\xcc"
PAYLOAD_BYTES_MAX: Final = 1 << 20
"""What the predecessor takes for possible, too."""
READ_BYTES: Final = 4 << 20
"""Bytes of a file that are in memory at once, but for a record or two."""

_RECORD_HEAD: Final = struct.Struct("<4sI")
_CRC: Final = struct.Struct("<I")
_TIME_BYTES: Final = 8
_VALUE_BYTES: Final = 4
_FRAME_BYTES: Final = _RECORD_HEAD.size + _CRC.size
_SERIES_BYTES_MIN: Final = 3


class WalReader:
    """Reads one WAL, piece by piece.

    Attributes:
        torn_bytes: Of a record at its very end that was never finished, as killed processes leave it.
    """

    def __init__(self, file: BinaryIO, report: Report) -> None:
        """Makes a reader.

        Args:
            file: The file, at its beginning.
            report: Is told of damage.
        """
        self.torn_bytes = 0
        self._file = file
        self._report = report
        self._data = b""
        self._offset = 0  # of `_data` in the file
        self._at = 0  # in `_data`: all before it is done with
        self._is_whole = False  # nothing comes behind `_data`
        self._lost_from = -1  # offset in the file where a damaged place begins
        self._is_torn = False  # it begins with a record that may just not be finished
        self._ids: dict[bytes, int] = {}
        self._series: list[Series] = []

    def read(self) -> Iterator[Block]:
        """Reads all records that are whole.

        Raises:
            OSError: The file cannot be read further.
        """
        self._fill(len(FILE_MAGIC))
        if self._data[: len(FILE_MAGIC)] == FILE_MAGIC:
            self._at = len(FILE_MAGIC)
        elif FILE_MAGIC.startswith(self._data):
            self.torn_bytes = len(self._data)
            return
        else:
            self._lost_from = 0
        while True:
            yield from self._records()
            if self._is_whole:
                break
            self._fill(READ_BYTES)
        self._end_loss(self._offset + len(self._data))

    def _fill(self, n_bytes: int) -> None:
        """Reads on, and lets go of what is done with."""
        more = self._file.read(n_bytes)
        self._is_whole = len(more) < n_bytes
        self._data = self._data[self._at :] + more
        self._offset += self._at
        self._at = 0

    def _records(self) -> Iterator[Block]:
        """Takes the records that are whole in what was read."""
        data, ids = self._data, self._ids
        numbers: list[int] = []
        begins: list[int] = []
        ends: list[int] = []
        at, n_bytes = self._at, len(data)
        while at + _FRAME_BYTES <= n_bytes:
            magic, length = _RECORD_HEAD.unpack_from(data, at)
            begin = at + _RECORD_HEAD.size
            end = begin + length
            may_be = magic == RECORD_MAGIC and length <= PAYLOAD_BYTES_MAX
            is_here = end + _CRC.size <= n_bytes
            if may_be and not is_here and not self._is_whole:
                break
            if not (may_be and is_here and crc32(data[begin:end]) == _CRC.unpack_from(data, end)[0]):
                at = self._next_record(at)
                continue
            key = data[begin + _TIME_BYTES : max(end - _VALUE_BYTES, begin)]
            number = ids.get(key)
            if number is None:
                number = self._number_of(key, at, end + _CRC.size)
            if number >= 0:
                numbers.append(number)
                begins.append(begin)
                ends.append(end)
            if self._lost_from >= 0:
                self._end_loss(self._offset + at)
            at = end + _CRC.size
            if len(numbers) >= BLOCK_SAMPLES_MAX:
                self._at = at
                yield self._block(numbers, begins, ends)
                numbers, begins, ends = [], [], []
        self._at = at
        if self._is_whole and at < n_bytes and self._lost_from < 0:
            self._lose(at)
        if numbers:
            yield self._block(numbers, begins, ends)

    def _next_record(self, at: int) -> int:
        """Gives up what begins here; returns where the next record may begin."""
        if self._lost_from < 0:
            self._lose(at)
        found = self._data.find(RECORD_MAGIC, at + 1)
        if found >= 0:
            return found
        # Its magic may begin in the last bytes.
        return max(len(self._data) - (0 if self._is_whole else len(RECORD_MAGIC) - 1), at + 1)

    def _lose(self, at: int) -> None:
        """A place that is no record begins here."""
        self._lost_from = self._offset + at
        head = self._data[at : at + _RECORD_HEAD.size]
        self._is_torn = RECORD_MAGIC.startswith(head[: len(RECORD_MAGIC)])
        if self._is_torn and len(head) == _RECORD_HEAD.size:
            length = _RECORD_HEAD.unpack(head)[1]
            self._is_torn = at + _FRAME_BYTES + length > len(self._data) and length <= PAYLOAD_BYTES_MAX

    def _end_loss(self, end: int) -> None:
        """A place that is no record ends here."""
        if self._lost_from < 0:
            return
        if self._is_torn and self._is_whole and end == self._offset + len(self._data):
            self.torn_bytes = end - self._lost_from
        else:
            self._report(self._lost_from, end - self._lost_from, "records of a WAL")
        self._lost_from = -1

    def _number_of(self, key: bytes, at: int, end: int) -> int:
        """Number of the series that part of a payload names, which is a new one; -1: it names none."""
        try:
            series = _series_of(key)
        except ValueError as error:
            self._report(self._offset + at, end - at, str(error))
            self._ids[key] = -1
            return -1
        number = self._ids[key] = len(self._series)
        self._series.append(series)
        return number

    def _block(self, numbers: list[int], begins: list[int], ends: list[int]) -> Block:
        """Makes a block of the payloads between some places."""
        data = np.frombuffer(self._data, np.uint8)
        times = data[np.array(begins)[:, None] + np.arange(_TIME_BYTES)].view("<i8")
        values = data[np.array(ends)[:, None] - _VALUE_BYTES + np.arange(_VALUE_BYTES)].view("<f4")
        return Block(
            self._series,
            np.array(numbers, np.intp),
            times.ravel().astype(np.int64),
            values.ravel().astype(np.float64),
        )


def _series_of(key: bytes) -> Series:
    """The series that the middle of a payload names.

    Raises:
        ValueError: Its lengths contradict each other.
    """
    if len(key) < _SERIES_BYTES_MIN:
        raise ValueError("a record that is too short")
    at = 2 + int.from_bytes(key[:2], "little")
    metric, n_levels = key[2:at], key[at : at + 1]
    if not n_levels:
        raise ValueError("a record whose metric is cut off")
    path: list[str] = []
    at += 1
    for _ in range(n_levels[0]):
        n_bytes = key[at] if at < len(key) else 0
        path.append(key[at + 1 : at + 1 + n_bytes].decode(errors="surrogateescape"))
        at += 1 + n_bytes
    if at != len(key):
        raise ValueError("a record whose levels are cut off, or followed by something")
    return Series(tuple(path), metric.decode(errors="surrogateescape"), None)
