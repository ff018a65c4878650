"""Who gets compressed answers, and that they are what was compressed."""

import gzip

import pytest

from ccms_gateway.compression import INLINE_BYTES_MAX, GzipStream, accepts_gzip


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, gzip;q=0.8", True),
        ("deflate , gzip ; q=0.001", True),
        ("*", True),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("", False),
        ("identity", False),
        ("deflate, br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("identity, gzip;q=0.5", False),
        ("gzip;q=much", False),
        ("gzip;q=-1", False),
        ("gzip;q=2", False),
        ("gzip;q=nan", False),
        ("gzipped", False),
        (",;,=;", False),
    ],
)
def test_gzip_is_sent_to_those_who_would_rather_have_it(header, accepted):
    assert accepts_gzip(header) is accepted


@pytest.mark.parametrize("sizes", [[], [0], [1], [5, 0, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 300_000, 1]])
async def test_pieces_come_back_whole(sizes):
    pieces = [bytes(range(256)) * (size // 256) + b"x" * (size % 256) for size in sizes]
    stream = GzipStream()
    compressed = b"".join([await stream.add(piece) for piece in pieces]) + stream.finish()
    assert gzip.decompress(compressed) == b"".join(pieces)
