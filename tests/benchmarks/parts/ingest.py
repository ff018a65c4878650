"""Many series over HTTP: CPU time by when the WAL is synced and by the size of batches, and memory."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from benchmarks import names
from benchmarks.figures import Figure, Findings, at_least, at_most, rate
from benchmarks.load import over_http, recent_times, rounds_of
from benchmarks.measured_server import IN_MEMORY, MeasuredServer, running
from benchmarks.payloads import LINES_PER_HOST, host_batches, joined
from benchmarks.process import rss_megabytes
from benchmarks.running_peer import RunningPeer
from benchmarks.scale import Scale
from benchmarks.turns import Turns, in_turns

ALWAYS, OFF = "always", "off"
OTHER_POLICIES = (IN_MEMORY, OFF, "1s")
"""What `always`, which all other figures are of, is compared with."""
PEER = "peer"
HOSTS_PER_LARGE_BATCH = 10


async def measure(scale: Scale, peer: RunningPeer | None) -> Findings:
    """Starts a server for each policy, and loads all of them in turns.

    The WAL may become as large as all that is sent, so no block is written meanwhile.
    """
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        processes = {}
        for sync in (ALWAYS, *OTHER_POLICIES):
            (root / sync).mkdir()
            processes[sync] = await stack.enter_async_context(running(root / sync, sync))
        servers = {sync: MeasuredServer.of(process) for sync, process in processes.items()}
        if peer:
            servers[PEER] = peer.in_new_cluster()
        idle = {name: rss_megabytes(server.pid) for name, server in servers.items()}
        batches = {name: host_batches(scale.hosts, cluster=server.cluster) for name, server in servers.items()}
        rounds = rounds_of(2 * scale.rounds, scale.steps)
        first = recent_times(1, later_steps=2 * scale.rounds * scale.steps)
        for name, server in servers.items():
            await asyncio.to_thread(over_http, server, batches[name], first)
        small = await in_turns(
            {name: partial(over_http, server, batches[name]) for name, server in servers.items()},
            rounds[: scale.rounds],
        )
        large = await in_turns(
            {
                name: partial(over_http, server, joined(batches[name], HOSTS_PER_LARGE_BATCH))
                for name, server in servers.items()
                if name in (ALWAYS, PEER)
            },
            rounds[scale.rounds :],
        )
        await processes[ALWAYS].terminate()
        wal_bytes = sum(path.stat().st_size for path in (root / ALWAYS).rglob("*.wal"))
    samples = scale.hosts * LINES_PER_HOST * (1 + 2 * scale.rounds * scale.steps)
    return Findings(
        [
            *_rates(small[ALWAYS], large[ALWAYS]),
            *_costs_of_syncing(small),
            Figure("WAL", wal_bytes / samples, "B/sample", at_most(8)),
            *_memory(idle[ALWAYS], small[ALWAYS]),
        ],
        [*_rates(small[PEER], large[PEER]), *_memory(idle[PEER], small[PEER])] if peer else [],
    )


def _rates(small: Turns, large: Turns) -> list[Figure]:
    return [
        rate(names.HTTP, small.rate, small.calibration, at_least(1.75)),
        rate(names.HTTP_LARGE, large.rate, large.calibration, at_least(4)),
    ]


def _costs_of_syncing(turns: dict[str, Turns]) -> list[Figure]:
    """What the other policies cost, and what they save."""
    figures = []
    for sync in OTHER_POLICIES:
        how = "in memory only" if sync == IN_MEMORY else f'"sync": "{sync}"'
        figures.append(rate(f"{names.HTTP}, {how}", turns[sync].rate, turns[sync].calibration))
    beside_off = turns[OFF].rate / turns[ALWAYS].rate
    return [*figures, Figure('CPU time of "sync": "always"', beside_off, 'x that of "off"', at_most(1.25))]


def _memory(idle_megabytes: float, turns: Turns) -> list[Figure]:
    total = turns.loads[-1].rss_megabytes
    return [
        Figure("RSS, idle", idle_megabytes, "MB", at_most(150)),
        Figure(names.RSS_OVER_IDLE, total - idle_megabytes, "MB", at_most(150)),
        Figure(names.RSS_TOTAL, total, "MB"),
    ]
