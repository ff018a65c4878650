"""How long a query takes while a server has other things to do."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

from benchmarks.load import line_count, post, recent_times
from benchmarks.measured_server import MeasuredServer
from benchmarks.payloads import host_batches
from benchmarks.queries import Body, percentile, rest_asker

CAPACITY_STEPS = 10
STEPS_MAX = 300
"""Of all that is written while a query is asked."""
PERIOD_SECONDS = 0.01
"""Between two queries."""


@dataclass(frozen=True, slots=True)
class ReadingWhileWriting:
    """What a reader notices of those who write."""

    p50_ms: float
    p99_ms: float
    capacity: float
    """M lines/s that are taken in when nobody reads, by the clock on the wall."""
    written: float
    """M lines/s that were taken in meanwhile."""


async def read_while_writing(
    server: MeasuredServer, query: Body, *, hosts: int, first_host: int, share: float, seconds: float
) -> ReadingWhileWriting:
    """Finds out how much a server takes in, then sends it a share of that and queries it for some seconds.

    Lines are sent by a process of its own: sending them would keep this one from noticing answers.

    Args:
        server: That is measured.
        query: That is asked, over REST.
        hosts: That send lines, once each for a time step.
        first_host: Number of the first of them.
        share: Of the capacity.
        seconds: About how long.
    """
    loop = asyncio.get_running_loop()
    batches = host_batches(hosts, first=first_host, cluster=server.cluster)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:

        def write(times: Sequence[int], batches_per_second: float = float("inf")) -> asyncio.Future[float]:
            return loop.run_in_executor(
                pool, partial(post, server, batches, times, batches_per_second=batches_per_second)
            )

        await write(recent_times(1, later_steps=STEPS_MAX + CAPACITY_STEPS))
        capacity_times = recent_times(CAPACITY_STEPS, later_steps=STEPS_MAX)
        capacity_seconds = await write(capacity_times)
        batches_per_second = share * hosts * CAPACITY_STEPS / capacity_seconds
        times = recent_times(min(STEPS_MAX, max(1, round(batches_per_second * seconds / hosts))))
        writing = write(times, batches_per_second)
        took = sorted(await asyncio.to_thread(_seconds_of_answers, server, query, writing))
        written_seconds = await writing
    return ReadingWhileWriting(
        percentile(took, 50) * 1e3,
        percentile(took, 99) * 1e3,
        line_count(batches, capacity_times) / capacity_seconds / 1e6,
        line_count(batches, times) / written_seconds / 1e6,
    )


def _seconds_of_answers(server: MeasuredServer, query: Body, writing: asyncio.Future[float]) -> list[float]:
    """Asks at regular times until all is written; a query that is late because of the one before has waited as well."""
    took = []
    with rest_asker(server) as asker:
        ask, due = asker.query(query), time.perf_counter()
        while not took or not writing.done():
            time.sleep(max(0, due - time.perf_counter()))
            answer = ask()
            took.append(time.perf_counter() - due)
            due += PERIOD_SECONDS
        asker.size(answer)
    return took
