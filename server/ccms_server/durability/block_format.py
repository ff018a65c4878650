"""Block files: the sealed tiles of all metrics of one interval and window, and how they are written.

Layout, little endian; CRCs are CRC32C:

    0   header, 64 bytes
    64  frames, one behind the other
    ..  index: 32 bytes for each tile, by band; then 32 bytes for each aggregate tile, by metric
    ..  footer: the header again

    header   0   char[8]  magic "ccmsblk0"
             8   u32  version (1)
             12  u32  interval, seconds
             16  i64  number of the window
             24  u64  highest WAL number that a tile covers
             32  u32  number of tiles
             36  u32  number of aggregate tiles
             40  u64  samples of all tiles
             48  u64  offset of the index
             56  u32  CRC of the index
             60  u32  CRC of bytes 0..59

    frame    0   char[4]  "TILE" or "AGGR"
             4   u32  key: the band; of an aggregate tile, the metric
             8   u32  length of the payload
             12  u32  items: samples of the tile; of an aggregate tile, its rows
             16  u64  WAL number: the tile holds what was logged in records up to it; of an aggregate tile, 0
             24  u32  CRC of the payload
             28  u32  CRC of bytes 0..27
             32       payload: a sealed tile;
                      of an aggregate tile: u32[rows] number of each row's host, or 2**32 - 1 if the row is not used,
                      u64[rows] fingerprint of the members of each, and a sealed tile of as many rows

    index    0   u32  key     4   u32  length     8   u32  items     12  u32  CRC of the payload
             16  u64  WAL number                  24  u64  offset of the payload

Which series lie in which rows of a band, the catalogue tells (`catalogue`). Window w has the slots from 256 w on, in
the columns of its tiles; slot k of a series is centred on `phase + k * interval` seconds since the epoch, with the
phase that its tile gives.

Every version begins with magic and version, and has 64 bytes of header, the last four their CRC: so a later version is
told from damage. All but the payloads is there twice: header and footer are alike, and the heads of the frames tell
what the index tells. One damaged place costs the tile it lies in, or nothing; a file that was cut still has the tiles
that lie in it as a whole.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from crc32c import crc32c

from ccms_server.durability.directory import replacing
from ccms_server.errors import NewerFormatError

MAGIC: Final = b"ccmsblk0"
VERSION: Final = 1
SUMMARY: Final = struct.Struct("<8sIIqQIIQQI")
SUMMARY_BYTES: Final = SUMMARY.size + 4

TILE: Final = b"TILE"
AGGREGATE: Final = b"AGGR"
FRAME: Final = struct.Struct("<4sIIIQI")
FRAME_BYTES: Final = FRAME.size + 4
CRC: Final = struct.Struct("<I")

INDEX_ROW: Final = np.dtype(
    [("key", "<u4"), ("length", "<u4"), ("items", "<u4"), ("crc", "<u4"), ("number", "<u8"), ("offset", "<u8")]
)

NO_HOST: Final = 0xFFFF_FFFF
"""Stands for the host of a row that is not used."""
MEMBERS_BYTES: Final = 8
"""Length of a fingerprint."""


@dataclass(frozen=True, slots=True)
class TileEntry:
    """A tile in a block."""

    band: int
    number: int
    """Number of the last WAL record that is in it."""
    payload: bytes | memoryview
    """Of the `SealedTile`."""
    n_samples: int


@dataclass(frozen=True, slots=True)
class AggregateEntry:
    """A tile in a block whose rows are the aggregates of hosts."""

    metric: int
    rows: Sequence[tuple[int, bytes]]
    """Of each row: number of the host in the metric's table or NO_HOST, fingerprint of the members (8 bytes)."""
    payload: bytes | memoryview
    """Of the `SealedTile`."""


class Summary(NamedTuple):
    """What header and footer tell."""

    interval: int
    window: int
    number: int
    n_tiles: int
    n_aggregates: int
    n_samples: int
    index_offset: int
    index_crc: int

    def pack(self) -> bytes:
        """The bytes of a header or footer."""
        summary = SUMMARY.pack(MAGIC, VERSION, *self)
        return summary + CRC.pack(crc32c(summary))

    @property
    def file_bytes(self) -> int:
        """How long the file is."""
        return self.index_offset + INDEX_ROW.itemsize * (self.n_tiles + self.n_aggregates) + SUMMARY_BYTES


class IndexRow(NamedTuple):
    """A row of the index."""

    key: int
    length: int
    items: int
    crc: int
    number: int
    offset: int


