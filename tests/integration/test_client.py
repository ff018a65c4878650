"""The client at the real server: reading, watching, the catalogue, administration."""

import asyncio
from datetime import UTC, datetime

import numpy as np
import pytest
from helpers.relay import relay_to
from helpers.server import server_inside
from helpers.waiting import eventually

from ccms_client import (
    AsyncClient,
    InvalidRequestError,
    NotFoundError,
    SampleColumn,
    SeriesKey,
    SeriesMatcher,
    SeriesQuery,
    ServerUnavailableError,
    queries_of,
)
from ccms_client.catalog import PAGE_SIZE

START, INTERVAL = 1_700_000_000 // 60 * 60, 60
METRICS = {
    "load": {"frequency": INTERVAL, "unit": "1"},
    "flops": {"frequency": 10 * INTERVAL, "aggregation": "sum"},
}
LONG = 40_000
"""Samples of a series that is answered in several parts."""


@pytest.fixture
async def server():
    async with server_inside(metrics=METRICS) as running:
        yield running


@pytest.fixture
async def client(server):
    return server.grpc


async def store(client, *keys, values=(1.0, 2.0)):
    async with client.writer() as writer:
        for key in keys:
            await writer.write(key, START + INTERVAL * np.arange(len(values)), values)


def key(host="n1", metric="load", cluster="alex", component="", subcomponent=""):
    return SeriesKey(metric, cluster, host, component, subcomponent)


async def test_ranges_may_be_datetimes(client):
    await store(client, key(), values=[1.0, 2.0, 3.0])
    start, end = (datetime.fromtimestamp(START + after, UTC) for after in (60, 120))
    [series] = await client.query("alex", start, end, queries_of(["load"], ["n1"]))
    assert series.values.tolist() == [2.0]


async def test_long_series_come_in_parts(client):
    values = np.random.default_rng(1).normal(size=LONG)
    await client.write([SampleColumn(metric="load", cluster="alex", host="n1", start=START, values=values)])
    queries = queries_of(["load", "nope"], ["n1"])
    parts = [part async for part in client.stream_parts("alex", START, START + INTERVAL * LONG, queries)]
    assert len(parts) > 3
    last = parts.pop()
    assert (last.offset, last.value_count, last.error.reason) == (0, 0, "UNKNOWN_METRIC")
    assert [part.offset for part in parts] == [0, *np.cumsum([part.values.size for part in parts])[:-1]]
    assert {part.value_count for part in parts} == {LONG}
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), values)
    times = np.concatenate([part.timestamps for part in parts])
    np.testing.assert_array_equal(times, START + INTERVAL * np.arange(LONG))
    [series, _] = await client.query("alex", START, START + INTERVAL * LONG, queries)
    np.testing.assert_array_equal(series.values, values)


async def test_a_watch_sees_what_is_stored_from_its_beginning_on(client):
    async with client.watch(SeriesMatcher(hosts=["n[12]"])) as watch:
        await store(client, key("n1"), key("n2", component="socket0"), key("n3"), values=[1.0, 2.0])
        seen = [sample for _ in range(1) for sample in await anext(watch)]
        while len(seen) < 4:
            seen += await anext(watch)
    assert [(*sample,) for sample in seen] == [
        (key("n1"), START, 1.0),
        (key("n1"), START + 60, 2.0),
        (key("n2", component="socket0"), START, 1.0),
        (key("n2", component="socket0"), START + 60, 2.0),
    ]


async def test_a_watch_ends_when_it_is_left(server, client):
    async with client.watch():
        await eventually(lambda: watches(client), "the watch to be counted")
    await eventually(lambda: no_watches(client), "the watch to end")


async def watches(client):
    return (await client.status()).ingest.watch_count == 1


async def no_watches(client):
    return (await client.status()).ingest.watch_count == 0


async def test_a_watch_that_is_iterated_over_without_a_context(client):
    watch = client.watch()
    following = asyncio.create_task(anext(watch))
    await eventually(lambda: watches(client), "the watch to begin")
    await store(client, key())
    samples = await following
    assert (samples.values[0], samples.missed) == (1.0, 0)
    await watch.aclose()
    await watch.aclose()


async def test_a_watch_that_the_server_refuses(client):
    with pytest.raises(InvalidRequestError):
        await client.watch(SeriesMatcher(hosts=["n*"] * 2000)).__aenter__()


async def test_a_watch_tells_that_the_connection_is_lost(server):
    async with (
        relay_to(server.grpc_address) as relay,
        AsyncClient(relay.address) as client,
        client.watch() as watch,
    ):
        following = asyncio.create_task(anext(watch))
        relay.cut()
        with pytest.raises(ServerUnavailableError):
            await following


