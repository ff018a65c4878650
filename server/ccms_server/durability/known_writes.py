"""Which writes are stored already, of those that can be told from others: so that one that is sent again costs nothing.

Writes of a name are numbered. A stream is a name with many of them, of which the last is remembered; a request that may
be repeated is a name with a single one. What is remembered is logged together with the samples, in one record, and
kept in the state file when the log is cut: a write is known exactly when its samples are stored.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec

from ccms_server.errors import RejectReason
from ccms_server.model import WriteReport

NAMES_MAX: Final = 65_536
"""Names of each kind that are remembered; the one that was written to longest ago makes room."""


class NameKind(IntEnum):
    """What a name stands for."""

    REQUEST = 0
    """A request, number 1."""
    STREAM = 1
    """The batches of a stream, numbered from 1."""


class WriteId(NamedTuple):
    """What a write is told from others by."""

    kind: NameKind
    name: str
    number: int
    """From 1; writes of a name are stored in the order of their numbers, without gaps."""


class KnownWrite(NamedTuple):
    """A write that is stored, and what became of its samples."""

    id: WriteId
    report: WriteReport


_Entry = tuple[int, str, int, int, int, dict[int, int]]
"""A write in MessagePack: kind, name, number, samples stored and ignored, and samples rejected by reason."""

_LENGTH: Final = struct.Struct("<I")
_decoder: Final = msgspec.msgpack.Decoder(list[_Entry])


class KnownWrites:
    """The last write of each name. Belongs to one thread."""

    def __init__(self) -> None:
        self._last: dict[NameKind, OrderedDict[str, KnownWrite]] = {kind: OrderedDict() for kind in NameKind}

    def last(self, kind: NameKind, name: str) -> KnownWrite | None:
        """The last write of a name; None: nothing is known of it."""
        return self._last[kind].get(name)

    def note(self, writes: Iterable[KnownWrite]) -> None:
        """Remembers writes that are stored; one that is older than what is known changes nothing."""
        for write in writes:
            names = self._last[write.id.kind]
            known = names.get(write.id.name)
            if known is None or known.id.number < write.id.number:
                names[write.id.name] = write
            names.move_to_end(write.id.name)
            if len(names) > NAMES_MAX:
                names.popitem(last=False)

    def all(self) -> list[KnownWrite]:
        """All that is known, of each kind in the order of the last write."""
        return [write for names in self._last.values() for write in names.values()]


def encode_writes(writes: Iterable[KnownWrite]) -> bytes:
    """Writes as MessagePack; of rejected samples, only the counts are kept."""
    return msgspec.msgpack.encode(
        [(*write.id, write.report.stored, write.report.ignored, write.report.rejected) for write in writes]
    )


def decode_writes(buffer: bytes | memoryview) -> list[KnownWrite]:
    """What was given to `encode_writes`.

    Raises:
        ValueError: `encode_writes` did not write this.
    """
    try:
        return [
            KnownWrite(
                WriteId(NameKind(kind), name, number),
                WriteReport(stored, ignored, {RejectReason(reason): count for reason, count in rejected.items()}),
            )
            for kind, name, number, stored, ignored, rejected in _decoder.decode(buffer)
        ]
    except msgspec.MsgspecError as error:
        raise ValueError(f"these bytes are no writes: {error}") from error


def encode_identified(writes: Iterable[KnownWrite]) -> tuple[bytes, bytes]:
    """What a record of identified samples begins with."""
    encoded = encode_writes(writes)
    return _LENGTH.pack(len(encoded)), encoded


def decode_identified(payload: memoryview) -> tuple[list[KnownWrite], memoryview]:
    """The writes that a record of identified samples begins with, and the rest of it.

    Raises:
        ValueError: This is no such record.
    """
    if len(payload) < _LENGTH.size:
        raise ValueError("no length of writes")
    end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    if end > len(payload):
        raise ValueError("the writes are cut off")
    return decode_writes(payload[_LENGTH.size : end]), payload[end:]
