"""What a store on disk is for those who start, stop and watch it: real processes, and what they say."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import struct
from functools import partial

import numpy as np
import pytest
from crc32c import crc32c
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.launch import launched, served
from helpers.waiting import DEADLINE_SECONDS, eventually

from ccms_client import Component, SampleColumn, SeriesQuery, ServerUnavailableError

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
START = 1_699_999_744
METRICS = {"load": {"frequency": 1, "aggregation": "sum"}, "power": {"frequency": 10}}
HURRIED = ("helpers.crash_points", "--hurry", "0.02")
HELD = ("helpers.held_recovery",)


def options(directory, **checkpoints):
    return {"metrics": METRICS, "checkpoints": {"directory": str(directory), "wal-bytes": 1 << 20, **checkpoints}}


def line(value, number=0, host="n1"):
    return f"load,cluster=alex,hostname={host} value={value} {START + number}\n".encode()


def columns(number, n_samples=3000):
    """Eight threads of a host, for other times than other numbers."""
    values = np.random.default_rng(number).random((8, n_samples))
    return [
        SampleColumn(
            metric="load",
            cluster="alex",
            host="n1",
            component=Component("hwthread", str(thread)),
            start=START + number * n_samples,
            interval=1,
            values=values[thread],
        )
        for thread in range(8)
    ]


async def everything(server):
    """All answers there are: over gRPC, thread by thread and for the whole host, and over REST."""
    threads = [str(thread) for thread in range(8)]
    queries = [
        SeriesQuery(metric="load", host="n1", type="hwthread", type_ids=threads),
        SeriesQuery(metric="load", host="n1"),
        SeriesQuery(metric="load", host="n2"),
        SeriesQuery(metric="power", host="n1"),
    ]
    answers = await server.grpc.query("alex", START, START + 100_000, queries)
    rest = await server.rest.query(
        {"cluster": "alex", "from": START, "to": START + 600, "for-all-nodes": ["load", "power"], "with-stats": True}
    )
    assert rest.status == 200
    return [(answer.start, answer.values.tolist(), answer.error) for answer in answers], rest.json


async def health(address):
    async with aio.insecure_channel(address) as channel:
        return (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())).status


def fingerprint(directory):
    """All files below a directory, by path: their content and time of change; but for the lock."""
    return {
        str(path.relative_to(directory)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns if path.is_file() else 0,
        )
        for path in directory.rglob("*")
        if path.name != "lock"
    }


async def fill(directory):
    """Makes a directory with everything in it: segments, blocks, a state, the catalogue; returns the answers."""
    async with served(directory, module=HURRIED, **options(directory)) as server:
        for number in range(6):
            await server.grpc.write(columns(number))
        assert (await server.rest.write(line(1.5, host="n2"))).status == 200
        assert (await server.rest.write(b"power,cluster=alex,hostname=n1 value=7 %d\n" % (START + 3))).status == 200
        state = directory / "cc-metric-store" / "state"
        await eventually(lambda: state.exists() and list(directory.rglob("*.block")), "blocks and a state")
        assert (await server.rest.write(line(2.5, 1, "n2"))).status == 200  # so that there is a segment
        before = await everything(server)
        assert await server.terminate() == 0
    assert list(directory.rglob("*.wal"))
    return before


async def test_a_restart_changes_no_answer(tmp_path):
    before = await fill(tmp_path)
    for _ in range(2):
        async with served(tmp_path, **options(tmp_path)) as server:
            assert await everything(server) == before
            assert await server.terminate() == 0


@pytest.mark.parametrize("sync", ["always", "100ms", "1h", "off"])
async def test_whatever_is_synced_when_the_death_of_the_process_costs_nothing(tmp_path, sync):
    async with served(tmp_path, **options(tmp_path, sync=sync)) as server:
        await server.grpc.write(columns(0))
        assert (await server.rest.write(line(1.5, host="n2"))).status == 200
        before = await everything(server)
        server.process.kill()
    async with served(tmp_path, **options(tmp_path, sync=sync)) as server:
        assert await everything(server) == before


# --- while it recovers


async def test_while_it_recovers_a_server_says_so_and_takes_nothing(tmp_path):
    before = await fill(tmp_path)
    go_on = tmp_path / "go-on"
    held = partial(launched, tmp_path, module=(*HELD, str(go_on)), **options(tmp_path))
    async with held() as started, started.clients_while_starting() as server:
        await started.until_logged("recovery is held")
        for answer in (
            await server.rest.write(line(9.0)),
            await server.rest.query({"cluster": "alex", "from": START, "to": START + 60, "queries": []}),
        ):
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert "starting" in answer.json["error"]
        assert await health(server.grpc_address) == NOT_SERVING
        with pytest.raises(ServerUnavailableError, match=r"UNAVAILABLE: .*starting") as refused:
            await server.grpc.write_lines(line(9.0))
        assert refused.value.retry_after_seconds > 0
        with pytest.raises(ServerUnavailableError, match=r"UNAVAILABLE: .*starting"):
            await server.grpc.query("alex", START, START + 60, [SeriesQuery(metric="load", host="n1")])
        go_on.touch()
        await started.until_logged("serving REST")
        assert await everything(server) == before
        assert await health(server.grpc_address) == SERVING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_it_recovers_ends_it_regularly_and_costs_nothing(tmp_path, number):
    before = await fill(tmp_path)
    files = fingerprint(tmp_path / "cc-metric-store")
    go_on = tmp_path / "go-on"
    async with launched(tmp_path, module=(*HELD, str(go_on)), **options(tmp_path)) as started:
        await started.until_logged("recovery is held")
        started.process.send_signal(number)
        await started.until_logged("stopping before everything was recovered")
        go_on.touch()
        assert await started.end() == 0
        assert "Traceback" not in started.text
        assert started.log[-1].endswith("stopped\n")
    assert fingerprint(tmp_path / "cc-metric-store") == files
    async with served(tmp_path, **options(tmp_path)) as server:
        assert await everything(server) == before


async def test_health_can_be_watched_from_the_first_moment_on(tmp_path):
    await fill(tmp_path)
    go_on = tmp_path / "go-on"
    async with (
        launched(tmp_path, module=(*HELD, str(go_on)), **options(tmp_path)) as started,
        started.clients_while_starting() as server,
        aio.insecure_channel(server.grpc_address) as channel,
    ):
        await started.until_logged("recovery is held")
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await watch.read()).status == NOT_SERVING
            go_on.touch()
            assert (await watch.read()).status == SERVING
            server.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == NOT_SERVING


# --- what it refuses to start on


async def test_a_second_server_names_the_directory_and_the_process_that_has_it(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    async with served(tmp_path, **options(tmp_path)) as server:
        assert (await server.rest.write(line(1.0))).status == 200
        before = fingerprint(tmp_path / "cc-metric-store")
        async with launched(other, **options(tmp_path)) as second:
            assert await second.end() == 1
            assert second.log == [
                f"cc-metric-store: {tmp_path}/cc-metric-store is in use by process {server.process.pid}; stop it "
                "first, or set another `checkpoints.directory`\n"
            ]
        assert fingerprint(tmp_path / "cc-metric-store") == before
        assert (await server.rest.write(line(2.0, 1))).status == 200
        server.process.kill()
    async with served(tmp_path, **options(tmp_path)) as server:  # the lock of a process that was killed is none
        [series] = await server.grpc.query("alex", START, START + 60, [SeriesQuery(metric="load", host="n1")])
        assert series.values.tolist() == [1.0, 2.0]


def _of_later_version(content, length, version_at=8):
    """A header with the next version, and the checksum that belongs to it."""
    head = bytearray(content[:length])
    [version] = struct.unpack_from("<I", head, version_at)
    struct.pack_into("<I", head, version_at, version + 1)
    struct.pack_into("<I", head, length - 4, crc32c(head[:-4]))
    return bytes(head) + content[length:]


def _block_of_later_version(content):
    head = _of_later_version(content, 64)[:64]
    return head + content[64:-64] + head


LATER = {
    "wal/*.wal": partial(_of_later_version, length=32),
    "series.a": partial(_of_later_version, length=32),
    "series.b": partial(_of_later_version, length=32),
    "state": partial(_of_later_version, length=52),
    "blocks/*/*.block": _block_of_later_version,
    "format": lambda _: json.dumps({"format": 2}).encode(),
}


@pytest.mark.parametrize("pattern", LATER)
async def test_files_of_a_later_release_are_left_alone(tmp_path, pattern):
    await fill(tmp_path)
    directory = tmp_path / "cc-metric-store"
    path = max(directory.glob(pattern))
    path.write_bytes(LATER[pattern](path.read_bytes()))
    known = 2 if pattern in ("wal/*.wal", "state") else 1
    before = fingerprint(directory)
    async with launched(tmp_path, **options(tmp_path)) as failed:
        assert await failed.end() == 1
        assert failed.log == [
            f"cc-metric-store: {path} has format version {known + 1}, this release knows versions up to {known}; "
            "nothing was changed: use the release that wrote it, or set another `checkpoints.directory`\n"
        ]
    assert fingerprint(directory) == before


# --- the service manager


async def test_the_service_manager_is_told_when_it_serves_and_when_it_stops(tmp_path):
    await fill(tmp_path)
    go_on = tmp_path / "go-on"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"ccms-test-{os.getpid()}-{id(manager)}"
        manager.bind(f"\0{name}")
        manager.setblocking(False)
        told = partial(asyncio.wait_for, timeout=DEADLINE_SECONDS)
        loop = asyncio.get_running_loop()
        environment = {"NOTIFY_SOCKET": f"@{name}"}
        async with launched(
            tmp_path, module=(*HELD, str(go_on)), environment=environment, **options(tmp_path)
        ) as started:
            await started.until_logged("recovery is held")
            with pytest.raises(BlockingIOError):  # not ready yet
                manager.recv(100)
            go_on.touch()
            assert await told(loop.sock_recv(manager, 100)) == b"READY=1"
            async with started.clients() as server:
                assert (await server.rest.write(line(1.0, 100))).status == 200
            started.process.send_signal(signal.SIGTERM)
            assert await told(loop.sock_recv(manager, 100)) == b"STOPPING=1"
            assert await started.end() == 0


async def test_a_stop_during_recovery_is_told_as_well(tmp_path):
    await fill(tmp_path)
    go_on = tmp_path / "go-on"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        async with launched(
            tmp_path, module=(*HELD, str(go_on)), environment=environment, **options(tmp_path)
        ) as started:
            await started.until_logged("recovery is held")
            started.process.send_signal(signal.SIGTERM)
            await started.until_logged("stopping before everything was recovered")
            go_on.touch()
            assert await started.end() == 0
            assert manager.recv(100) == b"STOPPING=1"