async def test_a_watch_begins_once(client):
    async with client.watch() as watch:
        with pytest.raises(RuntimeError, match="begun already"):
            await watch.__aenter__()


async def test_levels_are_listed(client):
    await store(client, key(), key("n2", component="socket0", subcomponent="core1"), key(cluster="fritz"))
    assert [(each.name, each.host_count, each.samples) async for each in client.clusters()] == [
        ("alex", 2, None),
        ("fritz", 1, None),
    ]
    [n1, n2] = [each async for each in client.hosts("alex", with_samples=True)]
    assert (n1.name, n1.component_count, n2.component_count) == ("n1", 0, 1)
    assert (n1.samples.series_count, n1.samples.first_sample, n1.samples.last_sample) == (1, START, START + 60)
    assert [(each.name, each.subcomponent_count) async for each in client.components("alex", "n2")] == [("socket0", 1)]
    assert [each.name async for each in client.components("alex", "n2", "socket0")] == ["core1"]
    with pytest.raises(NotFoundError) as raised:
        await anext(client.hosts("nope"))
    assert raised.value.reason == "NOT_FOUND"


async def test_metrics_are_listed(client):
    await store(client, key())
    found = [(each.name, each.interval, each.aggregation, each.unit, each.samples) async for each in client.metrics()]
    assert found == [("flops", 600, "SUM", "", None), ("load", 60, "NONE", "1", None)]
    [load] = [each async for each in client.metrics("alex", "n1")]
    assert (load.name, load.samples.series_count) == ("load", 1)


async def test_lists_that_are_longer_than_a_page_are_complete(client):
    keys = [key(f"n{host:05}") for host in range(2 * PAGE_SIZE + 1)]
    await store(client, *keys, values=[1.0])
    assert [entry.key async for entry in client.series()] == keys
    assert [host.name async for host in client.hosts("alex")] == [each.host for each in keys]
    [last] = [entry async for entry in client.series(SeriesMatcher(hosts=["n02000"]))]
    assert (last.interval, last.first_sample, last.last_sample) == (60, START, START)


async def test_samples_are_freed_and_extents_told(client):
    await store(client, key(), key("n2", component="socket0"), values=[1.0] * 1000)
    assert await client.free([["alex", "n1"], ["nope"]], before=START + 600 * INTERVAL) == 1
    [n1, n2] = [extent async for extent in client.dump(["alex"])]
    assert (n1.key, n2.key) == (key(), key("n2", component="socket0"))
    assert n1.start > n2.start
    assert n1.end == n2.end == START + 1000 * INTERVAL - INTERVAL // 2
    assert [extent.key async for extent in client.dump()] == [n1.key, n2.key]
    with pytest.raises(NotFoundError):
        await anext(client.dump(["nope"]))


async def test_health_of_hosts(client):
    await store(client, key())
    [n1, n9] = await client.host_health("alex", ["n1", "n9"], ["load", "flops"])
    assert (n1.host, n1.known, n1.state) == ("n1", True, "FAILED")
    assert (n1.degraded_metrics, n1.missing_metrics) == (["load"], ["flops"])
    assert (n1.series_count, n1.stale_series_count) == (1, 1)
    assert (n9.known, n9.state) == (False, "FAILED")


async def test_a_checkpoint_and_the_status(tmp_path):
    async with server_inside(metrics=METRICS, checkpoints={"directory": str(tmp_path)}) as server:
        await store(server.grpc, key())
        left = await server.grpc.checkpoint()
        assert left.block_count == 1
        status = await server.grpc.status()
        assert status.disk.block_count == 1
        assert (status.holdings.series_count, status.ingest.stored) == (1, 2)
        assert status.ingest.rejected == {}
        assert status.version


@pytest.mark.parametrize(
    "misuse",
    [
        lambda client: client.free(["alex"], 0),
        lambda client: client.host_health("alex", "n1"),
        lambda client: anext(client.dump("alex")),
        lambda client: client.series(SeriesMatcher(hosts="n1")),
        lambda client: queries_of("load", ["n1"]),
    ],
)
async def test_text_where_a_list_belongs_is_told(client, misuse):
    with pytest.raises(TypeError, match="not a single one: write"):
        await misuse(client)


async def test_compression_makes_requests_and_answers_small(server):
    lines = b"".join(b"load,cluster=alex,hostname=n1 value=1 %d\n" % (START + 60 * minute) for minute in range(5000))
    query = [SeriesQuery(metric="load", host="n1")]
    async with relay_to(server.grpc_address) as relay, AsyncClient(relay.address, compression=True) as client:
        assert (await client.write_lines(lines)).stored == 5000
        assert relay.sent < len(lines) / 5
        [series] = await client.query("alex", START, START + 5000 * INTERVAL, query)
        assert series.values.size == 5000
        assert relay.received < series.values.nbytes / 5
