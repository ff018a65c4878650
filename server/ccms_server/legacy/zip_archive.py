"""The predecessor's archive: `<archive.directory>/<cluster>/<host>/<time>.zip`, with a JSON checkpoint in it.

The only member is `<time>.json`, see `json_checkpoint`, and holds a window of the host: unpacked into the directory of
the host's checkpoints, it is loaded by the predecessor. `<time>` is the beginning of the window. Windows of different
intervals may begin at the same time, and then share the file: each replaces what it wrote itself, and leaves the rest.

A metric whose interval was changed may have two windows with the same name and beginning. The later one is then written
a second later. So is one whose file is there, but is no such archive.
"""

import io
import logging
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from ccms_server.durability.directory import make_directories, replacing
from ccms_server.legacy.document import Document, Samples, document, encode, on_grid
from ccms_server.store.layout import WINDOW_SLOTS
from ccms_server.store.read import Reader
from ccms_server.store.table import MetricTable
from ccms_server.store.tree import Tree

logger = logging.getLogger(__name__)

MEMBER_BYTES_MAX: Final = 1 << 30
"""A member that claims to be larger is not of this program."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time a ZIP file can hold, so that the same window makes the same file."""


class ZipArchive:
    """Writes windows into a directory, one file for each host."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, tree: Tree, reader: Reader, tables: Sequence[MetricTable], number: int) -> None:
        """See `Archive`."""
        table_by_metric = {table.metric_id: table for table in tables if number in table.windows}
        interval = tables[0].metric.interval
        start = number * WINDOW_SLOTS * interval
        end = start + WINDOW_SLOTS * interval

        def read(metric_id: int, series: int) -> Samples | None:
            table = table_by_metric.get(metric_id)
            if table is None:
                return None
            timestamps, values = reader.window_samples(table, series, number)
            if not len(timestamps):
                return None
            return Samples(table.metric.name, interval, *on_grid(timestamps, values, interval))

        n_files = 0
        for cluster, hosts in list(tree.root.children.items()):
            for host, level in list(hosts.children.items()):
                found = document(level, read, start, end)
                if found is not None:
                    self._write_host(self._directory / cluster / host, start, found)
                    n_files += 1
        logger.info("archived the window from %d on of %s hosts in %s", start, f"{n_files:,}", self._directory)

    def _write_host(self, directory: Path, start: int, found: Document) -> None:
        make_directories(directory)
        while True:
            path = directory / f"{start}.zip"
            try:
                known = _member_of(path)
            except FileNotFoundError:
                break
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
                logger.warning("%s is no archive of this host (%s): it is left alone", path, error)
            else:
                if _merge(known, found):
                    found = known
                    break
            start += 1
        with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(
                zipfile.ZipInfo(f"{start}.json", _EPOCH), encode(found), compress_type=zipfile.ZIP_DEFLATED
            )


def _member_of(path: Path) -> Document:
    """The checkpoint that an archive holds.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        ValueError: It holds something else; so say KeyError and the errors of `zipfile`.
    """
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        member = archive.getinfo(f"{path.stem}.json")
        if member.file_size > MEMBER_BYTES_MAX:
            raise ValueError(f"its checkpoint has {member.file_size:,} bytes")
        found = orjson.loads(archive.read(member))
    _check(found)
    return dict(found)


def _check(level: object) -> None:
    """Raises a ValueError unless something is a level as this program writes it."""
    match level:
        case {"from": int(), "to": int(), "metrics": dict() as metrics, "children": dict() as children}:
            for metric in metrics.values():
                match metric:
                    case {"frequency": int(), "start": int(), "data": list()}:
                        pass
                    case _:
                        raise ValueError("it is no checkpoint")
            for child in children.values():
                _check(child)
        case _:
            raise ValueError("it is no checkpoint")


def _merge(known: Document, found: Document) -> bool:
    """Adds a level to another one; False, and maybe half done, if it has a metric of the other at another interval."""
    known["to"] = max(known["to"], found["to"])
    for name, metric in found["metrics"].items():
        before = known["metrics"].get(name)
        if before is not None and before["frequency"] != metric["frequency"]:
            return False
        known["metrics"][name] = metric
    for name, child in found["children"].items():
        before = known["children"].setdefault(name, child)
        if before is not child and not _merge(before, child):
            return False
    return True
