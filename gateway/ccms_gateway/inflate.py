"""Decompressing bodies, in steps of bounded size."""

import zlib
from collections.abc import Iterator
from typing import Final

ENCODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
"""What `Content-Encoding` may say of a compressed body."""

STEP_BYTES: Final = 1 << 18
"""What is decompressed in one go, in less than a millisecond."""

_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


class Inflater:
    """Decompresses gzip, of one member or several, or deflate. What ends early can be told from what is whole."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_OR_ZLIB)

    @property
    def complete(self) -> bool:
        """Whether the data so far ends where a member ends, with the right checksum."""
        return self._member.eof

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decompresses the next data, into pieces of at most `STEP_BYTES`.

        Raises:
            zlib.error: It is something else, or its checksum is wrong.
        """
        more = bool(data)
        while more:
            if data and self._member.eof:
                self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
            piece = self._member.decompress(data, STEP_BYTES)
            data = self._member.unconsumed_tail or self._member.unused_data
            more = bool(data) or len(piece) == STEP_BYTES  # a full piece may have left some inside
            yield piece
