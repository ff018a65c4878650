import json
import math

import pytest
from helpers.legacy import START, json_bytes, level, metric

from ccms_server.legacy.content import Series
from ccms_server.legacy.json_checkpoint import read_json

HOST = level(
    {"load": [1.5, None, -3]},
    {
        "hwthread0": level({"flops": [0.1, 1e300], "ipc": [7]}),
        "socket0": level({}, {"dimm0": level({"mem_bw": [1, 2, 3, 4]})}),
        "ü": level({"power": metric([5, 6], START + 1, 2)}),
    },
)


def read(content):
    """The columns of a file, and the damage that was reported."""
    damage = []
    columns = [
        (series, start, interval, [None if math.isnan(value) else value for value in values.tolist()])
        for series, start, interval, values in read_json(content, lambda *report: damage.append(report))
    ]
    return columns, damage


COLUMNS = [
    (Series((), "load", 60), START, 60, [1.5, None, -3.0]),
    (Series(("hwthread0",), "flops", 60), START, 60, [0.1, 1e300]),
    (Series(("hwthread0",), "ipc", 60), START, 60, [7.0]),
    (Series(("socket0", "dimm0"), "mem_bw", 60), START, 60, [1.0, 2.0, 3.0, 4.0]),
    (Series(("ü",), "power", 2), START + 1, 2, [5.0, 6.0]),
]


def test_all_columns_are_read():
    assert read(json_bytes(HOST)) == (COLUMNS, [])


def test_members_may_come_in_any_order_and_with_unknown_ones_between():
    reordered = {"children": HOST["children"], "x": [{"y": None}], "metrics": HOST["metrics"]}
    columns, damage = read(json.dumps(reordered, ensure_ascii=False, indent=1).encode())
    assert (sorted(columns), damage) == (sorted(COLUMNS), [])


@pytest.mark.parametrize("empty", [b"{}", b'{"metrics": null, "children": null}', b' {"metrics":{},"children":{}}\n'])
def test_a_host_may_have_nothing(empty):
    assert read(empty) == ([], [])


def test_a_metric_without_values_is_an_empty_column():
    content = b'{"metrics": {"a": {"frequency": 1, "start": 2}, "b": {"frequency": 1, "start": 2, "data": null}}}'
    assert [column[3] for column in read(content)[0]] == [[], []]


@pytest.mark.parametrize(
    "broken",
    [
        metric([1], frequency=0),
        metric([1], frequency=-60),
        metric([1], start=-1),
        metric([1], start=1 << 62),
        metric([1, 2, 3], frequency=1 << 60),
        metric(["1"]),
        metric([1], start="1"),
        metric([1], start=1 << 70),
        metric([[1]]),
        {"start": 1, "data": [1]},
    ],
    ids=str,
)
def test_a_metric_that_breaks_a_rule_costs_only_itself(broken):
    columns, damage = read(json_bytes(level({"a": [1], "load": broken, "z": [2]})))
    assert [column[0].metric for column in columns] == ["a", "z"]
    assert len(damage) == 1
    assert "load" in damage[0][2]


def test_levels_beyond_any_tree_are_not_followed():
    host = level({"load": [1]})
    for _ in range(20):
        host = level({"load": [1]}, {"below": host})
    columns, damage = read(json_bytes(host))
    assert 0 < len(columns) < 20
    assert len(damage) == 1


@pytest.mark.parametrize("nested", [b"[" * 100_000, b'{"children":{"a":' * 100_000])
def test_absurd_nesting_is_damage(nested):
    columns, damage = read(b'{"metrics":{"load":{"frequency":60,"start":0,"data":[1]}},"x":' + nested)
    assert len(columns) == 1
    assert len(damage) == 1


@pytest.mark.parametrize("end", range(len(json_bytes(HOST))))
def test_of_a_file_that_was_cut_off_all_that_is_whole_is_read(end):
    content = json_bytes(HOST)
    columns, damage = read(content[:end])
    n_whole = content[:end].count(b"]}")
    assert columns == COLUMNS[:n_whole]
    [(offset, length, what)] = damage
    assert 0 <= offset <= end
    assert offset + length == end
    assert what


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_a_flipped_byte_costs_nothing_in_front_of_it(mask):
    content = json_bytes(HOST)
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= mask
        columns, damage = read(bytes(flipped))
        n_before = content[:at].count(b"]}")
        assert columns[:n_before] == COLUMNS[:n_before], at
        assert all(0 <= offset <= offset + length <= len(content) for offset, length, _ in damage)


def test_a_flipped_byte_among_values_costs_one_metric():
    content = json_bytes(HOST)
    at = content.index(b"0.1")
    columns, [(offset, length, what)] = read(content[:at] + b"x" + content[at + 1 :])
    assert columns == [COLUMNS[0], *COLUMNS[2:]]
    assert offset <= at < offset + length
    assert "flops" in what


def test_names_that_are_no_text_are_kept_apart_from_those_that_are():
    content = json_bytes(HOST).replace(b"hwthread0", b"hwthread\xff")
    columns, damage = read(content)
    assert {column[0].path for column in columns} >= {(), ("hwthread\udcff",), ("socket0", "dimm0")}
    assert damage == []


@pytest.mark.parametrize("garbage", [b"", b"null", b"[]", b"\x00\xff", b"{} {}", b'{"metrics": 3}'])
def test_something_else_is_reported(garbage):
    columns, damage = read(garbage)
    assert columns == []
    assert len(damage) == 1
