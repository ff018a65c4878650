"""Reading blocks: see `block_format` for the file and for what damage costs.

A block is opened by its header and footer alone; the index and the tiles are read through a map of the file when they
are asked for. Every byte is checked against its CRC before anything is made of it, again after `Block.release`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import RLock
from typing import Final, NamedTuple, Self

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ccms_server.durability.block_format import (
    AGGREGATE,
    FRAME_BYTES,
    INDEX_ROW,
    MEMBERS_BYTES,
    NO_HOST,
    SUMMARY_BYTES,
    TILE,
    AggregateEntry,
    IndexRow,
    Summary,
    TileEntry,
    pack_frame_head,
    pack_index,
    read_frame_head,
    read_summary,
    write_block,
)
from ccms_server.durability.damage import Damage, DamageLog
from ccms_server.durability.mapping import FileMapping
from ccms_server.errors import MetricStoreError
from ccms_server.store.layout import WINDOW_SLOTS
from ccms_server.store.sealed_tile import SealedTile
from ccms_server.store.table import AggregateRow

__all__ = ["NO_HOST", "AggregateEntry", "Block", "DamagedFileError", "TileEntry", "block_path", "write_block"]

_FRAME_BEGIN: Final = re.compile(TILE + b"|" + AGGREGATE)
_PATH_END: Final = re.compile(r"(?:^|/)([1-9]\d*)s/(-?\d+)\.block$")

Rows = NDArray[np.void]
"""Array of shape (n_rows,), dtype INDEX_ROW."""


class DamagedFileError(MetricStoreError):
    """Nothing in a file can be read; it was reported as damage.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: nothing in it can be read")
        self.path = path


class _Index(NamedTuple):
    """Where everything is. Keys are arrays of their own: they are searched."""

    bands: NDArray[np.uint32]
    tiles: Rows
    metrics: NDArray[np.uint32]
    aggregates: Rows


def block_path(directory: Path, interval: int, window: int) -> Path:
    """Where the block of a window belongs.

    Args:
        directory: Of all blocks.
        interval: Seconds between two slots.
        window: Number of the window.
    """
    return directory / f"{interval}s" / f"{window * WINDOW_SLOTS * interval}.block"


