"""Whether a line costs more when there are more series."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from benchmarks.figures import Figure, Findings, SeriesCost, at_most
from benchmarks.load import Load, over_http
from benchmarks.measured_server import MeasuredServer, measured_server
from benchmarks.payloads import INTERVAL_SECONDS, LINES_PER_HOST, Batch, host_batches, joined
from benchmarks.running_peer import RunningPeer
from benchmarks.scale import Scale
from benchmarks.turns import Turns, in_turns

from ccms_server.store.layout import WINDOW_SLOTS

HOSTS_PER_BATCH = (1, 10)


async def measure(scale: Scale, peer: RunningPeer | None) -> Findings:
    """Compares servers that hold different numbers of series, in turns.

    All samples lie in one window, so that no server has more to seal than the others.
    """
    times = _times_of_one_window()
    round_steps = max(_steps(hosts, scale.series_round_lines) for hosts in scale.series_hosts)
    findings = Findings()
    async with AsyncExitStack() as stack:
        batches = {}
        for hosts in scale.series_hosts:
            server = await stack.enter_async_context(measured_server())
            batches[server] = host_batches(hosts)
            await asyncio.to_thread(over_http, server, joined(batches[server], max(HOSTS_PER_BATCH)), [times.pop(0)])
        for hosts_per_batch in HOSTS_PER_BATCH:
            contenders = {
                len(of_hosts): _sender(server, of_hosts, hosts_per_batch, scale.series_round_lines)
                for server, of_hosts in batches.items()
            }
            rounds = [[times.pop(0) for _ in range(round_steps)] for _ in range(scale.series_rounds)]
            turns = await in_turns(contenders, rounds)
            findings.add(_findings(turns, hosts_per_batch * LINES_PER_HOST))
    if peer:
        findings.notes.append("cost by number of series: of ours alone, as each number needs a server without others")
    return findings


def _times_of_one_window() -> list[int]:
    """All time steps of the last window that is over."""
    seconds = WINDOW_SLOTS * INTERVAL_SECONDS
    end = int(time.time()) // seconds * seconds
    return list(range(end - seconds, end, INTERVAL_SECONDS))


def _steps(hosts: int, lines: int) -> int:
    return max(1, round(lines / (hosts * LINES_PER_HOST)))


def _sender(
    server: MeasuredServer, of_hosts: list[Batch], hosts_per_batch: int, lines: int
) -> Callable[[Sequence[int]], Load]:
    """Sends as many time steps as make up so many lines."""
    steps = _steps(len(of_hosts), lines)
    return lambda times: over_http(server, joined(of_hosts, hosts_per_batch), times[:steps])


def _findings(turns: dict[int, Turns], lines_per_batch: int) -> Findings:
    findings = Findings()
    for hosts, each in turns.items():
        cost = SeriesCost(hosts * LINES_PER_HOST, lines_per_batch, 1e3 / each.rate, each.calibration.line_rate)
        findings.series_costs.append(cost)
        name = f"a line of {cost.series:,} series, batches of {lines_per_batch:,}"
        loops = cost.cpu_ns_per_line * cost.line_rate / 1e3
        findings.figures.append(Figure(name, cost.cpu_ns_per_line, "CPU-ns", None, cost.line_rate, loops))
    loops_by_series = [each.comparable for each in findings.figures]
    spread = max(loops_by_series) / min(loops_by_series)
    findings.figures.append(Figure(f"dearest line, batches of {lines_per_batch:,}", spread, "x cheapest", at_most(1.5)))
    return findings
