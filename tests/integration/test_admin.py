"""`AdminService` over real sockets."""

import asyncio

import pytest
from grpc import StatusCode, aio
from helpers.launch import served
from helpers.server import server_inside

from ccms.v1 import admin_service_pb2 as admin_pb
from ccms.v1.admin_service_pb2_grpc import AdminServiceStub
from ccms_client import InvalidRequestError, SeriesQuery, ServerBusyError
from ccms_server.durability import block_job
from ccms_server.rpc import admin

START = 1_700_000_040
METRICS = {"load": {"frequency": 60}, "power": {"frequency": 10}}


def lines(*hosts, minutes=3):
    return "".join(
        f"load,cluster=alpha,hostname={host} value={minute} {START + 60 * minute}\n"
        for host in hosts
        for minute in range(minutes)
    ).encode()


@pytest.fixture
async def server():
    async with server_inside(metrics=METRICS, clock=lambda: float(START + 600)) as running:
        await running.grpc.write_lines(lines("n1", "n2"))
        yield running


@pytest.fixture
async def stub(server):
    async with aio.insecure_channel(server.grpc_address) as channel:
        yield AdminServiceStub(channel)


async def test_samples_are_freed_at_several_levels_once(server):
    assert await server.grpc.free([["alpha", "n1"], ["alpha"], ["alpha", "n1"], ["none"]], START + 60) == 2
    assert [(extent.key.host, extent.slot_count) async for extent in server.grpc.dump(["alpha"])] == [
        ("n1", 2),
        ("n2", 2),
    ]
    assert await server.grpc.free([[]], START + 6000) == 2


async def test_requests_to_free_that_break_a_rule_are_refused(server):
    with pytest.raises(InvalidRequestError, match="levels: is required"):
        await server.grpc.free([], START)
    with pytest.raises(InvalidRequestError, match=r"levels\[1\]: has 5 names"):
        await server.grpc.free([["alpha"], ["a", "b", "c", "d", "e"]], START)
    with pytest.raises(InvalidRequestError, match="10,001 exceed the limit") as raised:
        await server.grpc.free([["alpha"]] * 10_001, START)
    assert (raised.value.reason, raised.value.metadata["limit"]) == ("LIMIT_EXCEEDED", "10000")
    assert len([extent async for extent in server.grpc.dump()]) == 2


async def test_a_dump_comes_in_parts(server, stub):
    await server.grpc.write_lines(lines(*[f"m{number}" for number in range(3000)], minutes=1))
    sizes = [len(response.series) async for response in stub.Dump(admin_pb.DumpRequest())]
    assert sum(sizes) == 3002
    assert max(sizes) <= 1024
    with pytest.raises(InvalidRequestError, match="level: has 5 names"):
        await anext(server.grpc.dump(["a", "b", "c", "d", "e"]))


async def test_the_health_of_all_hosts(server):
    assert [(host.host, host.state, host.missing_metrics) for host in await server.grpc.host_health("alpha")] == [
        ("n1", "FULL", []),
        ("n2", "FULL", []),
    ]
    [known, unknown] = await server.grpc.host_health("alpha", ["n2", "n9"], ["load", "power"])
    assert (known.state, known.degraded_metrics, known.missing_metrics) == ("FAILED", ["load"], ["power"])
    assert (known.series_count, known.stale_series_count) == (1, 1)
    assert (unknown.known, unknown.state) == (False, "FAILED")


async def test_health_has_limits(server):
    with pytest.raises(InvalidRequestError, match="cluster: is required"):
        await server.grpc.host_health("")
    with pytest.raises(InvalidRequestError, match="hosts in one request: 100,001"):
        await server.grpc.host_health("alpha", ["n"] * 100_001)
    with pytest.raises(InvalidRequestError, match="bytes in the answer, at worst: 33,9"):
        await server.grpc.host_health("alpha", ["n"] * 2000, [f"m{number:0150}" for number in range(110)])


async def test_an_answer_about_hosts_is_no_larger_than_it_was_taken_for(server, stub):
    metrics = [f"m{number:0200}" for number in range(100)]
    answer = await stub.GetHostHealth(admin_pb.GetHostHealthRequest(cluster="alpha", metrics=metrics))
    assert [len(host.missing_metrics) for host in answer.hosts] == [100, 100]
    assert answer.ByteSize() <= admin._health_bytes(["n1", "n2"], metrics)


