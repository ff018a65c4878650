"""A disk that is full, read-only or broken in part: writes are refused with the reason, all else goes on.

Files cannot grow beyond what `prlimit` says, which the kernel enforces as it does the end of a disk; and, where this is
permitted, the directory lies on a small disk in memory that only the server and its namespace see.
"""

import asyncio
import contextlib
import functools
import resource
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.launch import launched, served
from helpers.nats import nats_server, publisher
from helpers.waiting import DEADLINE_SECONDS, eventually

from ccms_client import SampleColumn, SeriesQuery, ServerBusyError

SERVING = health_pb2.HealthCheckResponse.SERVING
HURRIED = ("helpers.crash_points", "--hurry", "0.02")
START = 1_700_000_000
WAL_BYTES = 1 << 20
METRICS = {"load": {"frequency": 1}, "flops": {"frequency": 1}}
UNLIMITED = resource.RLIM_INFINITY


def options(directory, wal_bytes=WAL_BYTES):
    return {"metrics": METRICS, "checkpoints": {"directory": str(directory), "wal-bytes": wal_bytes}}


def line(value, number=0, host="n1"):
    return f"load,cluster=alex,hostname={host} value={value} {START + number}\n".encode()


async def stored(server, host="n1", metric="load"):
    """All samples of a host, by number of their seconds."""
    [series] = await server.grpc.query("alex", START, START + 1_000_000, [SeriesQuery(metric=metric, host=host)])
    if series.error is not None:
        assert series.error.reason == "NOT_FOUND"
        return {}
    present = ~np.isnan(series.values)
    return dict(zip((series.timestamps[present] - START).tolist(), series.values[present].tolist(), strict=True))


async def health(server):
    async with aio.insecure_channel(server.grpc_address) as channel:
        return (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())).status


async def check_refused(server, payload, reason):
    """Writes what must be refused, over both protocols; the reason names the cause."""
    answer = await server.rest.write(payload)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert reason in answer.json["error"]
    with pytest.raises(ServerBusyError, match=f"RESOURCE_EXHAUSTED: .*{reason}") as refused:
        await server.grpc.write_lines(payload)
    assert refused.value.retry_after_seconds > 0
    assert await health(server) == SERVING


def incompressible(number, n_samples=5000):
    """A column that takes nine bytes a sample in the WAL, for other seconds than other numbers."""
    values = np.random.default_rng(number).random(n_samples)
    return SampleColumn(
        metric="flops", cluster="alex", host="n1", start=START + number * n_samples, interval=1, values=values
    )


async def write_until_refused(server, acknowledged, most=400):
    """Writes columns, and adds them to a dict by number; returns the error and the column that was refused."""
    for number in range(len(acknowledged), most):
        column = incompressible(number)
        try:
            await server.grpc.write([column])
        except ServerBusyError as error:
            return str(error), column
        acknowledged[number] = column
    raise AssertionError(f"{most} columns were taken")


async def check_columns(server, acknowledged, refused=()):
    expected = {
        column.start - START + offset: value
        for column in acknowledged.values()
        for offset, value in enumerate(column.values.tolist())
    }
    assert await stored(server, metric="flops") == expected
    assert not refused or refused.start - START not in expected


# --- files that cannot grow


def limit_files(server, size):
    """No file of a process can be written to beyond a size."""
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, UNLIMITED))


@pytest.mark.parametrize("size", [0, 40, 1000])
async def test_what_the_disk_refuses_is_refused_until_it_takes_it(tmp_path, size):
    """The write fails at its beginning, in its middle, or only after some more were written."""
    taken, refused = {0: 0.5}, None
    async with served(tmp_path, **options(tmp_path)) as server:
        assert (await server.rest.write(line(0.5))).status == 200
        limit_files(server, size)
        for number in range(1, 200):
            if (await server.rest.write(line(number, number))).status != 200:
                refused = number
                break
            taken[number] = number
        assert refused is not None
        await check_refused(server, lines(1000), "File too large")
        assert await stored(server) == taken
        answer = await server.rest.query(
            {"cluster": "alex", "from": START, "to": START + 1, "queries": [{"metric": "load", "host": "n1"}]}
        )
        assert answer.json["results"][0][0]["data"] == [0.5]
        limit_files(server, UNLIMITED)
        assert (await server.rest.write(line(7.5, 1000))).status == 200
        taken[1000] = 7.5
        assert await stored(server) == taken
        assert sum("samples cannot be logged: File too large" in each for each in server.log) == 1
        await eventually(lambda: any("no longer: samples" in each for each in server.log), "a word that it works")
        server.process.kill()
    async with served(tmp_path, **options(tmp_path)) as server:
        assert await stored(server) == taken
        assert not any("damaged" in each for each in server.log)


