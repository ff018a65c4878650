"""Records: how numbered payloads stand in a file, so that damage is noticed and costs no more than it must.

Segments of the WAL and the catalogue of series are such files: a header, then records. Little endian.

Header, 32 bytes:

    0   u8[8]  magic of the kind of file
    8   u32    format version
    12  u32    0
    16  u64    number of the first record
    24  u32    0
    28  u32    CRC32C of bytes 0..27

Record, 28 bytes and its payload:

    0   u8[4]  CC 52 45 43
    4   u32    length of the payload
    8   u64    number; increases within a file
    16  u8     kind, which says what the payload is
    17  u8[3]  0
    20  u32    CRC32C of the payload
    24  u32    CRC32C of bytes 0..23
    28         payload

The head has a checksum of its own, so that a damaged payload can be stepped over. Behind a damaged head, the next
record is found by its first bytes.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from crc32c import crc32c

from ccms_server.durability.damage import Damage, DamageLog
from ccms_server.errors import NewerFormatError

HEADER_BYTES: Final = 32
HEAD_BYTES: Final = 28
"""What a record takes besides its payload."""
RECORD_MAGIC: Final = b"\xccREC"

_HEADER: Final = struct.Struct("<8sI4xQ4x")
_HEAD: Final = struct.Struct("<4sIQB3xI")
_CRC: Final = struct.Struct("<I")
_BUFFERS_MAX: Final = 1024
"""Buffers the system takes with one call."""

Buffer = bytes | bytearray | memoryview


class Record(NamedTuple):
    """A record as it was read."""

    number: int
    kind: int
    payload: memoryview
    """A view of the file's bytes."""
    path: Path
    """The file."""
    offset: int
    """Of its first byte in the file."""


def file_header(magic: bytes, version: int, first_number: int) -> bytes:
    """The header of a file whose first record has the given number."""
    header = _HEADER.pack(magic, version, first_number)
    return header + _CRC.pack(crc32c(header))


def check_header(path: Path, magic: bytes, version: int, head: bytes, damage: DamageLog | None) -> None:
    """Checks what a file begins with; a header that was never written whole is no damage.

    Args:
        path: The file.
        magic: Magic of its kind.
        version: The latest version that can be read.
        head: Its first HEADER_BYTES bytes, or all it has.
        damage: Takes a header that is not what was written; None to look at the version only.

    Raises:
        NewerFormatError: The header is whole, and its version later than `version`.
    """
    if len(head) < HEADER_BYTES or not any(head):
        return
    found_magic, found_version, _ = _HEADER.unpack_from(head)
    if found_magic == magic and _CRC.unpack_from(head, _HEADER.size)[0] == crc32c(head[: _HEADER.size]):
        if found_version > version:
            raise NewerFormatError(path, found_version, version)
    elif damage is not None:
        damage.add(Damage(path, 0, HEADER_BYTES, "the header; records are read all the same"))


def frame(number: int, kind: int, parts: Sequence[Buffer]) -> list[Buffer]:
    """A record as buffers to write, one after another.

    Args:
        number: Its number.
        kind: Its kind, 0..255.
        parts: Its payload, in pieces of bytes; less than 4 GiB in all.
    """
    length, crc = 0, 0
    for part in parts:
        length += len(part)
        crc = crc32c(part, crc)
    head = _HEAD.pack(RECORD_MAGIC, length, number, kind, crc)
    return [head + _CRC.pack(crc32c(head)), *parts]


class Scan:
    """Reads the records of a file.

    Bytes between two good records that are no record are damage: one for each such place. What follows the last good
    record is left to the caller, who knows whether a write that was cut short may have left it.

    Attributes:
        end: Where the last good record so far ends, or the header.
    """

    def __init__(self, path: Path, data: bytes, damage: DamageLog, *, after: int = 0) -> None:
        """Prepares to read.

        Args:
            path: The file.
            data: All its bytes.
            damage: Takes what is damaged.
            after: Records with this number or a smaller one do not belong here.
        """
        self._path, self._data, self._damage, self._last = path, data, damage, after
        self.end = min(HEADER_BYTES, len(data))

    def __iter__(self) -> Iterator[Record]:
        """The good records, in order."""
        data, at = memoryview(self._data), self.end
        while at >= 0:
            head = self._head(at)
            if head is None:
                at = self._data.find(RECORD_MAGIC, at + 1)
                continue
            length, number, kind, payload_crc = head
            record = Record(number, kind, data[at + HEAD_BYTES : at + HEAD_BYTES + length], self._path, at)
            at += HEAD_BYTES + length
            if crc32c(record.payload) != payload_crc:
                continue
            if record.offset > self.end:
                what = f"between the records {self._last} and {number}"
                self._damage.add(Damage(self._path, self.end, record.offset - self.end, what))
            self.end, self._last = at, number
            yield record

    def _head(self, at: int) -> tuple[int, int, int, int] | None:
        """Length, number, kind and checksum of the record that begins here; None if there is no whole one."""
        if at + HEAD_BYTES > len(self._data):
            return None
        magic, length, number, kind, payload_crc = _HEAD.unpack_from(self._data, at)
        if magic != RECORD_MAGIC or number <= self._last or at + HEAD_BYTES + length > len(self._data):
            return None
        if _CRC.unpack_from(self._data, at + _HEAD.size)[0] != crc32c(self._data[at : at + _HEAD.size]):
            return None
        return length, number, kind, payload_crc


def write_all(fd: int, buffers: Sequence[Buffer]) -> int:
    """Writes some buffers at a file's position, with one call unless the system stops short.

    Returns:
        Bytes written: all of them.

    Raises:
        OSError: Some may have been written.
    """
    total = sum(map(len, buffers))
    written = os.writev(fd, buffers[:_BUFFERS_MAX])
    if written < total:
        rest = memoryview(b"".join(buffers))
        while written < total:
            written += os.write(fd, rest[written:])
    return total
