"""Watches between the writer and their clients."""

import asyncio

import numpy as np
import pytest

from ccms_server import watches as module
from ccms_server.errors import LimitExceededError
from ccms_server.matcher import SeriesMatcher
from ccms_server.model import SeriesName
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES
from ccms_server.watches import Watches

NOW = 1_700_000_000 // 60 * 60


@pytest.fixture
def store():
    return Store([Metric("load", 60), Metric("power", 10)], series_max=10_000, open_window_bytes=500 * TILE_BYTES)


@pytest.fixture
def watches(store):
    return Watches(store)


def put(store, watches, *samples):
    """Stores samples (metric, host, time, value) as the writer does."""
    ids = [store.series_id(store.metric_id(metric), ("c", host)) for metric, host, _, _ in samples]
    times, values = [sample[2] for sample in samples], [sample[3] for sample in samples]
    placed, _ = store.place(np.array(ids, np.int32), np.array(times), np.array(values, float), oldest=0, newest=1 << 60)
    store.put(placed)
    watches.publish([placed])


def taken(watch):
    samples, missed = watch.take()
    if samples is None:
        return [], missed
    names = [watch.names[number] for number in samples.numbers.tolist()]
    rows = zip(names, samples.timestamps.tolist(), samples.values.tolist(), strict=True)
    return [(name.metric, name.host, time, value) for name, time, value in rows], missed


async def test_samples_of_series_that_appear_are_told_with_the_time_of_their_slot(store, watches):
    with watches.opened(SeriesMatcher.compile(hosts=["n*"]), 10, asyncio.Event()) as watch:
        put(store, watches, ("load", "n1", NOW, 1.0), ("power", "x", NOW, 2.0), ("power", "n2", NOW + 3, 3.0))
        put(store, watches, ("load", "n1", NOW + 70, 4.0))
        assert taken(watch) == (
            [("load", "n1", NOW, 1.0), ("power", "n2", NOW + 3, 3.0), ("load", "n1", NOW + 60, 4.0)],
            0,
        )
        assert taken(watch) == ([], 0)


async def test_series_that_were_there_before_are_watched_once_they_are_added(store, watches):
    put(store, watches, ("load", "n1", NOW, 1.0))
    with watches.opened(SeriesMatcher.compile(), 10, asyncio.Event()) as watch:
        put(store, watches, ("load", "n1", NOW, 2.0))
        watch.add(0, "load", ("c", "n1"))
        watch.add(0, "load", ("c", "n1"))
        put(store, watches, ("load", "n1", NOW, 3.0))
        assert taken(watch) == ([("load", "n1", NOW, 3.0)], 0)
        assert watch.names == [SeriesName("load", "c", "n1")]


async def test_a_client_is_woken_when_there_is_something_for_it(store, watches):
    arrived = asyncio.Event()
    with watches.opened(SeriesMatcher.compile(metrics=["load"]), 10, arrived):
        await asyncio.to_thread(put, store, watches, ("power", "n1", NOW, 1.0))
        await asyncio.sleep(0)
        assert not arrived.is_set()
        await asyncio.to_thread(put, store, watches, ("load", "n1", NOW, 1.0))
        async with asyncio.timeout(30):
            await arrived.wait()


async def test_what_a_slow_client_does_not_take_is_counted(store, watches, monkeypatch):
    monkeypatch.setattr(module, "SAMPLES_KEPT_MAX", 3)
    monkeypatch.setattr(module, "PIECE_SAMPLES", 1)
    with (
        watches.opened(SeriesMatcher.compile(), 10, asyncio.Event()) as slow,
        watches.opened(SeriesMatcher.compile(), 10, asyncio.Event()) as fast,
    ):
        put(store, watches, ("load", "n1", NOW, 1.0), ("load", "n1", NOW + 60, 2.0))
        assert len(taken(fast)[0]) == 2
        put(store, watches, ("load", "n1", NOW + 120, 3.0), ("load", "n1", NOW + 180, 4.0))
        assert taken(fast) == ([("load", "n1", NOW + 120, 3.0), ("load", "n1", NOW + 180, 4.0)], 0)
        put(store, watches, ("load", "n1", NOW + 240, 5.0))
        samples, missed = taken(slow)
        assert ([value for *_, value in samples], missed) == ([1.0, 2.0, 3.0], 2)
        put(store, watches, ("load", "n1", NOW + 300, 6.0))
        assert taken(slow) == ([("load", "n1", NOW + 300, 6.0)], 0)
    assert watches.missed == 2


async def test_more_series_than_may_be_watched_are_an_error(store, watches):
    with watches.opened(SeriesMatcher.compile(), 1, asyncio.Event()) as watch:
        put(store, watches, ("load", "n1", NOW, 1.0), ("load", "n2", NOW, 1.0))
        with pytest.raises(LimitExceededError, match="series in one watch"):
            watch.take()


async def test_series_beyond_those_known_so_far_are_watched(store, watches):
    with watches.opened(SeriesMatcher.compile(hosts=["n2999"]), 10, asyncio.Event()) as watch:
        put(store, watches, *[("load", f"n{number}", NOW, float(number)) for number in range(3000)])
        assert taken(watch) == ([("load", "n2999", NOW, 2999.0)], 0)


async def test_a_watch_that_was_closed_costs_nothing(store, watches):
    with watches.opened(SeriesMatcher.compile(), 10, asyncio.Event()) as watch:
        assert watches.count == 1
    assert watches.count == 0
    put(store, watches, ("load", "n1", NOW, 1.0))
    assert taken(watch) == ([], 0)


async def test_a_series_that_cannot_be_watched_costs_no_other(store, watches, monkeypatch, caplog):
    with watches.opened(SeriesMatcher.compile(hosts=["h"]), 10, asyncio.Event()) as watch:
        add = watch.add

        def fails_for_one(series, metric, path):
            if path[2] == "t1":
                raise MemoryError("no more")
            add(series, metric, path)

        monkeypatch.setattr(watch, "add", fails_for_one)
        store.host_series("c", "h", [(0, (f"t{thread}",)) for thread in range(3)])
        assert [name.component for name in watch.names] == ["t0", "t2"]
    assert "could not be shown" in caplog.text