async def test_new_series_are_refused_while_the_catalogue_cannot_grow(tmp_path):
    async with served(tmp_path, **options(tmp_path)) as server:
        assert (await server.rest.write(line(1.0))).status == 200
        size = (tmp_path / "cc-metric-store" / "series.a").stat().st_size
        limit_files(server, size + 20)
        await check_refused(server, line(2.0, host="n2"), "File too large")
        assert await stored(server, "n2") == {}
        limit_files(server, UNLIMITED)
        assert (await server.rest.write(line(3.0, host="n3") + line(4.0, host="n2"))).status == 200
        server.process.kill()
    async with served(tmp_path, **options(tmp_path)) as server:
        assert [await stored(server, host) for host in ("n1", "n2", "n3")] == [{0: 1.0}, {0: 4.0}, {0: 3.0}]
        assert not any("damaged" in each for each in server.log)


async def test_a_server_that_is_killed_and_started_on_a_full_disk_can_be_read(tmp_path):
    """It was killed after a part of the catalogue, and a part of a record, had been written."""
    async with served(tmp_path, **options(tmp_path)) as server:
        assert (await server.rest.write(line(1.0))).status == 200
        size = (tmp_path / "cc-metric-store" / "series.a").stat().st_size
        limit_files(server, size + 20)
        assert (await server.rest.write(line(2.0, host="n2"))).status == 503
        server.process.kill()
    assert (tmp_path / "cc-metric-store" / "series.a").stat().st_size == size + 20
    full = ("prlimit", "--fsize=0:unlimited")
    async with served(tmp_path, prefix=full, **options(tmp_path)) as server:
        assert await stored(server) == {0: 1.0}
        await check_refused(server, line(3.0, 1), "File too large")
        await check_refused(server, line(2.0, host="n2"), "File too large")
        limit_files(server, UNLIMITED)
        assert (await server.rest.write(line(3.0, 1) + line(4.0, host="n2"))).status == 200
        server.process.kill()
    async with served(tmp_path, **options(tmp_path)) as server:
        assert [await stored(server, host) for host in ("n1", "n2")] == [{0: 1.0, 1: 3.0}, {0: 4.0}]


async def test_messages_wait_for_the_disk(tmp_path):
    """Nobody would send them again; requests are refused meanwhile."""
    async with nats_server() as broker, publisher(broker) as client:
        nats = [{"address": broker.url, "subscriptions": [{"subscribe-to": "updates", "cluster-tag": "alex"}]}]
        async with served(tmp_path, nats=nats, **options(tmp_path)) as server:
            await eventually(lambda: any("connected to" in each for each in server.log), "a connection to NATS")
            limit_files(server, 0)
            for number in range(100):
                await client.publish("updates", line(number, number))
            await client.flush()
            await eventually(lambda: any("cannot be logged" in each for each in server.log), "the first refusal")
            assert await stored(server) == {}
            await check_refused(server, line(-1.0), "File too large")
            limit_files(server, UNLIMITED)
            everything = {number: float(number) for number in range(100)}

            async def is_all_stored():
                return await stored(server) == everything

            await eventually(is_all_stored, "all messages")
            server.process.kill()
        async with served(tmp_path, **options(tmp_path)) as server:
            assert await stored(server) == everything


# --- blocks that cannot be written


