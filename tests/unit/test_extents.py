"""What the store says of its series: which there are, and where they begin and end."""

import numpy as np
import pytest

from ccms_server import extents
from ccms_server.errors import NotFoundError
from ccms_server.extents import series_extents
from ccms_server.model import SeriesExtent
from ccms_server.store.layout import WINDOW_SLOTS
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

START = 1_700_000_000
FOREVER = 1 << 61
METRICS = [Metric("load", 60), Metric("flops", 10, Aggregation.SUM), Metric("odd", 7)]
HOST = ("alpha", "n1")


def store_of(metrics=METRICS, **options):
    return Store(metrics, series_max=10_000, open_window_bytes=256 * TILE_BYTES, **options)


@pytest.fixture
def store():
    return store_of()


def append(store, metric, path, times, *, number=None):
    number = store.metric_id(metric) if number is None else number
    ids = np.full(len(times), store.series_id(number, path), np.int32)
    store.append(ids, np.array(times, np.int64), np.ones(len(times)), oldest=-FOREVER, newest=FOREVER)


def all_of(store, path=()):
    return [extent for chunk in series_extents(store, path) for extent in chunk]


def test_a_series_spans_from_its_first_slot_to_its_last_one(store):
    append(store, "load", HOST, [START, START + 600])
    append(store, "odd", HOST, [START + 3])
    assert all_of(store) == [
        SeriesExtent(HOST, "load", START - 30, 11, 60),
        SeriesExtent(HOST, "odd", START, 1, 7),
    ]
    assert all_of(store)[0].end == START - 30 + 660


def test_a_level_comes_before_those_below_it_and_metrics_in_order(store):
    append(store, "load", ("beta", "n9"), [START])
    append(store, "flops", (*HOST, "socket0", "part0"), [START])
    append(store, "flops", (*HOST, "socket0"), [START])
    append(store, "flops", HOST, [START])
    append(store, "load", HOST, [START])
    found = [(extent.path, extent.metric) for extent in all_of(store)]
    assert found == [
        (("beta", "n9"), "load"),
        (HOST, "load"),
        (HOST, "flops"),
        ((*HOST, "socket0"), "flops"),
        ((*HOST, "socket0", "part0"), "flops"),
    ]
    assert [(extent.path, extent.metric) for extent in all_of(store, (*HOST, "socket0"))] == found[3:]
    assert all_of(store, ["beta"]) == all_of(store)[:1]


@pytest.mark.parametrize("path", [("gamma",), ("alpha", "n2"), (*HOST, "socket0"), (*HOST, "a", "b", "c")])
def test_a_level_that_does_not_exist_is_not_found(store, path):
    append(store, "load", HOST, [START])
    with pytest.raises(NotFoundError, match=path[-1]):
        series_extents(store, path)
    assert store.tree.find(path) is None


def test_what_was_freed_is_not_there(store):
    append(store, "load", HOST, [START, START + 60, START + 120])
    store.free(HOST, START + 60)
    assert all_of(store) == [SeriesExtent(HOST, "load", START + 30, 2, 60)]
    store.free(HOST, START + 6000)
    assert all_of(store) == []
    append(store, "load", HOST, [START + 240])
    assert all_of(store) == [SeriesExtent(HOST, "load", START + 210, 1, 60)]


def test_dropped_windows_shorten_a_series(store):
    append(store, "load", HOST, range(START, START + 3 * WINDOW_SLOTS * 60, 60))
    for _ in store.maintain(oldest=START + 2 * WINDOW_SLOTS * 60):
        pass
    [extent] = all_of(store)
    assert extent.start > START
    assert extent.end == START - 30 + 3 * WINDOW_SLOTS * 60


def test_a_series_whose_windows_differ_in_phase_begins_and_ends_at_its_samples(store):
    later = START + 2 * WINDOW_SLOTS * 60 + 25
    append(store, "load", HOST, [START, START + 60])
    append(store, "load", HOST, range(later, later + 600, 60))
    [extent] = all_of(store)
    assert extent.start == START - 30
    assert abs(extent.end - (later + 540 + 30)) <= 30


def test_metrics_that_are_no_longer_configured_are_not_shown():
    store = store_of([Metric("load", 60), Metric("gone", 60), Metric("load", 10)], retired=[0, 1])
    for number in range(3):
        append(store, "", HOST, [START], number=number)
    assert all_of(store) == [SeriesExtent(HOST, "load", START - 5, 1, 10)]


def test_chunks_are_bounded_and_together_complete(store, monkeypatch):
    monkeypatch.setattr(extents, "CHUNK_SERIES", 8)
    for number in range(50):
        append(store, "load", ("alpha", f"n{number}"), [START])
    chunks = list(series_extents(store, ()))
    assert max(map(len, chunks)) <= 8
    assert [extent.path[1] for chunk in chunks for extent in chunk] == [f"n{number}" for number in range(50)]


def test_the_tree_may_grow_during_a_walk(store, monkeypatch):
    monkeypatch.setattr(extents, "CHUNK_SERIES", 1)
    for number in range(3):
        append(store, "load", ("alpha", f"n{number}"), [START])
    walk = series_extents(store, ())
    found = next(walk)
    for number in range(2000):  # the columns of the series grow by copying, too
        append(store, "load", ("alpha", "n2", f"hwthread{number}"), [START])
        append(store, "load", (f"cluster{number}", "n1"), [START])
    found += [extent for chunk in walk for extent in chunk]
    assert {("alpha", f"n{number}") for number in range(3)} <= {extent.path for extent in found}
    assert len({extent.path for extent in found}) == len(found)
