"""Names are good or bad alike, whether they come in lines or in columns."""

import asyncio

import numpy as np
import pytest

from ccms_server.durability.keeper import MemoryKeeper
from ccms_server.errors import RejectReason
from ccms_server.ingest.batches import ColumnBatch, LineBatch
from ccms_server.ingest.writer import Writer
from ccms_server.model import SampleColumn, SeriesName
from ccms_server.names import broken_name_rule
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES
from ccms_server.watches import Watches

NOW = 1_700_000_000

GOOD_EVERYWHERE = [
    "n1",
    "a.b",
    ".a",
    "00000000:49:00.0",
    "a b",
    "a,b=c",
    "n\u00a01",
    "n\u20281",
    "\u00e4" * 127,
    "x" * 255,
    "-",
]
GOOD_BELOW_HOSTS = ["a/b", "/", "a\\b", "..", "a..b", "."]
BAD_EVERYWHERE = ["a\tb", "a\x00", "a\rb", "\x1f", "a\x7f", "n\x851", "\x80", "\x9f", "x" * 256, "\u00e4" * 128]

CASES = [
    (level, name, name in GOOD_EVERYWHERE or (is_below_hosts and name in GOOD_BELOW_HOSTS))
    for level, is_below_hosts in (("cluster", False), ("host", False), ("component", True), ("subcomponent", True))
    for name in (*GOOD_EVERYWHERE, *GOOD_BELOW_HOSTS, *BAD_EVERYWHERE)
]


@pytest.fixture
async def writer():
    store = Store([Metric("load", 60)], series_max=100, open_window_bytes=16 * TILE_BYTES)
    writer = Writer(
        store,
        MemoryKeeper(store),
        Watches(store),
        clock=lambda: float(NOW),
        retention_seconds=0,
        kept_from=lambda oldest: oldest,
        future_seconds=0,
        queue_bytes=1 << 20,
        line_bytes=65536,
    )
    task = asyncio.create_task(writer.run())
    yield writer
    writer.close()
    await task


def as_line(path):
    tags = zip(("cluster", "hostname", "type", "stype"), path.values(), strict=True)
    escaped = [(tag, "".join(f"\\{each}" if each in " ,=" else each for each in name)) for tag, name in tags]
    return f"load,{','.join(f'{tag}={name}' for tag, name in escaped)} value=1 {NOW}\n".encode()


@pytest.mark.parametrize(("level", "name", "is_good"), CASES)
async def test_lines_and_columns_agree_on_names(writer, level, name, is_good):
    path = {"cluster": "c", "host": "h", "component": "s", "subcomponent": "t", level: name}
    column = SampleColumn(SeriesName("load", **path), np.ones(1), start=NOW)

    reports = [await writer.write(LineBatch(as_line(path), "")), await writer.write(ColumnBatch([column]))]

    assert [report.stored for report in reports] == [int(is_good)] * 2
    assert [report.rejected for report in reports] == [{} if is_good else {RejectReason.INVALID_NAME: 1}] * 2


@pytest.mark.parametrize("is_directory", [True, False])
def test_empty_names_and_halves_of_characters_are_bad(is_directory):
    assert broken_name_rule("", is_directory=is_directory) == "must not be empty"
    assert broken_name_rule("a\ud800", is_directory=is_directory) == "must be text without control characters"
