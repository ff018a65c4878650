"""What keeping samples costs, and how fast they are back after a crash."""

import asyncio
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import load
from benchmarks.payloads import metrics
from helpers.server import server_process
from helpers.waiting import eventually

from ccms_server.store.layout import WINDOW_SLOTS

SEGMENTS_LEFT = 2
"""Of the WAL: the one that is written, and perhaps one that begins with samples in blocks."""


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


@dataclass(frozen=True, slots=True)
class DurableLoad:
    """What a run of batches cost a server that keeps them."""

    load: load.Load
    wal_bytes_per_sample: float


async def durable_load(sync: str, *, hosts: int, steps: int) -> DurableLoad:
    """Posts batches to a server with a policy for syncing its WAL; "memory" for one that keeps nothing.

    Its WAL is as large as all that is sent, so that no block is written meanwhile.
    """
    with tempfile.TemporaryDirectory() as directory:
        sections = {} if sync == "memory" else {"checkpoints": {"directory": f"{directory}/store", "sync": sync}}
        async with server_process(Path(directory), metrics=metrics(), **sections) as server:
            port, pid = urlsplit(server.rest.base_url).port or 0, server.process.pid
            first = await asyncio.to_thread(load.over_http, port, pid, hosts=hosts, steps=1)
            done = await asyncio.to_thread(load.over_http, port, pid, hosts=hosts, steps=steps)
            await server.terminate()
        return DurableLoad(done, wal_bytes(Path(directory)) / (first.lines + done.lines))


def wal_bytes(directory: Path) -> int:
    """Bytes of all segments below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*.wal"))


async def restart(*, hosts: int, steps: int) -> Restart:
    """Kills a server with full windows in blocks and the latest samples in its WAL, and starts it again."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        sections = {"metrics": metrics(), "checkpoints": {"directory": f"{name}/store"}}
        async with server_process(directory, **sections) as server:
            port, pid = urlsplit(server.rest.base_url).port or 0, server.process.pid
            done = await asyncio.to_thread(load.over_http, port, pid, hosts=hosts, steps=steps, hosts_per_batch=10)

            def is_settled() -> bool:
                n_blocks, n_segments = len(list(directory.rglob("*.block"))), len(list(directory.rglob("*.wal")))
                return n_blocks >= steps // WINDOW_SLOTS and n_segments <= SEGMENTS_LEFT

            await eventually(is_settled, "full windows are in blocks, and the WAL is cut")
            before = load.rss_megabytes(pid)
            server.process.kill()
            await server.process.wait()
        begin = time.perf_counter()
        async with server_process(directory, **sections) as server:
            seconds = time.perf_counter() - begin
            after = load.rss_megabytes(server.process.pid)
            found = re.search(r"([\d,]+) samples from the WAL", "".join(server.log))
            assert found is not None, server.log
            return Restart(done.lines, int(found[1].replace(",", "")), seconds, before, after)
