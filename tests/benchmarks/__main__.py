"""Measures everything in one run and prints one table: python -m benchmarks [--quick] [--json FILE] [--only WORD].

Rates of the server are per second of its CPU time, and stand beside what two plain Python loops reach in the same
minute: the ratio is what can be compared between machines, and between quiet and busy hours.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import bench_decoder, calibration, durability, grpc_load, load, queries, storage
from benchmarks.payloads import metrics
from helpers.nats import nats_server
from helpers.server import server_process

from ccms_server.store.layout import WINDOW_SLOTS

DURABLE_ROUNDS = 3
"""Measurements of each policy for syncing; the median counts."""

STREAM_ROUNDS = 3
"""Measurements of streams; the median counts."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    """Target: the value should not be larger."""
    at_least: float | None = None
    """Target: the value should not be smaller."""
    calibration: float | None = None
    """What the plain loop reached in the same minute, in M lines/s; None where time plays no part."""

    @property
    def target(self) -> str:
        """The target, and whether it was missed."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}" + (", MISSED" if self.value > self.at_most else "")
        if self.at_least is not None:
            return f">= {self.at_least:g}" + (", MISSED" if self.value < self.at_least else "")
        return ""

    @property
    def per_calibration(self) -> str:
        """The value in units of the calibration."""
        return "" if self.calibration is None else f"{self.value / self.calibration:.2f}"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    hosts: int
    steps: int
    long_hosts: int
    long_steps: int
    query_seconds: float
    emmy_lines: int | None
    """Lines of the real job that are stored; None: all."""
    restart_hosts: int
    restart_steps: int
    """A little more than full windows."""


FULL = Scale(
    hosts=200,
    steps=40,
    long_hosts=20,
    long_steps=2800,
    query_seconds=3,
    emmy_lines=None,
    restart_hosts=80,
    restart_steps=6 * WINDOW_SLOTS + 60,
)
QUICK = Scale(
    hosts=4,
    steps=3,
    long_hosts=2,
    long_steps=20,
    query_seconds=0.05,
    emmy_lines=20_000,
    restart_hosts=1,
    restart_steps=20,
)


@asynccontextmanager
async def bench_server(**config: object) -> AsyncIterator[tuple[int, int]]:
    """Runs the server as its users do, with all metrics of the payloads.

    Returns:
        Port of its REST API, and process id.
    """
    with tempfile.TemporaryDirectory() as directory:
        async with server_process(Path(directory), metrics=metrics(), **config) as server:
            yield urlsplit(server.rest.base_url).port or 0, server.process.pid


async def measure_storage(scale: Scale) -> list[Figure]:
    """What sealed samples take."""
    sealed, blocks = await asyncio.to_thread(storage.bytes_per_sample, scale.emmy_lines)
    return [
        Figure("sealed windows in memory, real job", sealed, "B/sample", at_most=1.3),
        Figure("block files, real job", blocks, "B/sample", at_most=1.3),
    ]


async def measure_decoder(_scale: Scale) -> list[Figure]:
    """How fast lines become numbers."""
    beside = calibration.line_rate()
    return [
        Figure("line protocol decoder, one core", bench_decoder.measure(), "M lines/s", at_least=10, calibration=beside)
    ]


async def measure_writes(scale: Scale) -> list[Figure]:
    """Memory and CPU time of many series with few samples."""
    figures = []
    async with bench_server() as (port, pid):
        idle = load.rss_megabytes(pid)
        figures.append(Figure("RSS, idle", idle, "MB"))
        beside = calibration.line_rate()

        async def http(name: str, *, steps: int, hosts_per_batch: int = 1) -> None:
            done = await asyncio.to_thread(
                load.over_http, port, pid, hosts=scale.hosts, steps=steps, hosts_per_batch=hosts_per_batch
            )
            figures.append(Figure(name, done.lines_per_cpu_second, "M lines/CPU-s", calibration=beside))

        await http("HTTP, first cycle of never-seen series", steps=1)
        await http("HTTP, batches of 426 lines", steps=scale.steps)
        figures.append(Figure("RSS over idle, 40 samples a series", load.rss_megabytes(pid) - idle, "MB"))
        await http("HTTP, batches of 4,260 lines", steps=scale.steps, hosts_per_batch=10)
    async with nats_server() as broker:
        subscription = {"address": broker.url, "subscriptions": [{"subscribe-to": "updates", "cluster-tag": "bench"}]}
        async with bench_server(nats=[subscription]) as (_, pid):
            await asyncio.to_thread(load.over_nats, broker.port, pid, hosts=scale.hosts, steps=1)
            beside = calibration.line_rate()
            done = await asyncio.to_thread(load.over_nats, broker.port, pid, hosts=scale.hosts, steps=scale.steps)
            rate = done.lines_per_cpu_second
            figures.append(Figure("NATS, batches of 426 lines", rate, "M lines/CPU-s", calibration=beside))
    return figures