async def test_without_blocks_the_wal_grows_to_twice_its_size_and_then_writes_are_refused(tmp_path):
    acknowledged = {}
    async with served(tmp_path, module=HURRIED, **options(tmp_path)) as server:
        blocks, away = tmp_path / "cc-metric-store" / "blocks", tmp_path / "away"
        blocks.rename(away)
        blocks.write_bytes(b"")
        assert (await server.rest.write(line(1.0))).status == 200
        reason, refused = await write_until_refused(server, acknowledged)
        assert "the WAL has grown to" in reason
        assert "blocks cannot be written (Not a directory: " in reason
        assert 2 * WAL_BYTES < wal_size(tmp_path) < 3 * WAL_BYTES
        await check_refused(server, line(2.0, 1), "blocks cannot be written")
        await check_columns(server, acknowledged, refused)
        blocks.unlink()
        away.rename(blocks)
        await eventually(functools.partial(is_taken, server, line(3.0, 2)), "writes to be taken again")
        await eventually(lambda: wal_size(tmp_path) <= WAL_BYTES, "a shorter WAL")
        await server.grpc.write([refused])
        acknowledged[len(acknowledged)] = refused
        await check_columns(server, acknowledged)
        server.process.kill()
    async with served(tmp_path, **options(tmp_path)) as server:
        await check_columns(server, acknowledged)
        assert await stored(server) == {0: 1.0, 2: 3.0}


def wal_size(directory):
    size = 0
    for path in directory.rglob("*.wal"):
        with contextlib.suppress(FileNotFoundError):  # it was deleted just now
            size += path.stat().st_size
    return size


async def is_taken(server, payload):
    return (await server.rest.write(payload)).status == 200


async def test_a_server_killed_while_blocks_cannot_be_written_starts_from_the_wal(tmp_path):
    acknowledged = {}
    blocks = tmp_path / "cc-metric-store" / "blocks"
    async with served(tmp_path, module=HURRIED, **options(tmp_path)) as server:
        blocks.rmdir()
        blocks.write_bytes(b"")
        await write_until_refused(server, acknowledged)
        server.process.kill()
    async with launched(tmp_path, **options(tmp_path)) as failed:
        assert await failed.end() == 1
        assert f"{blocks}: Not a directory" in failed.log[-1]
    blocks.unlink()
    async with served(tmp_path, module=HURRIED, **options(tmp_path)) as server:
        await check_columns(server, acknowledged)
        await eventually(functools.partial(is_taken, server, line(3.0, 2)), "writes to be taken again")


# --- a disk of its own


class Disk:
    """A file system in memory that is seen in a namespace of its own.

    Attributes:
        path: Where it is mounted in the namespace.
        seen: The same from outside.
        prefix: Command that runs another one inside.
    """

    def __init__(self, path, pid):
        self.path = path
        self.seen = Path(f"/proc/{pid}/root{path}")
        self.prefix = ("nsenter", "--target", str(pid), "--user", "--mount", "--preserve-credentials")

    async def run(self, *command):
        process = await asyncio.create_subprocess_exec(*self.prefix, *command)
        assert await process.wait() == 0, command

    def fill(self, *, but_for=0):
        """Writes a file that leaves so many bytes."""
        with (self.seen / "filler").open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(bytes(1 << 16)):
                    pass
            file.truncate(file.tell() - but_for)

    def make_room(self):
        (self.seen / "filler").unlink()

    async def make_read_only(self):
        """Covers it with a view of itself that is read-only: files that are open stay writable."""
        await self.run("mount", "--bind", str(self.path), str(self.path))
        await self.run("mount", "-o", "remount,bind,ro", str(self.path))

    async def make_writable(self):
        await self.run("umount", str(self.path))


@functools.cache
def why_no_namespaces():
    try:
        command = ("unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt")
        done = subprocess.run(command, capture_output=True, timeout=DEADLINE_SECONDS, text=True)
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


@pytest.fixture
async def disk(tmp_path):
    if reason := why_no_namespaces():
        pytest.skip(f"this system permits no namespaces: {reason}")
    async with _disk(tmp_path / "disk") as made:
        yield made


