"""Readers against the writer: what happens between a look-up and the read of what was found.

Two threads would meet so seldom that a test of them finds nothing. Here the writer's part is done at the worst moment,
on the same thread: right before a kernel reads what was looked up for it.
"""

import numpy as np
import pytest

from ccms_server.store import gather, read
from ccms_server.store.layout import SLOT_MIN, WINDOW_SLOTS
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

FOREVER = 1 << 61
HOST = ("c", "h")
N_SLOTS = 10
SUM, OTHER = 0, 1
OTHERS_VALUE, OTHERS_PHASE = 1e6, 7


@pytest.fixture
def store():
    metrics = [Metric("sum", 60, Aggregation.SUM), Metric("other", 60)]
    return Store(metrics, series_max=2000, open_window_bytes=64 * TILE_BYTES)


def append(store, metric_id, threads, times, value):
    """The same samples of some threads of the host."""
    for thread in threads:
        series = np.full(len(times), store.series_id(metric_id, (*HOST, f"t{thread}")), np.int32)
        store.append(series, np.array(times), np.full(len(times), value), oldest=-FOREVER, newest=FOREVER)


def slots(first=0, phase=0):
    return range(60 * first + phase, 60 * (first + N_SLOTS) + phase, 60)


def seal_and_use_again(store):
    """Seals all tiles, and has each of their places in the pool taken by the tile of another metric."""
    opened = store._pool.open_tiles
    store.seal_all()
    for window in range(100, 100 + opened):
        append(store, OTHER, range(64), slots(window * WINDOW_SLOTS, phase=OTHERS_PHASE), OTHERS_VALUE)
    assert store._pool.open_tiles == opened


def drop_all(store):
    """Drops all windows of the metric, as if the retention had passed."""
    store.drop(store.tables[SUM], list(store.tables[SUM].windows))


def before(monkeypatch, module, kernel, act):
    """Has something done right before the next call of a kernel, after its arguments were found."""
    run = getattr(module, kernel)

    def after_the_act(*arguments):
        monkeypatch.setattr(module, kernel, run)
        acted.append(kernel)
        act()
        run(*arguments)

    acted = []
    monkeypatch.setattr(module, kernel, after_the_act)
    return acted


def spans(store, start=0, end=60 * N_SLOTS):
    return store.reader().span(store.tables[SUM], store.group(SUM, HOST), start, end)


def values(store, span):
    return store.reader().values(store.tables[SUM], span, None)


# The rows of 8 threads are in one band, and read where they lie; of 70 threads those in the second band are copied.
@pytest.mark.parametrize(("kernel", "n_threads"), [("add_open", 8), ("copy_open", 70)])
def test_a_tile_that_is_sealed_and_used_again_before_it_is_read_is_read_where_it_is(
    store, monkeypatch, kernel, n_threads
):
    append(store, SUM, range(n_threads), slots(), 1.0)
    span = spans(store)
    acted = before(monkeypatch, gather, kernel, lambda: seal_and_use_again(store))
    assert values(store, span).tolist() == [n_threads] * N_SLOTS
    assert acted == [kernel]


@pytest.mark.parametrize(("kernel", "n_threads"), [("add_open", 8), ("copy_open", 70)])
def test_a_tile_that_is_dropped_and_used_again_before_it_is_read_holds_nothing(store, monkeypatch, kernel, n_threads):
    append(store, SUM, range(n_threads), slots(), 1.0)
    span = spans(store)

    def drop_and_use_again():
        drop_all(store)
        append(store, OTHER, range(64), slots(phase=OTHERS_PHASE), OTHERS_VALUE)

    acted = before(monkeypatch, gather, kernel, drop_and_use_again)
    assert np.isnan(values(store, span)).all()
    assert acted == [kernel]


def test_series_that_lost_all_samples_before_their_span_is_found_have_no_part_in_it(store, monkeypatch):
    append(store, SUM, [0], slots(), 1.0)
    append(store, SUM, [1], slots(5 * WINDOW_SLOTS), 2.0)
    old = [number for number in store.tables[SUM].windows if number < 5]
    acted = before(monkeypatch, read, "find_spans", lambda: store.drop(store.tables[SUM], old))
    span = spans(store, 0, 60 * 6 * WINDOW_SLOTS)
    assert acted == ["find_spans"]
    assert (span.start, span.n_slots) == (60 * 5 * WINDOW_SLOTS, N_SLOTS)
    assert values(store, span).tolist() == [2.0] * N_SLOTS


@pytest.mark.parametrize("end", [60 * N_SLOTS, FOREVER])
def test_a_group_that_lost_all_samples_before_its_span_is_found_has_an_empty_one(store, monkeypatch, end):
    append(store, SUM, [0, 1], slots(), 1.0)
    acted = before(monkeypatch, read, "find_spans", lambda: drop_all(store))
    span = spans(store, end=end)
    assert acted == ["find_spans"]
    assert (span.start, span.n_slots, len(span.members)) == (0, 0, 0)
    assert not len(values(store, span))


class ActingPool:
    """A pool of tiles that does something before it is looked into for the first time."""

    def __init__(self, pool, act):
        self._pool = pool
        self._act = act
        self.has_acted = False

    @property
    def columns(self):
        if not self.has_acted:
            self.has_acted = True
            self._act()
        return self._pool.columns


def two_phases(store):
    """Threads whose collector was restarted out of step, between two windows that are both open."""
    append(store, SUM, range(8), slots(), 1.0)
    append(store, SUM, range(8), slots(N_SLOTS, phase=25), 1.0)
    append(store, SUM, range(8), slots(3 * WINDOW_SLOTS, phase=25), 2.0)
    assert store._series.columns.rephased[:8].all()


def test_phases_of_a_tile_that_is_sealed_and_used_again_before_it_is_read_are_its_own(store):
    two_phases(store)
    reader = store.reader()
    reader._pool = pool = ActingPool(reader._pool, lambda: seal_and_use_again(store))
    group = store.group(SUM, HOST)
    assert reader._phases_if_present(store.tables[SUM], group, 0).tolist() == [0] * 8
    assert pool.has_acted
    assert reader._phases_if_present(store.tables[SUM], group, 3).tolist() == [25] * 8


def test_series_of_changing_phases_that_lost_all_samples_before_their_span_is_found(store, monkeypatch):
    two_phases(store)
    acted = before(monkeypatch, read, "find_spans", lambda: drop_all(store))
    span = spans(store)
    assert acted == ["find_spans"]
    assert (span.start, span.n_slots, len(span.members)) == (0, 0, 0)


def test_a_reader_goes_on_with_the_series_it_knew_when_more_are_registered(store, monkeypatch):
    append(store, SUM, range(8), slots(), 1.0)
    columns = store._series.columns
    acted = before(monkeypatch, read, "find_spans", lambda: append(store, OTHER, range(1100), slots(), OTHERS_VALUE))
    assert values(store, spans(store)).tolist() == [8.0] * N_SLOTS
    assert acted == ["find_spans"]
    assert store._series.columns is not columns
    assert columns.last_slot[0] != SLOT_MIN
