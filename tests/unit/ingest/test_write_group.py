"""Batches that are stored together, without a thread."""

import pytest

from ccms_server.durability.keeper import MemoryKeeper
from ccms_server.durability.known_writes import NameKind, WriteId
from ccms_server.errors import SequenceGapError
from ccms_server.ingest.batches import LineBatch
from ccms_server.ingest.placing import Placer
from ccms_server.ingest.write_group import WriteGroup
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES
from ccms_server.watches import Watches

NOW = 1_700_000_000


@pytest.fixture
def store():
    return Store([Metric("load", 60)], series_max=100, open_window_bytes=16 * TILE_BYTES)


@pytest.fixture
def group(store):
    placer = Placer(store, retention_seconds=3600, future_seconds=3600, line_bytes=65536)
    return WriteGroup(MemoryKeeper(store), Watches(store), placer, NOW)


def batch(host, time=NOW):
    return LineBatch(b"load,hostname=%b value=1 %d\n" % (host, time), "c")


def number(count):
    return WriteId(NameKind.STREAM, "s", count)


def test_nothing_is_stored_before_all_is(group, store):
    group.add(batch(b"a"), None)
    group.add(batch(b"b"), None)
    assert store.size().samples_open == 0
    group.put()
    assert store.size().samples_open == 2
    assert [outcome.stored for outcome in group.outcomes] == [1, 1]


def test_a_write_that_comes_twice_is_stored_once(group, store):
    for _ in range(2):
        group.add(batch(b"a"), number(1))
    assert store.size().samples_open == 1, "the first one is stored to find out"
    assert [outcome.already_stored for outcome in group.outcomes] == [False, True]


def test_a_write_out_of_turn_has_no_outcome(group):
    group.add(batch(b"a"), number(1))
    with pytest.raises(SequenceGapError):
        group.add(batch(b"a"), number(3))
    assert len(group.outcomes) == 1


def test_a_batch_that_cannot_be_placed_costs_those_of_its_name_behind_it(group, store, monkeypatch):
    place = store.place

    def fails_for_some(series, timestamps, values, **bounds):
        if NOW + 60 in timestamps:
            raise MemoryError("no more")
        return place(series, timestamps, values, **bounds)

    monkeypatch.setattr(store, "place", fails_for_some)
    group.add(batch(b"a"), number(1))
    group.add(batch(b"a", NOW + 60), number(2))
    group.add(batch(b"a", NOW + 120), number(3))
    group.add(batch(b"b"), None)
    group.put()
    first, second, third, other = group.outcomes
    assert (first.stored, other.stored) == (1, 1)
    assert isinstance(second, MemoryError)
    assert isinstance(third, SequenceGapError)
