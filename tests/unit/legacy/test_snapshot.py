import math
import struct

import numpy as np
import pytest
from helpers.legacy import START, level, metric, snapshot_bytes

from ccms_server.legacy.content import Series
from ccms_server.legacy.snapshot import read_snapshot

HOST = level(
    {"load": [1.5, None, 0.1]},
    {
        "hwthread0": level({"flops": [3, 4], "ipc": [7]}),
        "socket0": level({}, {"dimm0": level({"mem_bw": metric([1, 2, 3, 4], START + 1, 2)})}),
    },
)
CONTENT = snapshot_bytes(HOST)
COLUMNS = [
    (Series((), "load", 60), START, 60, [1.5, None, float(np.float32(0.1))]),
    (Series(("hwthread0",), "flops", 60), START, 60, [3.0, 4.0]),
    (Series(("hwthread0",), "ipc", 60), START, 60, [7.0]),
    (Series(("socket0", "dimm0"), "mem_bw", 2), START + 1, 2, [1.0, 2.0, 3.0, 4.0]),
]
ENDS = [CONTENT.index(struct.pack("<f", last)) + 4 for last in (0.1, 4, 7)] + [len(CONTENT) - 4]
"""Where each column ends; what follows the last one is the number of its level's children."""


def read(content):
    """The columns of a file, and the damage that was reported."""
    damage = []
    columns = [
        (series, start, interval, [None if math.isnan(value) else value for value in values.tolist()])
        for series, start, interval, values in read_snapshot(content, lambda *report: damage.append(report))
    ]
    return columns, damage


def test_all_columns_are_read_as_doubles():
    assert read(CONTENT) == (COLUMNS, [])


@pytest.mark.parametrize("end", range(len(CONTENT)))
def test_of_a_file_that_was_cut_off_all_that_is_whole_is_read(end):
    columns, damage = read(CONTENT[:end])
    assert columns == [column for column, at in zip(COLUMNS, ENDS, strict=True) if at <= end]
    [(offset, length, what)] = damage
    assert offset + length == end
    assert what


@pytest.mark.parametrize("mask", [0x01, 0x40, 0x80, 0xFF])
def test_a_flipped_byte_costs_nothing_in_front_of_it(mask):
    for at in range(len(CONTENT)):
        flipped = bytearray(CONTENT)
        flipped[at] ^= mask
        columns, damage = read(bytes(flipped))
        n_before = sum(end <= at for end in ENDS)
        assert columns[:n_before] == COLUMNS[:n_before], at
        assert all(0 <= offset <= offset + length <= len(CONTENT) for offset, length, _ in damage)


@pytest.mark.parametrize(
    "broken", [metric([1], frequency=0), metric([1], start=-5), metric([1, 2], frequency=1 << 60)], ids=str
)
def test_a_metric_that_breaks_a_rule_costs_only_itself(broken):
    columns, [(_, length, what)] = read(snapshot_bytes(level({"a": [1], "load": broken, "z": [2]})))
    assert [column[0].metric for column in columns] == ["a", "z"]
    assert length > 0
    assert "load" in what


def test_what_follows_the_last_level_is_reported():
    assert read(CONTENT + b"xy") == (COLUMNS, [(len(CONTENT), 2, "there is something behind the last level")])


def test_levels_beyond_any_tree_are_not_followed():
    content = bytearray(snapshot_bytes(level({"load": [1]})))
    for _ in range(20):
        content[-4:] = struct.pack("<IH1sI", 1, 1, b"c", 0) + struct.pack("<I", 0)
    columns, damage = read(bytes(content))
    assert len(columns) == 1
    assert len(damage) == 1


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"{}", b"\x02\x00\x5b\xcc" + CONTENT[4:]])
def test_something_else_is_reported(garbage):
    columns, damage = read(garbage)
    assert columns == []
    assert len(damage) == 1
