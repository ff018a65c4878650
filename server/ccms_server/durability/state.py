"""The state file: what is known of each series beside its samples, so that a start need not read all blocks.

It is written whenever the WAL is cut, and replaced as a whole. Everything but the floors (`free`) could be found out
again from the blocks, which is what happens when it is damaged.

Layout, little endian:

    0   8 bytes  magic `CCMSSTA` and a line feed
    8   u32      version (2)
    12  u32      n_series
    16  u64      number of the last WAL record it knows of
    24  u32[6]   CRC32C of each column
    48  u32      CRC32C of bytes 0..47
    52           columns, each for all series: i32 phase, i32 deviation, u8 rephased, i64 first_slot, i64 last_slot,
                 i64 floor_slot; see `store.series.SeriesColumns`
        u32      length of the rest
        u32      CRC32C of the rest
                 writes that are known, see `known_writes`

Version 1 ends with the columns.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ccms_server.durability.damage import Damage, DamageLog
from ccms_server.durability.directory import write_durably
from ccms_server.durability.known_writes import KnownWrite, decode_writes, encode_writes
from ccms_server.errors import NewerFormatError

MAGIC: Final = b"CCMSSTA\n"
VERSION: Final = 2
COLUMNS: Final = {
    "phase": "<i4",
    "deviation": "<i4",
    "rephased": "<u1",
    "first_slot": "<i8",
    "last_slot": "<i8",
    "floor_slot": "<i8",
}
HEAD: Final = struct.Struct("<8sIIQ6I")
CRC: Final = struct.Struct("<I")
WRITES_HEAD: Final = struct.Struct("<II")


class SeriesState(NamedTuple):
    """What a state file says."""

    number: int
    """The last WAL record it knows of."""
    n_series: int
    columns: dict[str, NDArray[Any]]
    """By name, arrays of shape (n_series,); those that are damaged are missing."""
    writes: Sequence[KnownWrite] = ()
    """What `KnownWrites` knew."""

    @property
    def is_whole(self) -> bool:
        """Whether no column is missing."""
        return len(self.columns) == len(COLUMNS)


def save_state(path: Path, state: SeriesState) -> None:
    """Replaces the state file.

    Raises:
        OSError: It cannot be written; the old one is still there.
    """
    columns = [state.columns[name].astype(kind).tobytes() for name, kind in COLUMNS.items()]
    head = HEAD.pack(MAGIC, VERSION, state.n_series, state.number, *(crc32c(column) for column in columns))
    writes = encode_writes(state.writes)
    write_durably(path, [head, CRC.pack(crc32c(head)), *columns, WRITES_HEAD.pack(len(writes), crc32c(writes)), writes])


def load_state(path: Path, damage: DamageLog) -> SeriesState | None:
    """Reads the state file; None when there is none, or nothing in it can be used.

    Raises:
        NewerFormatError: A later release wrote it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    first = HEAD.size + CRC.size
    if len(content) < first or CRC.unpack_from(content, HEAD.size)[0] != crc32c(content[: HEAD.size]):
        damage.add(Damage(path, 0, len(content), "what is known of all series: it is found out from the blocks again"))
        return None
    _, version, n_series, number, *sums = HEAD.unpack_from(content)
    if version > VERSION:
        raise NewerFormatError(path, version, VERSION)
    state = SeriesState(number, n_series, {})
    for (name, kind), expected in zip(COLUMNS.items(), sums, strict=True):
        length = n_series * np.dtype(kind).itemsize
        column = content[first : first + length]
        if len(column) == length and crc32c(column) == expected:
            state.columns[name] = np.frombuffer(column, kind)
        else:
            lost = "what was freed" if name == "floor_slot" else "it is found out from the blocks again"
            damage.add(Damage(path, first, len(column), f"{name} of all series: {lost}"))
        first += length
    return state if version == 1 else state._replace(writes=_load_writes(path, content, first, damage))


def _load_writes(path: Path, content: bytes, first: int, damage: DamageLog) -> list[KnownWrite]:
    """The writes at the end of a state file; none if they are damaged."""
    begin = first + WRITES_HEAD.size
    if begin <= len(content):
        length, expected = WRITES_HEAD.unpack_from(content, first)
        writes = content[begin : begin + length]
        if len(writes) == length and crc32c(writes) == expected:
            return decode_writes(writes)
    first = min(first, len(content))
    damage.add(Damage(path, first, len(content) - first, "known writes: one that is sent again is stored again"))
    return []