def read_summary(path: Path, data: bytes) -> Summary | None:
    """Reads a header or footer.

    Args:
        path: The file, for the error.
        data: Its bytes.

    Returns:
        What it tells, or None if it is damaged.

    Raises:
        NewerFormatError: A later release wrote it.
    """
    if len(data) < SUMMARY_BYTES or data[:8] != MAGIC or CRC.unpack_from(data, SUMMARY.size)[0] != crc32c(data[:-4]):
        return None
    _, version, *rest = SUMMARY.unpack_from(data)
    if version > VERSION:
        raise NewerFormatError(path, version, VERSION)
    return Summary._make(rest)


def pack_frame_head(kind: bytes, row: IndexRow) -> bytes:
    """The head of a frame that an index row tells of."""
    head = FRAME.pack(kind, row.key, row.length, row.items, row.number, row.crc)
    return head + CRC.pack(crc32c(head))


def read_frame_head(data: memoryview, at: int, end: int) -> tuple[bytes, IndexRow] | None:
    """Reads the head of a frame.

    Args:
        data: The file.
        at: Where the frame would begin.
        end: Where frames end.

    Returns:
        Its kind and what the index tells of it; None if there is no frame, or not the whole of it.
    """
    payload = at + FRAME_BYTES
    if payload > end or CRC.unpack_from(data, payload - 4)[0] != crc32c(data[at : payload - 4]):
        return None
    kind, key, length, items, number, crc = FRAME.unpack_from(data, at)
    if kind not in (TILE, AGGREGATE) or payload + length > end:
        return None
    return kind, IndexRow(key, length, items, crc, number, payload)


def write_block(
    path: Path, interval: int, window: int, tiles: Iterable[TileEntry], aggregates: Iterable[AggregateEntry]
) -> int:
    """Writes a block, as a whole or not at all; it takes the place of another one.

    Entries are taken one by one and not kept.

    Args:
        path: The file; its directory exists.
        interval: Seconds between two slots.
        window: Number of the window.
        tiles: The tiles, in any order, at most one of a band.
        aggregates: Aggregate tiles, any number of a metric; each row's host is in one of them at most.

    Returns:
        Length of the file.

    Raises:
        OSError: The disk refuses; `path` is as it was, and nothing else is left behind. (See `replacing` for the one
            exception.)
    """
    with replacing(path) as file:
        file.write(bytes(SUMMARY_BYTES))  # the header, once it is known
        offset = SUMMARY_BYTES
        tile_rows: list[IndexRow] = []
        for tile in tiles:
            payload, at = tile.payload, offset + FRAME_BYTES
            row = IndexRow(tile.band, len(payload), tile.n_samples, crc32c(payload), tile.number, at)
            file.writelines([pack_frame_head(TILE, row), payload])
            tile_rows.append(row)
            offset = at + row.length
        aggregate_rows: list[IndexRow] = []
        for entry in aggregates:
            hosts = np.array([host for host, _ in entry.rows], "<u4").tobytes()
            members = b"".join(fingerprint for _, fingerprint in entry.rows)
            assert len(members) == MEMBERS_BYTES * len(entry.rows), entry.rows
            prefix = hosts + members
            payload, at = entry.payload, offset + FRAME_BYTES
            crc = crc32c(payload, crc32c(prefix))
            row = IndexRow(entry.metric, len(prefix) + len(payload), len(entry.rows), crc, 0, at)
            file.writelines([pack_frame_head(AGGREGATE, row), prefix, payload])
            aggregate_rows.append(row)
            offset = at + row.length
        index = pack_index(tile_rows).tobytes() + pack_index(aggregate_rows).tobytes()
        assert len({row.key for row in tile_rows}) == len(tile_rows), "a band has one tile"
        summary = Summary(
            interval=interval,
            window=window,
            number=max((row.number for row in tile_rows), default=0),
            n_tiles=len(tile_rows),
            n_aggregates=len(aggregate_rows),
            n_samples=sum(row.items for row in tile_rows),
            index_offset=offset,
            index_crc=crc32c(index),
        )
        file.write(index)
        file.write(summary.pack())
        file.seek(0)
        file.write(summary.pack())
    return summary.file_bytes


def pack_index(rows: list[IndexRow]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Index rows by key: array of shape (n_rows,), dtype INDEX_ROW; those of one key stay in order."""
    index = np.array(rows, INDEX_ROW)
    return index[np.argsort(index["key"], kind="stable")]
