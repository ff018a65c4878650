"""How long our server takes until it serves: with nothing stored, for the first time ever, and after a crash."""

import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from benchmarks.load import over_http, recent_times
from benchmarks.measured_server import MeasuredServer, running
from benchmarks.payloads import host_batches, joined
from benchmarks.process import rss_megabytes
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from helpers.server import ServerProcess
from helpers.waiting import eventually

from ccms_server.store.layout import WINDOW_SLOTS

FIRST_START_SECONDS_MAX = 100
"""After so long a first start is given up."""
HOSTS_PER_BATCH = 10
SEGMENTS_LEFT = 4
"""Of the WAL, at most: an open window is up to 35 MB of samples, in segments of 16 MiB, and one more may begin with
samples that are in blocks already."""


@dataclass(frozen=True, slots=True)
class Restart:
    """A server that was killed, and started again."""

    samples: int
    """Samples that were acknowledged."""
    replayed: int
    """Those of them that were in the WAL."""
    seconds: float
    """From the start of the process until requests are served."""
    rss_before_megabytes: float
    rss_after_megabytes: float


async def start() -> float:
    """Seconds of a start with an empty directory, kernels having been compiled before."""
    with tempfile.TemporaryDirectory() as directory:
        async with _started(Path(directory)) as (_, seconds):
            return seconds


async def first_start() -> float:
    """Seconds of a start with an empty directory that has to compile all kernels, and says so."""
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as kernels:
        environment = {"NUMBA_CACHE_DIR": kernels}
        options = {"environment": environment, "start_seconds": FIRST_START_SECONDS_MAX}
        async with _started(Path(directory), **options) as (server, seconds):
            assert "compiling, which only the first start has to do" in "".join(server.log), server.log
            return seconds


async def restart(*, hosts: int, steps: int) -> Restart:
    """Kills a server with full windows in blocks and the latest samples in its WAL, and starts it again."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        batches = joined(host_batches(hosts), HOSTS_PER_BATCH)
        async with running(directory) as server:
            done = await asyncio.to_thread(over_http, MeasuredServer.of(server), batches, recent_times(steps))

            def is_settled() -> bool:
                n_blocks, n_segments = len(list(directory.rglob("*.block"))), len(list(directory.rglob("*.wal")))
                return n_blocks >= steps // WINDOW_SLOTS and n_segments <= SEGMENTS_LEFT

            await eventually(is_settled, "full windows are in blocks, and the WAL is cut")
            before = rss_megabytes(server.process.pid)
            server.process.kill()
            await server.process.wait()
        async with _started(directory) as (server, seconds):
            after = rss_megabytes(server.process.pid)
            found = re.search(r"([\d,]+) samples from the WAL", "".join(server.log))
            assert found is not None, server.log
            return Restart(done.lines, int(found[1].replace(",", "")), seconds, before, after)


@asynccontextmanager
async def _started(directory: Path, **options: object) -> AsyncIterator[tuple[ServerProcess, float]]:
    """Starts a server; yields it and the seconds from the start of its process until it says that it is SERVING."""
    begin = time.perf_counter()
    async with running(directory, **options) as server:
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            answer = await HealthStub(channel).Check(HealthCheckRequest())
        assert answer.status == HealthCheckResponse.SERVING
        yield server, time.perf_counter() - begin