class Block:
    """A block that is read; any number of threads may do so, while its file is replaced or deleted as well.

    Attributes:
        path: Where its file was when it was opened.
        interval: Seconds between two slots.
        window: Number of the window.
        number: Highest WAL number that a tile covers.
        n_tiles: Tiles in it.
        n_samples: Samples in them.
        payload_bytes: Bytes of all tiles, aggregates included.
        file_bytes: Length of the file.
    """

    def __init__(
        self, path: Path, damage: DamageLog, mapping: FileMapping, file_bytes: int, summary: Summary | None
    ) -> None:
        """Takes a file that `open` looked at.

        Raises:
            DamagedFileError: There is neither a summary nor a frame.
        """
        self.path = path
        self.file_bytes = file_bytes
        self._damage = damage
        self._mapping = mapping
        self._data = mapping.view()
        self._summary = summary
        self._lock = RLock()
        self._index: _Index | None = None
        self._tiles: dict[int, SealedTile | None] = {}
        self._aggregates: dict[int, dict[int, AggregateRow]] = {}
        self._reported: set[int] = set()
        """Offsets of damage: it is met again after every release."""
        if summary is not None and summary.file_bytes <= file_bytes:
            n_frames = summary.n_tiles + summary.n_aggregates
            self.interval, self.window, self.number = summary.interval, summary.window, summary.number
            self.n_tiles, self.n_samples = summary.n_tiles, summary.n_samples
            self.payload_bytes = summary.index_offset - SUMMARY_BYTES - FRAME_BYTES * n_frames
        else:
            self._count_what_is_left()

    @classmethod
    def open(cls, path: Path, damage: DamageLog) -> Self:
        """Opens a block, by header and footer; damage elsewhere is noticed when it is met.

        Args:
            path: The file.
            damage: Is told of all damage that is found, now and later.

        Raises:
            NewerFormatError: A later release wrote it.
            DamagedFileError: Nothing in it can be read.
            OSError: The disk refuses.
        """
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            header = os.pread(descriptor, SUMMARY_BYTES, 0)
            footer = os.pread(descriptor, SUMMARY_BYTES, max(size - SUMMARY_BYTES, 0))
            summary = read_summary(path, header)
            if summary is None or header != footer or summary.file_bytes != size:
                at_end = read_summary(path, footer)
                if summary is None:
                    damage.add(Damage(path, 0, min(size, SUMMARY_BYTES), "header"))
                    if at_end is None and size > SUMMARY_BYTES:
                        damage.add(Damage(path, size - len(footer), len(footer), "footer"))
                elif summary.file_bytes > size:
                    damage.add(Damage(path, size, summary.file_bytes - size, "the file was cut"))
                else:
                    footer_at = summary.file_bytes - SUMMARY_BYTES
                    damage.add(Damage(path, footer_at, size - footer_at, "footer"))
                summary = summary or at_end
            if size < SUMMARY_BYTES:
                raise DamagedFileError(path)
            mapping = FileMapping(descriptor, size)
        finally:
            os.close(descriptor)
        return cls(path, damage, mapping, size, summary)

    # --- what is in it

    def bands(self) -> NDArray[np.int64]:
        """Bands that have a tile: int64 array of shape (n_tiles,), ascending."""
        return self._loaded().bands.astype(np.int64)

    def entry(self, band: int) -> tuple[int, int] | None:
        """WAL number that the tile of a band covers, and its samples; None if it has none. Does not touch the tile."""
        index = self._loaded()
        at = _position(index.bands, band)
        return None if at is None else (int(index.tiles["number"][at]), int(index.tiles["items"][at]))

    def tile_counts(self) -> Mapping[int, tuple[int, int]]:
        """Of each band that has a tile: samples, bytes. Made anew each time: for the whole, see `n_samples`."""
        index = self._loaded()
        counts = zip(index.tiles["items"].tolist(), index.tiles["length"].tolist(), strict=True)
        return dict(zip(index.bands.tolist(), counts, strict=True))

    # --- reading

    def tile(self, band: int) -> SealedTile | None:
        """The tile of a band; None if it has none, or a damaged one.

        It is the same object each time, until `release`; its payload is a view of the mapped file.
        """
        try:
            return self._tiles[band]
        except KeyError:
            pass
        index = self._loaded()
        with self._lock:
            if band not in self._tiles:
                at = _position(index.bands, band)
                payload = None if at is None else self._payload(TILE, _rows(index.tiles[at : at + 1])[0])
                self._tiles[band] = None if payload is None else SealedTile(payload)
            return self._tiles[band]

    def known_tile(self, band: int) -> SealedTile | None:
        """What `tile` returned before; None if it was not called since `release`."""
        return self._tiles.get(band)

    def aggregates(self, metric_id: int) -> Mapping[int, AggregateRow]:
        """The aggregates of a metric's hosts, by the number of the host in the metric's table.

        Damaged ones are missing. It is the same object each time, until `release`.
        """
        known = self._aggregates.get(metric_id)
        if known is not None:
            return known
        index = self._loaded()
        with self._lock:
            if metric_id not in self._aggregates:
                found: dict[int, AggregateRow] = {}
                for entry in self._entries_of_aggregates(index.aggregates[index.metrics == metric_id]):
                    tile = SealedTile(entry.payload)
                    for row, (host, members) in enumerate(entry.rows):
                        if host != NO_HOST:
                            found[host] = AggregateRow(tile, row, members)
                self._aggregates[metric_id] = found
            return self._aggregates[metric_id]

    def tile_entries(self) -> Iterator[TileEntry]:
        """All tiles by band, to be written again; damaged ones are left out. Payloads are views of the mapped file."""
        for row in _rows(self._loaded().tiles):
            payload = self._payload(TILE, row)
            if payload is not None:
                yield TileEntry(band=row.key, number=row.number, payload=payload, n_samples=row.items)

    def aggregate_entries(self) -> Iterator[AggregateEntry]:
        """All aggregate tiles by metric, to be written again; damaged ones are left out."""
        return self._entries_of_aggregates(self._loaded().aggregates)

    def release(self) -> None:
        """Forgets what was read, and gives its memory back. The block, and tiles that are in use, stay readable."""
        with self._lock:
            self._tiles = {}
            self._aggregates = {}
            self._index = None
            self._mapping.give_back()

    # --- bytes

    def _payload(self, kind: bytes, row: IndexRow) -> memoryview | None:
        """The payload of a frame; None if it is damaged."""
        payload = self._data[row.offset : row.offset + row.length]
        head_at = row.offset - FRAME_BYTES
        head_holds = self._data[head_at : row.offset] == pack_frame_head(kind, row)
        payload_holds = crc32c(payload) == row.crc
        if head_holds and payload_holds:
            return payload
        what = f"tile of band {row.key}" if kind == TILE else f"aggregates of metric {row.key}"
        if not head_holds:
            self._report(head_at, FRAME_BYTES, f"head of the {what}")
        if payload_holds:
            return payload
        self._report(row.offset, row.length, f"{what}, {row.items} {'samples' if kind == TILE else 'rows'}")
        return None

    def _report(self, offset: int, length: int, what: str) -> None:
        """Reports damage once."""
        with self._lock:
            if offset not in self._reported:
                self._reported.add(offset)
                self._damage.add(Damage(self.path, offset, length, what))

    def _entries_of_aggregates(self, rows: Rows) -> Iterator[AggregateEntry]:
        for row in _rows(rows):
            payload = self._payload(AGGREGATE, row)
            if payload is not None:
                hosts, members_end = np.frombuffer(payload, "<u4", row.items), (4 + MEMBERS_BYTES) * row.items
                members = np.frombuffer(payload[4 * row.items : members_end], f"V{MEMBERS_BYTES}")
                pairs = list(zip(hosts.tolist(), members.tolist(), strict=True))
                yield AggregateEntry(metric=row.key, rows=pairs, payload=payload[members_end:])

    def _loaded(self) -> _Index:
        """The index."""
        index = self._index
        if index is None:
            with self._lock:
                index = self._index
                if index is None:
                    index = self._index = self._read_index()
        return index

    def _read_index(self) -> _Index:
        """Reads the index, or finds out from the frames what it should tell."""
        summary = self._summary
        if summary is None or summary.file_bytes > self.file_bytes:
            return self._walk(self.file_bytes)
        stored = self._data[summary.index_offset : summary.file_bytes - SUMMARY_BYTES]
        if crc32c(stored) != summary.index_crc:
            self._report(summary.index_offset, len(stored), "index")
            return self._walk(summary.index_offset)
        rows = np.frombuffer(stored, INDEX_ROW)
        return _index(rows[: summary.n_tiles], rows[summary.n_tiles :])

    def _walk(self, end: int) -> _Index:
        """Goes through the frames up to an offset; those after a damaged head are found by what frames begin with."""
        found: dict[bytes, list[IndexRow]] = {TILE: [], AGGREGATE: []}
        at = SUMMARY_BYTES
        while at < end:
            frame = read_frame_head(self._data, at, end)
            if frame is None:
                begins = (match.start() for match in _FRAME_BEGIN.finditer(self._data, at + 1, end))
                following = next((begin for begin in begins if read_frame_head(self._data, begin, end)), end)
                self._report(at, following - at, "no frames, or damaged ones")
                at = following
            else:
                kind, row = frame
                found[kind].append(row)
                at = row.offset + row.length
        return _index(pack_index(found[TILE]), pack_index(found[AGGREGATE]))

    def _count_what_is_left(self) -> None:
        """Sets the attributes by the frames, in a file that was cut or that lost header and footer."""
        index = self._index = self._read_index()
        summary = self._summary
        if summary is None:
            place = _PATH_END.search(self.path.as_posix())
            if place is None or not len(index.tiles):
                raise DamagedFileError(self.path)
            self.interval = int(place[1])
            self.window = int(place[2]) // (self.interval * WINDOW_SLOTS)
            self.number = int(index.tiles["number"].max())
        else:
            self.interval, self.window, self.number = summary.interval, summary.window, summary.number
        self.n_tiles = len(index.tiles)
        self.n_samples = int(index.tiles["items"].sum())
        self.payload_bytes = int(index.tiles["length"].sum() + index.aggregates["length"].sum())


def _index(tiles: Rows, aggregates: Rows) -> _Index:
    return _Index(tiles["key"].copy(), tiles, aggregates["key"].copy(), aggregates)


def _rows(rows: Rows) -> list[IndexRow]:
    return [IndexRow._make(row) for row in rows.tolist()]


def _position(keys: NDArray[np.uint32], key: int) -> int | None:
    """Where a key is among sorted keys."""
    at = int(keys.searchsorted(np.uint32(key)))  # a Python int would have the keys converted
    return at if at < len(keys) and keys[at] == key else None
