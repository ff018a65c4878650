"""Which series are selected, and in what order the tree is walked for them."""

from itertools import chain, islice
from time import process_time

import pytest

from ccms_server import matcher as matcher_module
from ccms_server.errors import InvalidRequestError, LimitExceededError
from ccms_server.matcher import (
    PATTERNS_MAX,
    WILDCARD_CHARACTERS_MAX,
    SeriesMatcher,
    matching_chunks,
)
from ccms_server.model import SeriesName
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES
from ccms_server.store.tree import Level

HOST = ("alpha", "n1")


def store_of(*series, metrics=("load", "flops"), retired=()):
    store = Store(
        [Metric(name, 60) for name in metrics], series_max=10_000, open_window_bytes=TILE_BYTES, retired=retired
    )
    for metric_id, *path in series:
        store.series_id(metric_id, tuple(path))
    return store


def matching_series(*args):
    return chain.from_iterable(matching_chunks(*args))


def named(store, found):
    return [SeriesName(store.tables[each.metric_id].metric.name, *each.path) for each in found]


@pytest.mark.parametrize(
    ("patterns", "path", "matches"),
    [
        ({}, HOST, True),
        ({}, (*HOST, "socket0", "disk1"), True),
        ({"clusters": ["alpha"]}, HOST, True),
        ({"clusters": ["beta", "alph?"]}, HOST, True),
        ({"clusters": ["Alpha"]}, HOST, False),
        ({"clusters": ["alph"]}, HOST, False),
        ({"hosts": ["n[0-9]"]}, HOST, True),
        ({"hosts": ["n[!0-9]"]}, HOST, False),
        ({"hosts": ["n[1"]}, ("alpha", "n[1"), True),
        ({"hosts": ["n[[]1]"]}, ("alpha", "n[1]"), True),
        ({"hosts": ["n.", "n+", "^n1$"]}, HOST, False),
        ({"components": [""]}, HOST, True),
        ({"components": [""]}, (*HOST, "socket0"), False),
        ({"components": ["*"]}, HOST, False),
        ({"components": ["*"]}, (*HOST, "socket0", "disk1"), True),
        ({"components": ["", "socket*"]}, HOST, True),
        ({"subcomponents": [""]}, (*HOST, "socket0"), True),
        ({"subcomponents": [""]}, (*HOST, "socket0", "disk1"), False),
        ({"subcomponents": ["disk?"]}, (*HOST, "socket0"), False),
        ({"subcomponents": ["disk?"]}, (*HOST, "socket0", "disk1"), True),
        ({"metrics": ["lo*"]}, HOST, True),
        ({"metrics": ["flops"]}, HOST, False),
        ({"clusters": ["alpha"], "metrics": ["flops"]}, HOST, False),
    ],
)
def test_a_series_is_selected_if_each_of_its_names_matches_a_pattern(patterns, path, matches):
    assert SeriesMatcher.compile(**patterns).matches(path, "load") is matches


def test_a_pattern_is_asked_once_for_a_name_that_many_hosts_have():
    selected = SeriesMatcher.compile(components=["socket*"])
    assert [selected.matches((*HOST, "socket0"), "load") for _ in range(3)] == [True] * 3
    assert [selected.matches((*HOST, "core0"), "load") for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("field", ["clusters", "hosts", "metrics"])
def test_an_empty_pattern_where_every_series_has_a_name_is_refused(field):
    with pytest.raises(InvalidRequestError, match="must not be empty") as refused:
        SeriesMatcher.compile(**{field: ["a", ""]})
    assert refused.value.field == f"matcher.{field}[1]"


def test_more_patterns_than_allowed_are_refused():
    half = [f"n{number}" for number in range(PATTERNS_MAX // 2)]
    SeriesMatcher.compile(hosts=half, metrics=half)
    with pytest.raises(LimitExceededError, match="1,025 exceed the limit of 1,024"):
        SeriesMatcher.compile(hosts=half, metrics=[*half, "one more"])


def test_wildcards_that_would_take_long_to_compile_are_refused():
    long_names = ["n" * 255] * PATTERNS_MAX
    SeriesMatcher.compile(hosts=long_names)
    with pytest.raises(LimitExceededError, match="characters of patterns with wildcards"):
        SeriesMatcher.compile(hosts=["*" * (WILDCARD_CHARACTERS_MAX + 1)])


def test_a_pattern_with_many_wildcards_takes_no_time():
    selected = SeriesMatcher.compile(hosts=["*a" * 100 + "b"])
    before = process_time()
    assert not selected.matches(("alpha", "a" * 255), "load")
    assert process_time() - before < 1


def test_series_come_in_order_of_names_those_of_a_level_first():
    store = store_of(
        (0, "beta", "n1"),
        (0, "alpha", "n2", "socket1"),
        (0, "alpha", "n2", "socket0", "disk0"),
        (0, "alpha", "n2", "socket0"),
        (0, "alpha", "n2"),
        (1, "alpha", "n2"),
        (1, "alpha", "n10"),
    )
    in_order = [
        SeriesName("flops", "alpha", "n10"),
        SeriesName("flops", "alpha", "n2"),
        SeriesName("load", "alpha", "n2"),
        SeriesName("load", "alpha", "n2", "socket0"),
        SeriesName("load", "alpha", "n2", "socket0", "disk0"),
        SeriesName("load", "alpha", "n2", "socket1"),
        SeriesName("load", "beta", "n1"),
    ]
    everything = SeriesMatcher.compile()
    assert named(store, matching_series(store, everything)) == in_order
    for position, last in enumerate(in_order):
        assert named(store, matching_series(store, everything, last)) == in_order[position + 1 :]


def test_a_walk_goes_on_behind_a_series_that_is_not_there():
    store = store_of((0, "alpha", "n1"), (0, "alpha", "n3"))
    found = matching_series(store, SeriesMatcher.compile(), SeriesName("load", "alpha", "n2", "socket0", "disk3"))
    assert named(store, found) == [SeriesName("load", "alpha", "n3")]


def test_series_of_retired_metrics_are_passed_over():
    store = store_of((0, *HOST), (1, *HOST), metrics=("load", "flops"), retired=[0])
    assert named(store, matching_series(store, SeriesMatcher.compile())) == [SeriesName("flops", *HOST)]


def test_names_without_wildcards_are_looked_up_and_nothing_else_is_visited():
    class Unwalkable(dict[str, Level]):
        def __iter__(self):
            raise AssertionError("all children were visited")

    store = store_of(*((0, "alpha", f"n{number}", "socket0") for number in range(10)))
    for level in (store.tree.root, store.tree.root.children["alpha"]):
        level.children = Unwalkable(level.children)
    selected = SeriesMatcher.compile(clusters=["alpha", "unknown"], hosts=["n7", "n3"])
    assert named(store, matching_series(store, selected)) == [
        SeriesName("load", "alpha", "n3", "socket0"),
        SeriesName("load", "alpha", "n7", "socket0"),
    ]


def test_a_walk_that_finds_nothing_can_be_given_up_soon(monkeypatch):
    monkeypatch.setattr(matcher_module, "STEPS_AT_ONCE", 8)
    store = store_of(*((0, "alpha", f"n{number}") for number in range(100)))
    assert list(islice(matching_chunks(store, SeriesMatcher.compile(hosts=["m*"])), 3)) == [[], [], []]
    assert list(islice(matching_chunks(store, SeriesMatcher.compile(metrics=["m*"])), 3)) == [[], [], []]
