"""What may be read on the thread of the event loop."""

import numpy as np
import pytest

from ccms_server.store.cancellation import Cancellation
from ccms_server.store.gather import Sources
from ccms_server.store.layout import WINDOW_SLOTS
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.quick_read import QUICK_MEMBERS, QUICK_PAGES, NotQuickError
from ccms_server.store.span import IS_ALIGNED
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

FOREVER = 1 << 61
HOST = ("c", "h")
WINDOW_SECONDS = 60 * WINDOW_SLOTS


class Disk:
    """The tiles of a window as if they were in a block on disk; counts how often it is read."""

    def __init__(self, window):
        self._tiles, window.tiles = dict(window.tiles), {}
        self._known = {}
        self.n_reads = 0

    def tile(self, band):
        if band not in self._known:
            self.n_reads += 1
            self._known[band] = self._tiles.get(band)
        return self._known[band]

    def known_tile(self, band):
        return self._known.get(band)

    def aggregates(self, metric_id):
        self.n_reads += 1
        return {}

    def tile_counts(self):
        return {}


@pytest.fixture
def store():
    return Store([Metric("m", 60, Aggregation.SUM)], series_max=1000, open_window_bytes=64 * TILE_BYTES)


def append(store, n_threads, times):
    for thread in range(n_threads):
        series = np.full(len(times), store.series_id(0, (*HOST, f"t{thread}")), np.int32)
        store.append(series, np.array(times), np.ones(len(times)), oldest=-FOREVER, newest=FOREVER)


def put_on_disk(store):
    """Moves all windows to a disk."""
    store.seal_all()
    for window in store.tables[0].windows.values():
        window.stored, window.aggregates = Disk(window), None


def n_reads(store):
    return sum(window.stored.n_reads for window in store.tables[0].windows.values())


def sources(store, reader, start, end):
    """The spans of the host."""
    host = store.tree.find(HOST)
    spans = reader.spans([store.tables[0]], [store.group_at(0, host)], start, end)
    return Sources([store.tables[0]], [host], spans)


def is_quick(store, start=0, end=FOREVER):
    reader = store.quick_reader(Cancellation())
    try:
        reader.check(sources(store, reader, start, end))
    except NotQuickError:
        return False
    return True


def read(store):
    reader = store.reader()
    reader.read(sources(store, reader, 0, FOREVER))


@pytest.mark.parametrize("is_sealed", [False, True])
def test_one_series_over_two_days_is_quick(store, is_sealed):
    append(store, 1, range(0, 60 * 2880, 60))
    if is_sealed:
        store.seal_all()
    assert is_quick(store)


@pytest.mark.parametrize(("n_threads", "expected"), [(QUICK_MEMBERS, True), (QUICK_MEMBERS + 1, False)])
def test_many_members_are_not(store, n_threads, expected):
    append(store, n_threads, range(0, 600, 60))
    assert is_quick(store) is expected


def test_many_pages_are_not_unless_they_are_open(store):
    append(store, 4 * (QUICK_PAGES + 1), range(0, 600, 60))
    assert is_quick(store), "nothing is to be decompressed"
    store.seal_all()
    assert not is_quick(store)
    store.tables[0].windows[0].aggregates = {}  # so that the pages of the members are read
    read(store)
    assert is_quick(store)


def test_a_member_that_changed_its_phase_is_not(store):
    append(store, 1, range(0, 600, 60))
    append(store, 1, range(625, 1200, 60))
    assert is_quick(store)
    append(store, 1, range(WINDOW_SECONDS + 625, WINDOW_SECONDS + 1200, 60))
    assert not is_quick(store)


def test_members_out_of_step_are_not(store):
    append(store, 2, range(0, 600, 60))
    reader = store.quick_reader(Cancellation())
    shifted = sources(store, reader, 0, 600)
    reader.check(shifted)
    shifted.spans.table[0, IS_ALIGNED] = 0
    with pytest.raises(NotQuickError):
        reader.check(shifted)


def test_what_is_on_disk_is_not_until_it_was_read_and_is_not_touched_to_find_out(store):
    append(store, 1, range(0, 60 * 2 * WINDOW_SLOTS, 60))
    put_on_disk(store)
    assert not is_quick(store)
    assert n_reads(store) == 0
    read(store)
    assert n_reads(store) == 2
    assert is_quick(store)
    store._pages._entries.clear()
    assert not is_quick(store)


def test_a_host_whose_aggregates_are_on_disk_is_not(store):
    append(store, 8, range(0, 600, 60))
    put_on_disk(store)
    read(store)
    before = n_reads(store)
    assert not is_quick(store)
    assert n_reads(store) == before
