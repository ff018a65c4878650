"""Many spans read at once: each is what it is alone, bit by bit, and reading stops when nobody waits."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccms_server.store.cancellation import Cancellation, CancelledReadError
from ccms_server.store.gather import Sources, _runs_of_rows
from ccms_server.store.layout import WINDOW_SLOTS
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.span import Span, Spans
from ccms_server.store.store import Store
from ccms_server.store.table import MetricTable
from ccms_server.store.tile_pool import TILE_BYTES
from ccms_server.store.tree import Level

FOREVER = 1 << 61
BOUNDS_CHECKED = "NUMBA_BOUNDSCHECK"


class Source(NamedTuple):
    """What one series is read from."""

    table: MetricTable
    span: Span
    host: Level | None


def read(reader, sources):
    """Reads all at once; the values of each."""
    tables, spans, hosts = zip(*sources, strict=True)
    values, edges = reader.read(Sources(tables, hosts, Spans.of(spans)))
    return np.split(values, edges[1:-1])


METRICS = [Metric("sum", 60, Aggregation.SUM), Metric("avg", 60, Aggregation.AVG), Metric("other", 10, Aggregation.SUM)]
HOSTS, THREADS = 5, 20
SLOTS = 3 * WINDOW_SLOTS + 40


def filled(*, sealed):
    """Hosts with 1 to 20 threads, whose rows lie across bands; the phases of one host differ; there are gaps."""
    store = Store(METRICS, series_max=10_000, open_window_bytes=64 * TILE_BYTES)
    random = np.random.default_rng(1)
    for metric_id, metric in enumerate(METRICS):
        for host in range(HOSTS):
            for thread in range(1 + host * (THREADS - 1) // (HOSTS - 1)):
                series = store.series_id(metric_id, ("c", f"h{host}", f"hwthread{thread}"))
                times = (np.arange(SLOTS) + 10 * host) * metric.interval + (7 * thread if host == 2 else 0)
                values = np.where(random.random(SLOTS) < 0.01, np.nan, random.normal(0, 1e3, SLOTS))
                values[0], values[1] = 1.0, -0.0
                ids = np.full(SLOTS, series, np.int32)
                store.append(ids, times, values, oldest=-FOREVER, newest=FOREVER)
    if sealed:
        store.seal_all()
    return store


STORES = {sealed: filled(sealed=sealed) for sealed in (False, True)}
asked = st.lists(
    st.tuples(
        st.sampled_from(range(len(METRICS))),
        st.integers(0, HOSTS - 1),
        st.one_of(st.none(), st.integers(0, THREADS - 1)),
        st.integers(-10, SLOTS),
        st.integers(0, SLOTS + 100),
    ),
    min_size=1,
    max_size=12,
)


def sources(store, asked):
    reader = store.reader()
    for metric_id, host, thread, first, length in asked:
        table, path = store.tables[metric_id], ("c", f"h{host}")
        level = store.tree.find(path) if thread is None else None
        group = store.group(metric_id, path if thread is None else (*path, f"hwthread{thread}"))
        begin = first * table.metric.interval
        yield Source(table, reader.span(table, group, begin, begin + length * table.metric.interval), level)


def added_up(store, source):
    """The values of a source, one member after the other."""
    table, span, _ = source
    if len(span.members) == 1:
        return store.reader().values(table, span, None)
    total = np.zeros(span.n_slots)
    for member, slot in zip(span.members, span.first_slots, strict=True):
        one = span._replace(members=np.array([member], np.int32), first_slots=np.array([slot]), is_aligned=True)
        total += store.reader().values(table, one, None)
    return total / len(span.members) if table.metric.aggregation is Aggregation.AVG and len(span.members) else total


@pytest.mark.parametrize("sealed", [False, True])
@settings(deadline=None)
@given(asked=asked)
def test_each_is_the_same_as_alone_and_as_its_members_added_up(sealed, asked):
    store = STORES[sealed]
    wanted = list(sources(store, asked))
    together = read(store.reader(), wanted)
    assert [len(values) for values in together] == [source.span.n_slots for source in wanted]
    for source, values in zip(wanted, together, strict=True):
        alone = store.reader().values(source.table, source.span, source.host)
        np.testing.assert_array_equal(values.view(np.uint64), alone.view(np.uint64))
        np.testing.assert_array_equal(values, added_up(store, source))


def test_a_lone_series_keeps_its_bits():
    [source] = sources(STORES[True], [(0, 0, 0, 0, SLOTS)])
    values = read(STORES[True].reader(), [source])[0]
    assert (values[1], np.signbit(values[1])) == (0, True)


class EndsAt(Cancellation):
    """Is set when it is looked at for the n-th time."""

    def __init__(self, n):
        super().__init__()
        self.looks = 0
        self._n = n

    def check(self):
        self.looks += 1
        self.is_set = self.looks >= self._n
        super().check()


@pytest.mark.parametrize("host", [1, 2])
@pytest.mark.parametrize("windows", [1, 3])
def test_a_read_ends_at_the_window_at_which_it_is_cancelled(host, windows):
    """Whether the members have the same slots or not."""
    store, cancellation = STORES[True], EndsAt(windows)
    [source] = sources(store, [(0, host, None, 0, 2 * SLOTS)])
    assert source.span.is_aligned == (host == 1)
    with pytest.raises(CancelledReadError):
        read(store.reader(cancellation), [source])
    assert cancellation.looks == windows


def test_what_threads_share_of_aggregates_cannot_be_written_to():
    runs, lanes, pages = _runs_of_rows(((0, 1), (1, 9)))
    assert pages == 0b101
    assert _runs_of_rows(((0, 1), (1, 9)))[0] is runs
    for shared in (runs, lanes):
        with pytest.raises(ValueError, match="read-only"):
            shared[0] = 0


def test_the_second_read_of_the_same_windows_opens_no_pages():
    store = filled(sealed=True)
    wanted = list(sources(store, [(0, host, None, 0, SLOTS) for host in range(HOSTS)]))
    first = read(store.reader(), wanted)
    opened = store._pages.n_opened
    assert opened
    for values, again in zip(first, read(store.reader(), wanted), strict=True):
        np.testing.assert_array_equal(values, again)
    assert store._pages.n_opened == opened


@pytest.mark.skipif(BOUNDS_CHECKED in os.environ, reason="this is the process with bounds checking")
def test_with_bounds_checking(tmp_path):
    """Tests of reading in a process whose kernels are compiled with bounds checking: nothing is reached outside."""
    environment = os.environ | {BOUNDS_CHECKED: "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    tests = [__file__, str(Path(__file__).parents[1] / "test_query.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]

    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[3], capture_output=True, check=False)

    assert done.returncode == 0, done.stdout.decode()
