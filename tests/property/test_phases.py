"""Collectors that restart out of step, or whose clock drifts: where their samples end up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

START = 1_700_000_000
INTERVAL = 60
FOREVER = 1 << 61

# The time of a sample is its value: what an answer gives for a time can be compared with that time.


def filled(times):
    store = Store([Metric("m", INTERVAL)], series_max=10, open_window_bytes=16 * TILE_BYTES)
    send(store, times)
    return store


def send(store, times):
    series = store.series_id(0, ("c", "h"))
    ids, times = np.full(len(times), series, np.int32), np.array(times, np.int64)
    stored, _ = store.append(ids, times, times.astype(float), oldest=-FOREVER, newest=FOREVER)
    assert stored == len(times)


def answer(store, start=-FOREVER, end=FOREVER):
    reader, table = store.reader(), store.tables[0]
    span = reader.span(table, store.group(0, ("c", "h")), start, end)
    return span.start, reader.values(table, span, None)


def largest_error(store, start=-FOREVER, end=FOREVER):
    """By how many seconds a value is off the time it is given for, at most."""
    start, values = answer(store, start, end)
    errors = np.abs(values - (start + INTERVAL * np.arange(len(values))))
    return np.nanmax(errors)


def kept(store):
    _, values = answer(store)
    return int(np.isfinite(values).sum())


@pytest.mark.parametrize("period", [59.5, 59.9, 59.95, 60.0, 60.05, 60.1, 60.5])
def test_a_drifting_clock_stays_within_two_intervals(period):
    times = [START + round(k * period) for k in range(20_000)]
    store = filled(times)
    assert largest_error(store) <= 2.5 * INTERVAL
    # More samples than slots when the clock is fast: so many have to share one.
    slots = (times[-1] - times[0]) / INTERVAL
    assert kept(store) >= min(len(times), slots) - 0.01 * len(times)


@pytest.mark.parametrize("period", [59.95, 60.05])
def test_sending_a_drifting_history_again_keeps_it(period):
    times = [START + round(k * period) for k in range(20_000)]
    store = filled(times)
    before = kept(store)
    send(store, times)
    assert kept(store) >= before - 0.002 * len(times)


@settings(max_examples=100, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(10, 700), st.integers(61, 4000), st.integers(0, 3)), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
)
def test_restarts_keep_times_within_two_intervals_and_lose_little(runs, seed):
    """Each run of samples is in step with itself, but for jitter; the next one begins at any second."""
    rng, times, now = np.random.default_rng(seed), [], START
    for samples, pause, jitter in runs:
        times += [now + INTERVAL * k + int(rng.integers(-jitter, jitter + 1)) for k in range(samples)]
        now += INTERVAL * samples + pause
    times = sorted(set(times))
    store = filled(times)
    assert largest_error(store) <= 2.5 * INTERVAL
    # Until the next window begins, samples right on a slot's border may take each other's place.
    worst = sum(min(samples, 256) for samples, _, jitter in runs if jitter) // 2 + 2 * len(runs)
    assert kept(store) >= len(times) - worst


def test_a_range_in_one_phase_begins_with_the_nearest_slot():
    times = [START + INTERVAL * k for k in range(1000)] + [START + INTERVAL * (1000 + k) + 25 for k in range(1000)]
    store = filled(times)
    recent = START + INTERVAL * 1600
    for offset in range(0, 120, 7):
        start, values = answer(store, recent + offset, recent + offset + 600)
        assert abs(values[0] - start) <= INTERVAL // 2
        assert len(values) == 10
