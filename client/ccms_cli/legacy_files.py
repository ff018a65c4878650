"""Reads checkpoints of the predecessor, of all kinds: by the readers of the server, which have to be installed."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccms_cli.stored_series import Samples
from ccms_client import SeriesKey

if TYPE_CHECKING:
    from ccms_server.legacy.content import Block

LEVELS_MAX = 2
"""Levels below a host."""


def read_checkpoints(
    directory: Path, read: Callable[[int, int], None], complain: Callable[[str], None]
) -> Iterator[Samples]:
    """Reads all files below a directory, `<cluster>/<host>/<time>.json`, `<time>.bin` and `current.wal`, by time.

    Args:
        directory: The predecessor's `checkpoints.directory`.
        read: Is told how many bytes were read, and how many there are.
        complain: Is told what cannot be read.

    Raises:
        ValueError: There are none, or the server is not installed.
    """
    try:
        from ccms_server.legacy.content import blocks
        from ccms_server.legacy.files import Kind, find_files
        from ccms_server.legacy.json_checkpoint import read_json
        from ccms_server.legacy.snapshot import read_snapshot
        from ccms_server.legacy.wal import WalReader
    except ImportError as error:
        raise ValueError(
            f"checkpoints of the predecessor are read by the server's readers: pip install 'cc-metric-store[server]' "
            f"({error.name} is missing)"
        ) from error

    def blocks_of(path: Path, kind: Kind) -> "Iterator[Block]":
        def report(offset: int, length: int, what: str) -> None:
            complain(f"{path}: {length:,} bytes at {offset:,} are damaged: {what}")

        if kind is Kind.WAL:
            with path.open("rb") as file:
                yield from WalReader(file, report).read()
        else:
            yield from blocks((read_json if kind is Kind.JSON else read_snapshot)(path.read_bytes(), report))

    found = find_files(directory)
    if found.n_avro:
        complain(f"{found.n_avro:,} files are of the Avro format, which is not read")
    if not found.files:
        raise ValueError(f"{directory} has no checkpoints: they are <cluster>/<host>/<time>.json, .bin or current.wal")
    n_bytes, n_read = sum(file.size for file in found.files), 0
    for file in found.files:
        for block in blocks_of(directory / file.key, file.kind):
            yield _samples(file.cluster, file.host, block, partial(_complain_of, complain, file.key))
        n_read += file.size
        read(n_read, n_bytes)


def _complain_of(complain: Callable[[str], None], file: str, what: str) -> None:
    complain(f"{file}: {what}")


def _samples(cluster: str, host: str, block: "Block", complain: Callable[[str], None]) -> Samples:
    """The samples of a block that have a place in the tree."""
    keys: list[SeriesKey] = []
    places = np.full(len(block.series), -1, np.intp)
    for number, series in enumerate(block.series):
        if len(series.path) <= LEVELS_MAX:
            places[number] = len(keys)
            keys.append(SeriesKey(series.metric, cluster, host, *series.path))
        else:
            complain(f"{'/'.join(series.path)} is deeper than the {LEVELS_MAX} levels there are, and is left out")
    numbers = places[block.numbers]
    kept = (numbers >= 0) & ~np.isnan(block.values)
    return Samples(keys, numbers[kept], block.timestamps[kept], block.values[kept])