async def test_the_status_of_a_server_that_keeps_samples_in_memory(server):
    await server.grpc.write_lines(b"load,hostname=n1 value=1\nnothing,cluster=alpha,hostname=n value=1\n")
    async with server.grpc.watch():
        status = await server.grpc.status()
    assert (status.holdings.series_count, status.holdings.open_sample_count) == (2, 6)
    assert status.holdings.series_max == 4_000_000
    assert (status.ingest.stored, status.ingest.ignored, status.ingest.rejected) == (6, 1, {"MISSING_CLUSTER": 1})
    assert (status.ingest.watch_count, status.ingest.missed_samples) == (1, 0)
    assert status.clock == START + 600
    assert status.resident_bytes > 1 << 20
    assert status.uptime_seconds > 0
    assert status.version
    assert status.disk is None


async def test_a_checkpoint_in_memory_seals_all(server):
    assert await server.grpc.checkpoint() is not None
    status = await server.grpc.status()
    assert (status.holdings.open_sample_count, status.holdings.sealed_sample_count) == (0, 6)
    await server.grpc.write_lines(lines("n1", minutes=4))
    [series] = await server.grpc.query("alpha", START, START + 600, [SeriesQuery(metric="load", host="n1")])
    assert series.values.tolist() == [0, 1, 2, 3]


async def test_a_checkpoint_puts_all_into_blocks_and_cuts_the_log(tmp_path):
    options = {"metrics": METRICS, "checkpoints": {"directory": str(tmp_path / "store")}}
    async with served(tmp_path, **options) as server:
        await server.grpc.write_lines(lines("n1", "n2", minutes=600))
        before = await server.grpc.status()
        assert (before.disk.block_count, before.disk.wal_segment_count) == (0, 1)
        done = await server.grpc.checkpoint(deadline_seconds=30)
        n_blocks = len(list(tmp_path.rglob("*.block")))
        assert (done.wal_bytes, done.block_count) == (0, n_blocks)
        assert n_blocks >= 3
        after = await server.grpc.status()
        assert (after.disk.wal_bytes, after.disk.wal_segment_count, after.disk.block_count) == (0, 0, n_blocks)
        assert after.disk.directory.startswith(str(tmp_path))
        await server.grpc.write_lines(lines("n3", minutes=1))  # the log goes on
        server.process.kill()
    async with served(tmp_path, **options) as server:
        assert f"3 series, {n_blocks} blocks, 1 samples from the WAL" in "".join(server.log)
        holdings = (await server.grpc.status()).holdings
        assert holdings.sealed_sample_count + holdings.open_sample_count == 1201


async def test_checkpoints_while_samples_arrive_cover_those_that_were_acknowledged(tmp_path):
    options = {"metrics": METRICS, "checkpoints": {"directory": str(tmp_path / "store")}}
    async with served(tmp_path, **options) as server:
        for round_ in range(5):
            await server.grpc.write_lines(lines(f"a{round_}", minutes=300))
            writing = asyncio.create_task(server.grpc.write_lines(lines(f"b{round_}", minutes=300)))
            checkpoints = [server.grpc.checkpoint(deadline_seconds=30) for _ in range(3)]
            await asyncio.gather(*checkpoints)
            await writing
        server.process.kill()
    async with served(tmp_path, **options) as server:
        assert sum([extent.slot_count async for extent in server.grpc.dump()]) == 2 * 5 * 300


async def test_a_disk_that_refuses_ends_a_checkpoint(tmp_path, monkeypatch):
    async with server_inside(metrics=METRICS, checkpoints={"directory": str(tmp_path)}) as server:
        await server.grpc.write_lines(lines("n1"))

        def refuse(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(block_job.BlockJob, "write", refuse)
        with pytest.raises(ServerBusyError, match="blocks cannot be written: No space left on device") as raised:
            await server.grpc.checkpoint(deadline_seconds=30)
        assert (raised.value.reason, raised.value.retry_after_seconds) == ("DISK_UNAVAILABLE", 5)
        assert (await server.grpc.status()).disk.troubles == ["blocks cannot be written: No space left on device"]
        monkeypatch.undo()
        assert (await server.grpc.checkpoint(deadline_seconds=30)).block_count == 1
        assert (await server.grpc.status()).disk.troubles == []


async def test_a_server_that_stops_ends_checkpoints(tmp_path, monkeypatch):
    async with server_inside(metrics=METRICS, checkpoints={"directory": str(tmp_path)}) as server:
        monkeypatch.setattr(server.service._writer._keeper, "is_checkpointed", lambda _: False)
        async with aio.insecure_channel(server.grpc_address) as channel:
            call = AdminServiceStub(channel).Checkpoint(admin_pb.CheckpointRequest())
            await server.grpc.status()
            server.stop.set()
            assert await call.code() in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
