"""What the store holds, as `/api/debug` shows it: the tree of levels, and where each series begins and ends.

`{"data": {"alpha": {"n1": {"load_one": [{"start": 1699999970, "len": 60, "end": 1700003570}], "socket0": {...}}}}}`

A list is a metric of the level, an object is a level below. In the predecessor the list has an entry for each buffer;
here a series is one piece.

A level below may be named like a metric of its level: then the key is there twice, first with the list, then with the
object. Most parsers keep the object. Only the keys could tell them apart, and those are what other programs look for.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import orjson

from ccms_server.model import SeriesExtent

_START: Final = '{"data":{'


class DumpEncoder:
    """Turns series, in the order of the tree, into pieces of JSON text, which make up the dump in order."""

    def __init__(self, depth: int = 0) -> None:
        """Makes an encoder.

        Args:
            depth: Names at the beginning of each path that are left out.
        """
        self._depth = depth
        self._open: tuple[str, ...] = ()
        self._separator = _START

    def encode(self, extents: Sequence[SeriesExtent]) -> bytes:
        """The text of the next series."""
        return "".join(self._texts(extents)).encode()

    def finish(self) -> bytes:
        """The text behind the last series."""
        start = _START if self._separator is _START else ""
        return (start + "}" * (len(self._open) + 2) + "\n").encode()

    def _texts(self, extents: Sequence[SeriesExtent]) -> Iterator[str]:
        for extent in extents:
            path = extent.path[self._depth :]
            if path != self._open:
                yield self._up_to(path)
            yield (
                f'{self._separator}{_quoted(extent.metric)}:[{{"start":{extent.start},"len":{extent.n_slots},'
                f'"end":{extent.end}}}]'
            )
            self._separator = ",\n"

    def _up_to(self, path: tuple[str, ...]) -> str:
        """The brackets between the level before and this one."""
        common = 0
        while common < min(len(path), len(self._open)) and path[common] == self._open[common]:
            common += 1
        closing = "}" * (len(self._open) - common)
        self._open = path
        opening = "".join(f"{_quoted(name)}:{{" for name in path[common:])
        if not opening:
            return closing
        separator, self._separator = self._separator, ""
        return closing + separator + opening


def write_dump(path: Path, chunks: Iterable[Sequence[SeriesExtent]]) -> None:
    """Writes a dump to a file.

    Args:
        path: The file; one that exists is replaced.
        chunks: The series, in the order of the tree.

    Raises:
        OSError: It cannot be written.
    """
    encoder = DumpEncoder()
    with path.open("wb") as file:
        for extents in chunks:
            file.write(encoder.encode(extents))
        file.write(encoder.finish())


def _quoted(name: str) -> str:
    return orjson.dumps(name).decode()