@asynccontextmanager
async def _disk(path):
    path.mkdir()
    mount = f"mount -t tmpfs -o size=4m,mode=755 tmpfs '{path}' && echo mounted && exec cat"
    holder = await asyncio.create_subprocess_exec(
        *("unshare", "-rm", "sh", "-c", mount), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert await holder.stdout.readline() == b"mounted\n"
    try:
        yield Disk(path, holder.pid)
    finally:
        await holder.communicate(b"")  # it ends with its input, and the file system with it


async def test_a_full_disk_refuses_writes_serves_reads_and_recovers(tmp_path, disk):
    acknowledged, here = {}, options(disk.path, wal_bytes=64 << 20)
    async with served(tmp_path, prefix=disk.prefix, **here) as server:
        assert (await server.rest.write(line(1.0))).status == 200
        disk.fill(but_for=500_000)
        reason, refused = await write_until_refused(server, acknowledged)
        assert "No space left on device" in reason
        await check_refused(server, lines(10_000), "No space left on device")
        await check_columns(server, acknowledged, refused)
        server.process.kill()
    assert len(acknowledged) > 3
    async with served(tmp_path, prefix=disk.prefix, **here) as server:  # the disk is still full
        await check_columns(server, acknowledged, refused)
        assert (await stored(server)) == {0: 1.0}
        await check_refused(server, lines(10_000), "No space left on device")
        disk.make_room()
        await server.grpc.write([refused])
        acknowledged[len(acknowledged)] = refused
        assert (await server.rest.write(line(2.0, 1) + line(3.0, host="n2"))).status == 200
        await check_columns(server, acknowledged)
        server.process.kill()
    async with served(tmp_path, prefix=disk.prefix, **here) as server:
        await check_columns(server, acknowledged)
        assert [await stored(server, host) for host in ("n1", "n2")] == [{0: 1.0, 1: 2.0}, {0: 3.0}]
        assert not any("damaged" in each for each in server.log)


def lines(n_samples):
    """Samples of one host that are never stored in these tests."""
    return b"".join(line(0.1 + 1 / (number + 3), 500_000 + number) for number in range(n_samples))


async def test_blocks_for_which_there_is_no_room_are_written_later(tmp_path, disk):
    """The WAL has room for a while, because it deletes what it no longer needs, but not for ever."""
    acknowledged = {}
    async with served(tmp_path, prefix=disk.prefix, module=HURRIED, **options(disk.path)) as server:
        disk.fill(but_for=1_300_000)
        _, refused = await write_until_refused(server, acknowledged)
        await check_columns(server, acknowledged, refused)
        assert await health(server) == SERVING
        disk.make_room()
        await eventually(functools.partial(is_taken, server, line(3.0, 2)), "writes to be taken again")
        server.process.kill()
    async with served(tmp_path, prefix=disk.prefix, **options(disk.path)) as server:
        await check_columns(server, acknowledged, refused)
        assert await stored(server) == {2: 3.0}


async def test_a_disk_that_becomes_read_only_refuses_writes_serves_reads_and_recovers(tmp_path, disk):
    async with served(tmp_path, prefix=disk.prefix, **options(disk.path)) as server:
        await server.grpc.write([incompressible(0)])  # fills a segment: the next write needs a new one
        await disk.make_read_only()
        await check_refused(server, line(1.0), "Read-only file system")
        await check_refused(server, line(1.0, host="n2"), "Read-only file system")
        await check_columns(server, {0: incompressible(0)})
        await disk.make_writable()
        assert (await server.rest.write(line(2.0, 1))).status == 200
        server.process.kill()
    async with served(tmp_path, prefix=disk.prefix, **options(disk.path)) as server:
        await check_columns(server, {0: incompressible(0)})
        assert await stored(server) == {1: 2.0}


@pytest.mark.parametrize("is_new", [True, False])
async def test_a_server_does_not_start_on_a_read_only_disk(tmp_path, disk, is_new):
    if not is_new:
        async with served(tmp_path, prefix=disk.prefix, **options(disk.path)) as server:
            assert (await server.rest.write(line(1.0))).status == 200
            assert await server.terminate() == 0
    await disk.make_read_only()
    async with launched(tmp_path, prefix=disk.prefix, **options(disk.path)) as failed:
        assert await failed.end() == 1
        assert failed.log[-1].startswith(f"cc-metric-store: cannot use {disk.path}/cc-metric-store")
        assert failed.log[-1].endswith("Read-only file system\n")
        assert "Traceback" not in failed.text
    await disk.make_writable()
    async with served(tmp_path, prefix=disk.prefix, **options(disk.path)) as server:
        assert await stored(server) == ({} if is_new else {0: 1.0})
