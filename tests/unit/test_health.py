"""Which metrics of a host arrive, by the rules of the predecessor."""

import numpy as np
import pytest

from ccms_server import health
from ccms_server.health import host_health
from ccms_server.model import HostHealth, MonitoringState
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

NOW = 1_700_000_000
FOREVER = 1 << 61
METRICS = [Metric("load", 60), Metric("flops", 10, Aggregation.SUM), Metric("gone", 60)]
HOST = ("alpha", "n1")


@pytest.fixture
def store():
    return Store(METRICS, series_max=1000, open_window_bytes=64 * TILE_BYTES, retired=[2])


def append(store, number, path, time):
    ids = np.array([store.series_id(number, path)], np.int32)
    store.append(ids, np.array([time]), np.ones(1), oldest=-FOREVER, newest=FOREVER)


def of(store, metrics, host="n1", oldest=-FOREVER):
    [[found]] = host_health(store, "alpha", [host], metrics, now=NOW, oldest=oldest)
    assert found.host == host
    return found


def state(found):
    return found.state, list(found.degraded), list(found.missing)


def test_a_host_is_fully_monitored_if_all_metrics_arrive(store):
    append(store, 0, HOST, NOW - 60)
    append(store, 1, (*HOST, "hwthread0"), NOW - 10)
    assert state(of(store, ["load", "flops"])) == (MonitoringState.FULL, [], [])


def test_it_is_partly_monitored_if_some_do(store):
    append(store, 0, HOST, NOW)
    append(store, 1, HOST, NOW - 1000)
    assert state(of(store, ["flops", "load"])) == (MonitoringState.PARTIAL, ["flops"], [])
    assert state(of(store, ["other", "load"])) == (MonitoringState.PARTIAL, [], ["other"])


def test_monitoring_has_failed_if_none_does(store):
    append(store, 0, HOST, NOW - 1000)
    assert state(of(store, ["load", "flops"])) == (MonitoringState.FAILED, ["load"], ["flops"])


def test_monitoring_of_an_unknown_host_has_failed(store):
    append(store, 0, HOST, NOW)
    assert of(store, ["load"], host="n2") == HostHealth(host="n2", known=False)
    assert of(store, [], host="n2").state is MonitoringState.FAILED
    assert store.tree.find(("alpha", "n2")) is None


def test_a_known_host_that_nothing_is_asked_of_is_fully_monitored(store):
    append(store, 0, HOST, NOW - 100_000)
    assert of(store, []).state is MonitoringState.FULL


@pytest.mark.parametrize(("age", "is_stale"), [(0, False), (330, False), (331, True), (-3000, False)])
def test_a_series_is_stale_five_intervals_after_its_last_slot_ended(store, age, is_stale):
    append(store, 0, HOST, NOW - age)
    found = of(store, ["load"])
    assert (list(found.degraded) == ["load"]) is is_stale
    assert (found.n_series, found.n_stale) == (1, int(is_stale))


def test_one_stale_component_degrades_a_metric(store):
    append(store, 1, (*HOST, "hwthread0"), NOW)
    append(store, 1, (*HOST, "hwthread1"), NOW - 1000)
    append(store, 1, HOST, NOW)
    found = of(store, ["flops"])
    assert state(found) == (MonitoringState.FAILED, ["flops"], [])
    assert (found.n_series, found.n_stale) == (3, 1)


def test_what_ended_before_the_retention_does_not_count(store):
    append(store, 1, (*HOST, "hwthread0"), NOW)
    append(store, 1, (*HOST, "hwthread1"), NOW - 1000)
    assert state(of(store, ["flops"], oldest=NOW - 900)) == (MonitoringState.FULL, [], [])
    assert of(store, ["flops"], oldest=NOW - 1000).n_stale == 1


def test_metrics_that_are_no_longer_configured_are_missing_and_not_counted(store):
    append(store, 2, HOST, NOW)
    found = of(store, ["gone"])
    assert state(found) == (MonitoringState.FAILED, [], ["gone"])
    assert found.n_series == 0


def test_answers_come_in_the_order_of_the_hosts_in_chunks(store, monkeypatch):
    monkeypatch.setattr(health, "CHUNK_SERIES", 4)
    hosts = [f"n{number}" for number in range(20)]
    for host in hosts:
        append(store, 0, ("alpha", host), NOW)
    chunks = list(host_health(store, "alpha", hosts[::-1], ["load"], now=NOW, oldest=-FOREVER))
    assert [found.host for chunk in chunks for found in chunk] == hosts[::-1]
    assert max(map(len, chunks)) == 2
