"""Which series a request names, and what is refused before anything is read."""

import numpy as np
import pytest

from ccms_server.errors import LimitExceededError
from ccms_server.model import QueryRequest, SeriesErrorReason, SeriesQuery
from ccms_server.query import answers, plan
from ccms_server.store.cancellation import Cancellation, CancelledReadError
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

START = 1_700_000_000
FOREVER = 1 << 61


@pytest.fixture
def store():
    store = Store([Metric("flops", 60, Aggregation.SUM)], series_max=100, open_window_bytes=16 * TILE_BYTES)
    for thread in range(4):
        series = store.series_id(0, ("c", "h", f"hwthread{thread}"))
        times = START + 60 * np.arange(200)
        values = 10.0 * thread + np.arange(200)
        store.append(np.full(200, series, np.int32), times, values, oldest=-FOREVER, newest=FOREVER)
    return store


def ask(store, *queries, start=START, end=START + 12_000, points_max=10_000, series_max=100, **settings):
    request = QueryRequest(cluster="c", start=start, end=end, queries=queries, **settings)
    reader = store.reader()
    planned = plan(store, reader, request, points_max=points_max, series_max=series_max)
    return [one for chunk in answers(reader, planned, chunk_points=1000, chunk_series=3) for one in chunk]


def query(**settings):
    return SeriesQuery(**{"metric": "flops", "host": "h", **settings})


def test_one_answer_for_each_id_in_order(store):
    found = ask(store, query(type="hwthread", type_ids=("2", "9", "0")))
    assert [(one.series_index, one.component) for one in found] == [
        (0, "hwthread2"),
        (1, "hwthread9"),
        (2, "hwthread0"),
    ]
    assert [None if one.values is None else one.values[0] for one in found] == [20, None, 0]
    assert found[1].error.reason is SeriesErrorReason.NOT_FOUND


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"type": "node"},
        {"type": "node", "type_ids": ("0",)},
        {"type": "node", "type_ids": ("0",), "aggregate": True},
        {"type": "hwthread", "type_ids": ("0", "1", "2", "3", "1"), "aggregate": True},
    ],
)
def test_ways_to_ask_for_the_whole_host(store, settings):
    [one] = ask(store, query(**settings))
    assert one.values.tolist() == [60 + 4 * k for k in range(200)]
    assert (one.statistics.min, one.statistics.max, one.statistics.count) == (60, 60 + 4 * 199, 200)


def test_hosts_are_asked_metric_by_metric(store):
    store.series_id(0, ("c", "h2"))
    found = ask(store, query(type="hwthread", type_ids=("1",)), for_all_hosts=("flops", "nope"))
    assert [(one.query_index, one.host, one.metric) for one in found] == [
        (0, "h", "flops"),
        (1, "h", "flops"),
        (2, "h", "nope"),
        (3, "h2", "flops"),
        (4, "h2", "nope"),
    ]
    assert found[2].error.reason is SeriesErrorReason.UNKNOWN_METRIC
    assert found[3].error.reason is SeriesErrorReason.NOT_FOUND


def test_statistics_cover_all_samples_when_fewer_are_sent(store):
    [one] = ask(store, query(resolution=600))
    assert one.interval == 600
    assert len(one.values) == 20
    assert one.statistics.count == 200


def test_a_negative_factor_keeps_each_statistic_in_its_place(store):
    [one] = ask(store, query(type="hwthread", type_ids=("0",), scale_by=-2))
    assert one.values[1] == -2
    assert (one.statistics.min, one.statistics.max) == (0, -398)


def test_padding_of_downsampled_series_has_their_spacing(store):
    [one] = ask(store, query(resolution=600), start=START - 6000, with_padding=True)
    assert np.isnan(one.values[:10]).all()
    assert one.values[10] == 60
    assert len(one.values) == 30


@pytest.mark.parametrize(
    ("queries", "settings"),
    [
        ([query()], {"points_max": 199}),
        ([query()] * 101, {}),
        ([query(type="hwthread", type_ids=("0",) * 101)], {}),
        ([query(type="socket", type_ids=("0",) * 11, subtype="dimm", subtype_ids=("0",) * 10)], {}),
        ([query(type="socket", type_ids=("0",) * 11, subtype="dimm", subtype_ids=("0",) * 10, aggregate=True)], {}),
        ([query()], {"start": 0, "with_padding": True}),
        ([query()], {"start": -(1 << 62), "end": 1 << 62, "with_padding": True}),
        ([], {"for_all_hosts": ("flops",) * 101}),
    ],
)
def test_too_much_is_refused_before_it_is_read(store, queries, settings):
    with pytest.raises(LimitExceededError):
        ask(store, *queries, **settings)


def test_an_endless_range_holds_what_there_is(store):
    [one] = ask(store, query(), start=-(1 << 62), end=1 << 62)
    assert (one.start, one.end, len(one.values)) == (START, START + 12_000, 200)


def test_an_endless_range_of_samples_before_the_epoch(store):
    series = store.series_id(0, ("c", "old"))
    store.append(np.full(1, series, np.int32), np.array([-(10**10)]), np.ones(1), oldest=-FOREVER, newest=FOREVER)
    [one] = ask(store, query(host="old"), start=-(1 << 63), end=(1 << 63) - 1)
    assert (one.start, one.values.tolist()) == (-(10**10), [1])


def test_sums_beyond_the_largest_double_are_infinite(store):
    for thread in range(2):
        series = store.series_id(0, ("c", "huge", f"hwthread{thread}"))
        times, values = np.array([START, START + 60]), np.array([1.7e308, 1.0])
        store.append(np.full(2, series, np.int32), times, values, oldest=-FOREVER, newest=FOREVER)
    store.seal_all()
    [one] = ask(store, query(host="huge"))
    assert one.values.tolist() == [np.inf, 2]


def test_chunks_stay_small_when_they_are_mostly_padding(store):
    request = QueryRequest(
        cluster="c", start=START - 60 * 900, end=START + 60, queries=[query()] * 9, with_padding=True
    )
    reader = store.reader()
    planned = plan(store, reader, request, points_max=10_000, series_max=100)
    chunks = list(answers(reader, planned, chunk_points=1000, chunk_series=100))
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 2, 1]


def test_planning_ends_when_nobody_waits(store):
    cancellation, request = Cancellation(), QueryRequest(cluster="c", start=START, end=START + 60, queries=[query()])
    cancellation.is_set = True
    with pytest.raises(CancelledReadError):
        plan(store, store.reader(cancellation), request, points_max=100, series_max=100)