async def measure_long_series(scale: Scale) -> list[Figure]:
    """Two days of samples: sealing on the way, then queries."""
    figures = []
    with tempfile.TemporaryDirectory() as directory:
        async with server_process(Path(directory), metrics=metrics()) as server:
            port, pid = urlsplit(server.rest.base_url).port or 0, server.process.pid
            idle, beside = load.rss_megabytes(pid), calibration.line_rate()
            done = await asyncio.to_thread(load.over_http, port, pid, hosts=scale.long_hosts, steps=scale.long_steps)
            rate = done.lines_per_cpu_second
            figures.append(Figure("HTTP, including sealing", rate, "M lines/CPU-s", calibration=beside))
            per_sample = (load.rss_megabytes(pid) - idle) * 2**20 / done.lines
            figures.append(Figure("RSS over idle, per sample", per_sample, "B"))
            values_rate = calibration.json_rate()
            figures.append(Figure("calibration: json.dumps", values_rate, "M values/s"))
            times = await asyncio.to_thread(
                queries.time_queries,
                port,
                server.grpc_address,
                pid,
                hosts=scale.long_hosts,
                steps=scale.long_steps,
                seconds=scale.query_seconds,
            )
    figures += [Figure(f"{each.protocol} query {each.name}, median", each.median_ms, "ms") for each in times]
    figures += [Figure(f"{each.protocol} query {each.name}, server", each.cpu_ms, "CPU-ms") for each in times]
    of_job = {each.protocol: each.median_ms for each in times if each.name == "job_16x10"}
    figures.append(
        Figure("gRPC query job_16x10, median", of_job["gRPC"] / of_job["REST"], "x that of REST", at_most=0.5)
    )
    return figures


async def measure_durability(scale: Scale) -> list[Figure]:
    """What it costs to keep samples, by when they are synced."""
    figures = []
    cpu_seconds: dict[str, list[float]] = {"memory": [], "off": [], "1s": [], "always": []}
    for _ in range(DURABLE_ROUNDS):  # in turns: the machine is not the same from minute to minute
        for sync, seconds in cpu_seconds.items():
            done = await durability.durable_load(sync, hosts=scale.hosts, steps=scale.steps)
            seconds.append(done.load.cpu_seconds)
    beside = calibration.line_rate()
    for sync, seconds in cpu_seconds.items():
        rate = done.load.lines / max(statistics.median(seconds), load.CPU_CLOCK_TICK) / 1e6
        name = "in memory only" if sync == "memory" else f"sync {sync}"
        figures.append(Figure(f"HTTP, batches of 426 lines, {name}", rate, "M lines/CPU-s", calibration=beside))
    always, off = statistics.median(cpu_seconds["always"]), statistics.median(cpu_seconds["off"])
    figures.append(Figure("CPU of sync always", always / max(off, load.CPU_CLOCK_TICK), "x that of off", at_most=1.25))
    figures.append(Figure("WAL", done.wal_bytes_per_sample, "B/sample", at_most=8))
    return figures


async def measure_streams(scale: Scale) -> list[Figure]:
    """Columns over one gRPC stream, every batch synced."""
    with tempfile.TemporaryDirectory() as name:
        checkpoints = {"directory": f"{name}/store", "sync": "always"}
        async with server_process(Path(name), metrics=metrics(), checkpoints=checkpoints) as server:
            rates = []
            beside = calibration.line_rate()
            for _ in range(STREAM_ROUNDS):
                done = await asyncio.to_thread(
                    grpc_load.over_stream, server.grpc_address, server.process.pid, hosts=scale.hosts, steps=scale.steps
                )
                rates.append(done.lines_per_cpu_second)
    return [
        Figure(
            "gRPC, one stream, batches of 10,000 samples, sync always",
            statistics.median(rates),
            "M samples/CPU-s",
            at_least=8,
            calibration=beside,
        )
    ]


async def measure_restart(scale: Scale) -> list[Figure]:
    """A crash, and the start after it."""
    done = await durability.restart(hosts=scale.restart_hosts, steps=scale.restart_steps)
    return [
        Figure("restart after SIGKILL, samples in blocks", (done.samples - done.replayed) / 1e6, "M"),
        Figure("restart after SIGKILL, samples in the WAL", done.replayed / 1e6, "M"),
        Figure("restart after SIGKILL, until serving", done.seconds, "s", at_most=3),
        Figure("RSS before it", done.rss_before_megabytes, "MB"),
        Figure("RSS after it", done.rss_after_megabytes, "MB"),
    ]


MEASUREMENTS: dict[str, Callable[[Scale], object]] = {
    "storage": measure_storage,
    "decoder": measure_decoder,
    "durability": measure_durability,
    "streams": measure_streams,
    "restart": measure_restart,
    "writes": measure_writes,
    "queries": measure_long_series,
}


async def measure(scale: Scale, only: str = "") -> list[Figure]:
    """Runs the measurements whose name contains `only`, one after another."""
    figures: list[Figure] = []
    for name, measurement in MEASUREMENTS.items():
        if only in name:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)  # noqa: T201
            figures += await measurement(scale)  # type: ignore[misc]
    return figures


def table(figures: list[Figure]) -> str:
    """The figures as text for people, which is also a Markdown table."""
    rows = [("figure", "value", "unit", "per calibration", "target")]
    rows += [(each.name, f"{each.value:.3g}", each.unit, each.per_calibration, each.target) for each in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small inputs: shows that it runs, not how fast it is")
    parser.add_argument("--only", default="", metavar="WORD", help=f"one of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to a file")
    arguments = parser.parse_args()
    if not any(arguments.only in name for name in MEASUREMENTS):
        parser.error(f"--only {arguments.only} is none of {', '.join(MEASUREMENTS)}")
    figures = asyncio.run(measure(QUICK if arguments.quick else FULL, arguments.only))
    print(f"{datetime.now(UTC):%Y-%m-%d}, calibration {calibration.line_rate():.2f} M lines/s")  # noqa: T201
    if arguments.quick:
        print("small inputs: the figures say that it runs, not how fast or small it is")  # noqa: T201
    print(table(figures))  # noqa: T201
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
