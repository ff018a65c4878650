"""Line protocol from a file or stdin, cut into batches of whole lines."""

import gzip
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

CHUNK_BYTES: Final = 256 << 10
"""Bytes that are read at a time, at most: what a pipe has is taken as it comes."""
LINE_BYTES_MAX: Final = 1 << 20
"""A line that is longer is no line: the server would refuse it anyhow."""


class LineBatch(NamedTuple):
    """Whole lines."""

    first_line: int
    """Number of the first one in the file, from 1."""
    payload: bytes


@contextmanager
def opened_lines(path: Path | None) -> Iterator[tuple[BinaryIO, Callable[[], int], int | None]]:
    """Opens a file, also a compressed one, or stdin.

    Args:
        path: The file; None or `-`: stdin.

    Yields:
        What lines are read from, the bytes of the file that were read so far, and its size; None: that is not known.
    """
    if path is None or str(path) == "-":
        stream = sys.stdin.buffer
        yield cast("BinaryIO", stream), lambda: 0, None
        return
    with path.open("rb") as file:
        size = path.stat().st_size if path.is_file() else None
        if path.suffix == ".gz":
            with gzip.open(file) as unpacked:
                yield cast("BinaryIO", unpacked), file.tell, size
        else:
            yield file, file.tell if size is not None else lambda: 0, size


def line_batches(file: BinaryIO, lines_max: int) -> Iterator[LineBatch]:
    """Cuts what is read into batches.

    Args:
        file: Has `read1`.
        lines_max: Lines of a batch.

    Raises:
        ValueError: A line is too long: it is no line protocol.
    """
    read: Callable[[int], bytes] = file.read1  # type: ignore[attr-defined]
    number, rest = 1, b""
    while chunk := read(CHUNK_BYTES):
        data = rest + chunk
        end = data.rfind(b"\n") + 1
        whole, rest = data[:end], data[end:]
        if len(rest) > LINE_BYTES_MAX:
            first = number + whole.count(b"\n")
            raise ValueError(f"line {first:,} has more than {LINE_BYTES_MAX:,} bytes: this is no line protocol")
        for batch in _batches(whole, number, lines_max):
            yield batch
            number = batch.first_line + batch.payload.count(b"\n")
    if rest:
        yield LineBatch(number, rest)


def _batches(whole: bytes, number: int, lines_max: int) -> Iterator[LineBatch]:
    lines = whole.split(b"\n")[:-1]  # each of them ends so
    for begin in range(0, len(lines), lines_max):
        yield LineBatch(number + begin, b"\n".join(lines[begin : begin + lines_max]) + b"\n")
