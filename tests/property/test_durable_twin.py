"""A store in memory and one in a directory get the same samples: out of step, drifting, late. They answer the same."""

import os
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers.durable import DurableStore
from hypothesis import given, settings
from hypothesis import strategies as st

from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

INTERVAL = 60
START = 1_700_000_000
FOREVER = 1 << 61
PATHS = [("c", "h", f"hwthread{thread}") for thread in range(9)]
SHARED = 6
"""Series that always send together."""

runs = st.tuples(
    st.integers(0, 3),  # who sends: SHARED series together, or another one
    st.integers(1, 300),  # samples
    st.integers(-400, 400),  # minutes from the latest sample on; back in time: late ones
    st.integers(0, 59),  # seconds: the phase
    st.integers(0, 40),  # jitter
)
batches = st.tuples(st.lists(runs, min_size=1, max_size=3), st.sampled_from(["", "seal", "store", "restart", "kill"]))


class Twins:
    def __init__(self, scratch):
        self.scratch = scratch
        self.memory = Store([Metric("m", INTERVAL, Aggregation.SUM)], series_max=100, open_window_bytes=64 * TILE_BYTES)
        self.copies = 0
        self.open(scratch / "0")

    def open(self, directory):
        self.durable = DurableStore(directory, metrics={"m": {"frequency": INTERVAL, "aggregation": "sum"}})

    def send(self, paths, times, values):
        results = []
        for store, append in ((self.memory, self.memory.append), (self.durable.store, self.durable.append)):
            ids = np.repeat(np.array([store.series_id(0, path) for path in paths], np.int32), len(times))
            columns = np.tile(np.array(times, np.int64), len(paths)), np.tile(np.array(values, float), len(paths))
            results.append(append(ids, *columns, oldest=-FOREVER, newest=FOREVER))
        assert results[0][0] == results[1][0]
        np.testing.assert_array_equal(results[0][1], results[1][1])

    def do(self, what):
        if what == "seal":
            self.durable.store.seal_all()
        elif what == "store":
            self.durable.seal_and_store()
        elif what == "restart":
            self.durable.close()
            self.open(self.durable.directory)
        elif what == "kill":
            self.copies += 1
            left = self.durable.killed(self.scratch / f"killed{self.copies}")
            self.durable.close()
            self.open(left)
        # By how much the latest samples were off their slots is not logged: the one thing that a start may forget.
        memory, durable = self.memory._series, self.durable.store._series
        durable.columns.deviation[: memory.count] = memory.columns.deviation[: memory.count]

    def check(self, recent):
        for path, since in product([*PATHS, ("c", "h")], [-FOREVER, recent]):
            answers = []
            for store in (self.memory, self.durable.store):
                reader, table = store.reader(), store.tables[0]
                span = reader.span(table, store.group(0, path), since, FOREVER)
                host = store.tree.find(path) if len(path) == 2 else None
                answers.append((span.start, reader.values(table, span, host)))
            assert answers[0][0] == answers[1][0], path
            np.testing.assert_array_equal(answers[0][1], answers[1][1])


@pytest.fixture(scope="module", autouse=True)
def fast_disk():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):  # no power fails here
            patch.setattr(os, name, lambda descriptor: None)
        yield


@settings(max_examples=40, deadline=None)
@given(st.lists(batches, min_size=2, max_size=8), st.integers(0, 1000))
def test_twins_answer_the_same(batches, seed):
    with tempfile.TemporaryDirectory() as scratch:
        twins, rng, latest, value = Twins(Path(scratch)), np.random.default_rng(seed), START, 0
        for runs, what in batches:
            for who, n_samples, minutes, phase, jitter in runs:
                paths = PATHS[:SHARED] if who == 0 else [PATHS[SHARED - 1 + who]]
                begin = (latest // 60 + minutes) * 60 + phase
                times = [begin + INTERVAL * k + int(rng.integers(-jitter, jitter + 1)) for k in range(n_samples)]
                twins.send(paths, times, range(value, value + n_samples))
                latest, value = max(latest, times[-1]), value + n_samples
            twins.do(what)
            twins.check(latest - 100 * INTERVAL)
        twins.durable.close()


def in_step(window, first, count, seconds=0):
    begin = START // (256 * INTERVAL) * 256 * INTERVAL + 256 * INTERVAL * window
    return [begin + INTERVAL * slot + seconds for slot in range(first, first + count)]


def test_late_samples_that_are_stored_do_not_set_the_phase_of_now_back(tmp_path):
    twins = Twins(tmp_path)
    twins.send(PATHS[:1], in_step(0, 0, 10), range(10))
    for window in (1, 2):
        twins.send(PATHS[:1], in_step(window, 40, 10, 25), range(10))  # restarted, out of step
    twins.send(PATHS[:1], in_step(0, 12, 1), [99.0])
    twins.durable.seal_and_store()
    twins.do("restart")
    twins.send(PATHS[:1], in_step(3, 0, 10, 25), range(10))
    twins.check(in_step(3, 0, 1, 35)[0])
    twins.durable.close()
