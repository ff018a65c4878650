"""From the start of the process until it serves."""

import statistics

from benchmarks.figures import Figure, Findings, at_most
from benchmarks.running_peer import RunningPeer
from benchmarks.scale import Scale
from benchmarks.starts import first_start, restart, start


async def measure(scale: Scale, _peer: RunningPeer | None) -> Findings:
    """Starts servers one after another."""
    usual = statistics.median([await start() for _ in range(scale.starts)])
    first = await first_start()
    crashed = await restart(hosts=scale.restart_hosts, steps=scale.restart_steps)
    return Findings(
        [
            Figure("start until SERVING, empty, kernels cached", usual, "s", at_most(2)),
            Figure("first start ever until SERVING, kernels compiled", first, "s", at_most(20)),
            Figure("restart after SIGKILL, samples in blocks", (crashed.samples - crashed.replayed) / 1e6, "M"),
            Figure("restart after SIGKILL, samples in the WAL", crashed.replayed / 1e6, "M"),
            Figure("restart after SIGKILL, until SERVING", crashed.seconds, "s", at_most(3)),
            Figure("RSS before it", crashed.rss_before_megabytes, "MB"),
            Figure("RSS after it", crashed.rss_after_megabytes, "MB"),
        ]
    )
