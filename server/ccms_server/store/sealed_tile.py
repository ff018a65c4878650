"""Sealed tiles: immutable, lossless, compressed blocks of at most 64 rows x 256 slots.

The present samples are compressed by pcodec's wrapped format, row after row: one chunk a tile, which holds what the
codec learnt about the numbers, and one page for each PAGE_ROWS rows, which can be opened alone. Which slots are present
is a bitmap of its own, left out when none is missing, so that gaps do not spoil the numbers' regularity.

Layout, little endian:

    0   u8   version (1)
    1   u8   n_rows, 1..64
    2   u8   phases: 0 one for all rows, 1 one for each row
    3   u8   0
    4   u32  n_samples
    8   u32  length of the presence bitmap; 0: every slot of every row is present
    12  u32  length of pcodec's chunk metadata
    16  i32  phase of all rows, or i32[n_rows]: seconds, PHASE_UNSET for a row without samples
    ..  u32[2 * n_pages]  of each page: samples, bytes
    ..       presence: zlib over n_rows x 32 bytes, one bit a slot, the first slot in the highest bit
    ..       chunk metadata; none without samples
    ..       pages, of 4 rows each: their present samples, row by row, as f64

The header that pcodec puts in front of its chunks is the same for all tiles of a version, and left out: it is what
pcodec 1.x writes (`FileCompressor().write_header()`).
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, PagingSpec
from pcodec.wrapped import FileCompressor, FileDecompressor

from ccms_server.jit import kernel
from ccms_server.store.layout import MISSING_BITS, PAGE_ROWS, PHASE_UNSET, WINDOW_SLOTS

VERSION: Final = 1
HEAD: Final = struct.Struct("<BBBxIII")
COMPRESSION_LEVEL: Final = 8
"""Of pcodec: 1.26 B and 74 ns a sample on real data; level 4 takes 1.34 B and 30 ns."""

# The header names pcodec's format version only: one for all tiles of this layout version.
_COMPRESSOR: Final = FileCompressor()
_DECOMPRESSOR: Final = FileDecompressor.new(_COMPRESSOR.write_header())[0]


class SealedTile:
    """An immutable tile.

    Attributes:
        payload: The bytes described above.
        n_samples: Samples in it.
    """

    __slots__ = ("__weakref__", "n_rows", "n_samples", "payload")
    n_rows: int
    n_samples: int

    def __init__(self, payload: bytes | memoryview) -> None:
        """Makes a tile of bytes that `seal` wrote.

        Args:
            payload: The bytes, known to be whole: nothing below checks them again. They are kept, not copied.
        """
        version, self.n_rows, _, self.n_samples, _, _ = HEAD.unpack_from(payload)
        assert version == VERSION, version
        self.payload = payload

    @property
    def n_pages(self) -> int:
        """Pages in it."""
        return -(-self.n_rows // PAGE_ROWS)

    @classmethod
    def seal(cls, values: NDArray[np.uint64], phases: NDArray[np.int32]) -> "SealedTile":
        """Compresses a tile.

        Args:
            values: uint64 array of shape (n_rows, WINDOW_SLOTS), C-contiguous: bits of the samples ^ MISSING_BITS.
            phases: int32 array of shape (n_rows,), seconds; PHASE_UNSET for rows without samples.
        """
        n_rows = len(values)
        present = values != 0
        counts = present.sum(axis=1)
        n_samples = int(counts.sum())
        page_counts = [int(counts[row : row + PAGE_ROWS].sum()) for row in range(0, n_rows, PAGE_ROWS)]
        presence = b"" if n_samples == values.size else zlib.compress(np.packbits(present, axis=1).tobytes(), 9)
        metadata, pages = b"", [b""] * len(page_counts)
        if n_samples:
            samples = (values[present] ^ MISSING_BITS).view(np.float64)
            filled = [number for number, count in enumerate(page_counts) if count]
            paging = PagingSpec.exact_page_sizes([page_counts[number] for number in filled])
            config = ChunkConfig(compression_level=COMPRESSION_LEVEL, paging_spec=paging)
            chunk = _COMPRESSOR.chunk_compressor(samples, config)
            metadata = chunk.write_meta()
            for index, number in enumerate(filled):
                pages[number] = chunk.write_page(index)
        written = phases[phases != PHASE_UNSET]
        shared = not len(written) or bool((written == written[0]).all())
        phase_bytes = struct.pack("<i", written[0] if len(written) else PHASE_UNSET) if shared else phases.tobytes()
        directory = [number for count, page in zip(page_counts, pages, strict=True) for number in (count, len(page))]
        head = HEAD.pack(VERSION, n_rows, not shared, n_samples, len(presence), len(metadata))
        directory_bytes = struct.pack(f"<{len(directory)}I", *directory)
        return cls(b"".join([head, phase_bytes, directory_bytes, presence, metadata, *pages]))

    def read_phases(self) -> NDArray[np.int32]:
        """Phases of all rows.

        Returns:
            int32 array of shape (n_rows,), seconds. Rows without samples have PHASE_UNSET, or that of the others.
        """
        if self.payload[2]:
            return np.frombuffer(self.payload, "<i4", self.n_rows, HEAD.size).astype(np.int32)
        return np.full(self.n_rows, struct.unpack_from("<i", self.payload, HEAD.size)[0], np.int32)

    def read_phase(self, row: int) -> int:
        """Phase of one row, in seconds; see `read_phases`."""
        return int(struct.unpack_from("<i", self.payload, HEAD.size + (4 * row if self.payload[2] else 0))[0])

    def read_pages(self, numbers: Sequence[int], rows: NDArray[np.float64]) -> None:
        """Decompresses some pages.

        Args:
            numbers: Which pages; page k holds the rows from `k * PAGE_ROWS`.
            rows: float64 array of shape (n_rows, WINDOW_SLOTS), C-contiguous: their rows are written there, one page
                after another; NaN where no sample is. Only the last page of a tile may have less than PAGE_ROWS.
        """
        payload, n_rows = self.payload, self.n_rows
        _, _, per_row, _, presence_length, metadata_length = HEAD.unpack_from(payload)
        at = HEAD.size + 4 * (n_rows if per_row else 1)
        directory = struct.unpack_from(f"<{2 * self.n_pages}I", payload, at)
        at += 8 * self.n_pages
        presence = zlib.decompress(payload[at : at + presence_length]) if presence_length else b""
        at += presence_length
        chunk = None
        if metadata_length:
            chunk, _ = _DECOMPRESSOR.chunk_decompressor(bytes(payload[at : at + metadata_length]), "f64")
        at += metadata_length
        flat, done = rows.reshape(-1), 0
        for number in numbers:
            first_slot = number * PAGE_ROWS * WINDOW_SLOTS
            page = flat[done : done + min(PAGE_ROWS * WINDOW_SLOTS, n_rows * WINDOW_SLOTS - first_slot)]
            count, length = directory[2 * number], directory[2 * number + 1]
            samples = page[len(page) - count :]
            if count:
                assert chunk is not None, "a page with samples has a chunk"
                start = at + sum(directory[1 : 2 * number : 2])
                chunk.read_page_into(bytes(payload[start : start + length]), count, samples)
            if count < len(page):
                _spread(samples, np.frombuffer(presence, np.uint8, len(page) // 8, first_slot // 8), page)
            done += len(page)

    def read_all(self) -> NDArray[np.float64]:
        """Decompresses the tile into a new float64 array of shape (n_rows, WINDOW_SLOTS), NaN where no sample is."""
        rows = np.empty((self.n_rows, WINDOW_SLOTS))
        self.read_pages(range(self.n_pages), rows)
        return rows


def as_stored(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """The bits open tiles keep: 0 where a sample is missing.

    Args:
        values: float64 array of any shape; NaN marks a missing sample.
    """
    return np.where(np.isnan(values), np.uint64(0), values.view(np.uint64) ^ MISSING_BITS)


@kernel
def _spread(samples: NDArray[np.float64], bits: NDArray[np.uint8], page: NDArray[np.float64]) -> None:
    """Puts samples where a bitmap has ones, and NaN elsewhere; they may lie at the end of the page itself."""
    taken = 0
    for slot in range(len(page)):
        if (bits[slot >> 3] >> (7 - (slot & 7))) & 1:
            page[slot] = samples[taken]
            taken += 1
        else:
            page[slot] = np.nan
