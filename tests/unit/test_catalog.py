"""What there is, page by page, and when its samples were taken."""

import numpy as np
import pytest

from ccms_server import catalog
from ccms_server.catalog import LevelEntry, MetricEntry, Page, SampleSpan, SeriesEntry
from ccms_server.errors import NotFoundError
from ccms_server.matcher import SeriesMatcher
from ccms_server.model import SeriesName
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

START = 1_700_000_040  # a slot's centre
FOREVER = 1 << 61
METRICS = [Metric("load", 60), Metric("flops", 10, Aggregation.SUM, "F/s"), Metric("odd", 7)]


def store_of(**options):
    return Store(METRICS, series_max=10_000, open_window_bytes=64 * TILE_BYTES, **options)


@pytest.fixture
def store():
    store = store_of()
    for metric, path, times in (
        ("load", ("beta", "n1"), [START]),
        ("load", ("alpha", "n2"), [START + 60, START + 600]),
        ("load", ("alpha", "n10"), [START]),
        ("flops", ("alpha", "n10", "socket1"), [START - 10]),
        ("flops", ("alpha", "n10", "socket0"), [START + 40]),
        ("odd", ("alpha", "n10", "socket0", "disk0"), [START + 3]),
    ):
        append(store, metric, path, times)
    return store


def append(store, metric, path, times):
    ids = np.full(len(times), store.series_id(store.metric_id(metric), path), np.int32)
    store.append(ids, np.array(times, np.int64), np.ones(len(times)), oldest=-FOREVER, newest=FOREVER)


def result(work):
    """What a generator returns in the end."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def levels(store, path=(), after="", size=10, with_samples=False):
    return result(catalog.list_levels(store, path, after, size, with_samples=with_samples))


def metrics(store, path=(), after="", size=10):
    return result(catalog.list_metrics(store, path, after, size))


def series(store, after=None, size=10, **patterns):
    return result(catalog.list_series(store, SeriesMatcher.compile(**patterns), after, size))


def test_levels_come_in_order_of_names_with_the_number_of_those_below(store):
    assert levels(store) == Page([LevelEntry("alpha", 2, None), LevelEntry("beta", 1, None)], False)
    assert levels(store, ["alpha"]) == Page([LevelEntry("n10", 2, None), LevelEntry("n2", 0, None)], False)
    assert levels(store, ["alpha", "n10"]).entries == [LevelEntry("socket0", 1, None), LevelEntry("socket1", 0, None)]
    assert levels(store, ["alpha", "n10", "socket0"]) == Page([LevelEntry("disk0", 0, None)], False)
    assert levels(store, ["alpha", "n2"]) == Page([], False)


def test_a_level_is_told_with_the_samples_of_all_below_it(store):
    assert levels(store, with_samples=True).entries == [
        LevelEntry("alpha", 2, SampleSpan(5, START - 10, START + 600)),
        LevelEntry("beta", 1, SampleSpan(1, START, START)),
    ]


def test_a_level_whose_samples_are_gone_is_still_there(store):
    store.free(("beta",), START + 1)
    assert levels(store, with_samples=True).entries[1] == LevelEntry("beta", 1, SampleSpan(0, 0, 0))
    assert [entry.name.path[0] for entry in series(store, clusters=["beta"]).entries] == []
    assert metrics(store, ["beta"]) == Page([], False)


def test_the_samples_of_a_metric_that_is_retired_do_not_count():
    retired = store_of(retired=[1])
    retired.series_id(1, ("alpha", "n1"))
    assert metrics(retired).entries == [MetricEntry(METRICS[0], None), MetricEntry(METRICS[2], None)]
    assert levels(retired, with_samples=True).entries == [LevelEntry("alpha", 1, SampleSpan(0, 0, 0))]


@pytest.mark.parametrize("path", [["gamma"], ["alpha", "n3"], ["alpha", "n2", "socket0"]])
def test_what_is_below_a_level_that_does_not_exist_cannot_be_told(store, path):
    with pytest.raises(NotFoundError, match=path[-1]):
        levels(store, path)
    with pytest.raises(NotFoundError, match=path[-1]):
        metrics(store, path)


def test_all_metrics_are_listed_or_those_with_samples(store):
    assert metrics(store) == Page(
        [MetricEntry(METRICS[1], None), MetricEntry(METRICS[0], None), MetricEntry(METRICS[2], None)], False
    )
    assert metrics(store, ["alpha"]).entries == [
        MetricEntry(METRICS[1], SampleSpan(2, START - 10, START + 40)),
        MetricEntry(METRICS[0], SampleSpan(2, START, START + 600)),
        MetricEntry(METRICS[2], SampleSpan(1, START + 3, START + 3)),
    ]
    assert metrics(store, ["alpha", "n2"]).entries == [MetricEntry(METRICS[0], SampleSpan(1, START + 60, START + 600))]


def test_series_are_listed_with_the_times_of_their_samples(store):
    assert series(store, clusters=["alpha"]).entries == [
        SeriesEntry(SeriesName("load", "alpha", "n10"), 60, START, START),
        SeriesEntry(SeriesName("flops", "alpha", "n10", "socket0"), 10, START + 40, START + 40),
        SeriesEntry(SeriesName("odd", "alpha", "n10", "socket0", "disk0"), 7, START + 3, START + 3),
        SeriesEntry(SeriesName("flops", "alpha", "n10", "socket1"), 10, START - 10, START - 10),
        SeriesEntry(SeriesName("load", "alpha", "n2"), 60, START + 60, START + 600),
    ]
    assert [entry.name.host for entry in series(store, metrics=["l*"], hosts=["n?"]).entries] == ["n2", "n1"]


def pages(list_page, last_of):
    """All entries, and the sizes of the pages they came in."""
    entries, sizes, after = [], [], None
    while True:
        page = list_page(after)
        entries += page.entries
        sizes.append(len(page.entries))
        if not page.has_more:
            return entries, sizes
        after = last_of(page.entries[-1])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7])
def test_pages_put_together_are_the_whole_list(store, size):
    found, sizes = pages(lambda after: series(store, after, size), lambda entry: entry.name)
    assert found == series(store).entries
    assert (set(sizes[:-1]) <= {size}, sum(sizes), min(sizes) > 0) == (True, 6, True)
    found, _ = pages(lambda after: metrics(store, (), after or "", size), lambda entry: entry.metric.name)
    assert found == metrics(store).entries
    found, _ = pages(lambda after: levels(store, (), after or "", size, True), lambda entry: entry.name)
    assert found == levels(store, with_samples=True).entries


def test_only_the_levels_of_the_page_are_looked_into(store, monkeypatch):
    walked, walk = [], catalog.walk
    monkeypatch.setattr(catalog, "walk", lambda store, level, path: walked.append(path) or walk(store, level, path))
    assert levels(store, ["alpha"], "", 1, True).has_more
    assert walked == [("alpha", "n10")]


def test_looking_at_many_series_pauses_on_the_way(store, monkeypatch):
    monkeypatch.setattr(catalog, "CHUNK_SERIES", 2)
    assert len(list(catalog.list_levels(store, (), "", 10, with_samples=True))) >= 3
    assert len(list(catalog.list_metrics(store, ["alpha"], "", 10))) >= 3
