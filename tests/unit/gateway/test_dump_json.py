"""The dump: valid JSON in the shape of the tree, however it is cut into chunks."""

import json

import pytest

from ccms_gateway.debug import selector_path
from ccms_gateway.dump_json import DumpEncoder, write_dump
from ccms_server.errors import InvalidRequestError
from ccms_server.model import SeriesExtent

EXTENTS = [
    SeriesExtent(("alpha", "n1"), "load", 100, 3, 60),
    SeriesExtent(("alpha", "n1"), 'a "quoted"\n\u00e9 metric', 100, 1, 10),
    SeriesExtent(("alpha", "n1", "socket0"), "load", 100, 1, 60),
    SeriesExtent(("alpha", "n1", "socket0", "part\\0"), "load", 100, 1, 60),
    SeriesExtent(("alpha", "n1", "socket1"), "load", 100, 1, 60),
    SeriesExtent(("alpha", "n2", "socket1"), "load", -50, 1, 60),
    SeriesExtent(("beta", "n2"), "load", 100, 1, 60),
]
ONE = [{"start": 100, "len": 1, "end": 160}]
TREE = {
    "alpha": {
        "n1": {
            "load": [{"start": 100, "len": 3, "end": 280}],
            'a "quoted"\n\u00e9 metric': [{"start": 100, "len": 1, "end": 110}],
            "socket0": {"load": ONE, "part\\0": {"load": ONE}},
            "socket1": {"load": ONE},
        },
        "n2": {"socket1": {"load": [{"start": -50, "len": 1, "end": 10}]}},
    },
    "beta": {"n2": {"load": ONE}},
}


def dump(chunks, depth=0):
    encoder = DumpEncoder(depth)
    return json.loads(b"".join(encoder.encode(chunk) for chunk in chunks) + encoder.finish())


@pytest.mark.parametrize("size", range(1, len(EXTENTS) + 1))
def test_levels_hold_levels_and_metrics(size):
    chunks = [EXTENTS[start : start + size] for start in range(0, len(EXTENTS), size)]
    assert dump(chunks) == {"data": TREE}
    assert dump([[], *chunks, []]) == {"data": TREE}


@pytest.mark.parametrize("chunks", [[], [[]]])
def test_without_series_there_is_no_level(chunks):
    assert dump(chunks) == {"data": {}}


def test_a_level_follows_a_metric_of_its_name():
    extents = [SeriesExtent(path, "load", 100, 1, 60) for path in (("a", "n"), ("a", "n", "load"), ("a", "o"))]
    encoder = DumpEncoder()
    text = encoder.encode(extents) + encoder.finish()
    metric = ("load", [list(ONE[0].items())])
    level = ("load", [metric])
    everything = [("data", [("a", [("n", [metric, level]), ("o", [metric])])])]
    assert json.loads(text, object_pairs_hook=list) == everything
    assert json.loads(text)["data"]["a"]["n"] == {"load": {"load": ONE}}


def test_what_is_selected_is_left_out():
    assert dump([EXTENTS[:5]], depth=1) == {"data": {"n1": TREE["alpha"]["n1"]}}
    assert dump([EXTENTS[:5]], depth=2) == {"data": TREE["alpha"]["n1"]}
    assert dump([EXTENTS[2:4]], depth=3) == {"data": TREE["alpha"]["n1"]["socket0"]}


def test_a_file_holds_the_same(tmp_path):
    path = tmp_path / "dump.json"
    path.write_text("what was there before, which is longer than the dump" * 100)
    write_dump(path, iter([EXTENTS[:3], EXTENTS[3:]]))
    assert json.loads(path.read_text()) == {"data": TREE}


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_dump(tmp_path / "nowhere" / "dump.json", [])


@pytest.mark.parametrize(
    ("selector", "path"),
    [
        ("", []),
        ("alpha", ["alpha"]),
        ("alpha:n1:socket0", ["alpha", "n1", "socket0"]),
        ('["alpha", "n1", "accelerator00000000:49:00.0"]', ["alpha", "n1", "accelerator00000000:49:00.0"]),
        ('["[alpha"]', ["[alpha"]),
        ("[]", []),
        ("alpha:", ["alpha", ""]),
    ],
)
def test_selectors_are_names_with_colons_between_them_or_a_json_list(selector, path):
    assert selector_path(selector) == path


@pytest.mark.parametrize("selector", ["[", "[1]", '["a", null]', '[["a"]]', "[alpha]", '["a"]x', "[" * 10_000])
def test_what_begins_like_a_list_and_is_none_is_refused(selector):
    with pytest.raises(InvalidRequestError, match="selector"):
        selector_path(selector)
