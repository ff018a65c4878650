"""The command `bench`: how fast a server is from here, on its own hardware and its own configuration."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ccms_cli.connecting import connected
from ccms_cli.exits import Exit, fail, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccms_client import Client

CLUSTER: Final = "ccms-bench"
THREADS: Final = 64
"""Series of a host."""
TIMES_PER_CHUNK: Final = 16
QUERIES: Final = 200
SAMPLES_MAX: Final = 50_000_000
"""Where writing ends however fast it is."""


def bench(
    context: typer.Context,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long to write.")] = 10.0,
    hosts: Annotated[int, typer.Option(min=1, max=1000, help=f"Made-up hosts, with {THREADS} series each.")] = 20,
    metric: Annotated[
        str, typer.Option("--metric", "-m", help="Metric to write. [default: the first configured]")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help=f"Write into the cluster {CLUSTER} of this server.")] = False,
) -> None:
    """Measure how fast samples are written and read; what was written is freed at the end.

    The series of the made-up hosts stay known to the server, without samples.
    """
    if not yes:
        fail(
            Exit.USAGE, f"this writes made-up samples into the cluster {CLUSTER}, and loads the server: --yes allows it"
        )
    with connected(context) as client:
        metrics = {entry.name: entry for entry in client.metrics()}
        if not metrics or (metric and metric not in metrics):
            fail(Exit.WRONG, f"the metric {metric!r} is not configured; `ccms ls --metrics` lists those that are")
        if any(entry.name == CLUSTER for entry in client.clusters()) and any(_held(client)):
            fail(
                Exit.WRONG,
                f"there are samples in {CLUSTER}, of a run that still goes on or was cut off: "
                f"`ccms free {CLUSTER} --before +1h` drops them",
            )
        chosen = metrics[metric] if metric else next(iter(metrics.values()))
        # New ones each time: what was freed stays freed, and takes no samples of that age any more.
        run = secrets.token_hex(8)
        names = [f"run-{run}-{number:03}" for number in range(hosts)]
        typer.echo(f"metric {chosen.name}, {hosts * THREADS:,} series in {hosts:,} hosts of {CLUSTER}")
        end = client.status().clock // chosen.interval * chosen.interval
        start = end
        try:
            start = _write(client, chosen.name, chosen.interval, names, end, seconds)
            _read(client, chosen.name, names, start, end)
        finally:
            client.free([[CLUSTER]], end + chosen.interval)
            say(f"what was written to {CLUSTER} is freed")


def _held(client: Client) -> Iterator[bool]:
    from ccms_client import SeriesMatcher

    yield from (True for _ in client.series(SeriesMatcher(clusters=[CLUSTER])))


def _write(client: Client, metric: str, interval: int, hosts: list[str], end: int, seconds: float) -> int:
    """Writes for a while, from some time ago towards now; returns the time of the first samples."""
    import numpy as np

    from ccms_client import SeriesKey

    keys = [SeriesKey(metric, CLUSTER, host, f"hwthread{thread}") for host in hosts for thread in range(THREADS)]
    n_cycles_max = min(1440, SAMPLES_MAX // len(keys))
    start = end - n_cycles_max * interval
    values = np.random.default_rng(7).normal(100.0, 10.0, len(keys))
    n_samples = 0
    began = time.perf_counter()
    with client.writer(give_up_seconds=30) as writer:
        numbers = writer.define(keys)
        for cycle in range(n_cycles_max):
            values = np.round(values + np.sin(cycle / 10), 2)
            writer.write_numbers(numbers, start + cycle * interval, values)
            n_samples += len(keys)
            if time.perf_counter() - began >= seconds:
                break
        writer.flush()
        rejected = writer.result.rejected
    took = time.perf_counter() - began
    typer.echo(f"write   {n_samples:,} samples in {took:.2f} s, acknowledged: {n_samples / took:,.0f} samples/s")
    if rejected:
        reasons = ", ".join(f"{reason.lower()} {count:,}" for reason, count in rejected.items())
        fail(Exit.WRONG, f"samples were rejected ({reasons}): is the retention shorter than what was written?")
    return start


def _read(client: Client, metric: str, hosts: list[str], start: int, end: int) -> None:
    """Reads one series at a time, then all hosts."""
    from ccms_client import SeriesQuery

    latencies: list[float] = []
    n_values = 0
    for number in range(QUERIES):
        query = SeriesQuery(
            metric=metric, host=hosts[number % len(hosts)], type="hwthread", type_ids=[str(number % THREADS)]
        )
        began = time.perf_counter()
        n_values += sum(series.values.size for series in client.stream(CLUSTER, start, end, [query]))
        latencies.append(1000 * (time.perf_counter() - began))
    latencies.sort()
    shown = ", ".join(
        f"p{part} {latencies[min(len(latencies) * part // 100, len(latencies) - 1)]:.1f}" for part in (50, 90, 99)
    )
    typer.echo(f"query   one series, {n_values // QUERIES:,} values, {QUERIES} times: {shown} ms")
    everything = [
        SeriesQuery(metric=metric, host=host, type="hwthread", type_ids=[str(thread) for thread in range(THREADS)])
        for host in hosts
    ]
    began = time.perf_counter()
    n_values = sum(part.values.size for part in client.stream_parts(CLUSTER, start, end, everything))
    took = time.perf_counter() - began
    typer.echo(f"query   all series, {n_values:,} values in {took:.2f} s: {n_values / took:,.0f} values/s")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(bench)
