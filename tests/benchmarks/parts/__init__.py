"""The parts of the benchmark: each runs by itself, for some tens of seconds, and yields lines of the table."""

from collections.abc import Awaitable, Callable

from benchmarks.figures import Findings
from benchmarks.parts import first_cycle, in_process, ingest, over_nats, series_count, start, streams, two_days
from benchmarks.running_peer import RunningPeer
from benchmarks.scale import Scale

Part = Callable[[Scale, RunningPeer | None], Awaitable[Findings]]
"""Measures our server, and the peer in turns with it where it can do the same."""

PARTS: dict[str, Part] = {
    "ingest": ingest.measure,
    "nats": over_nats.measure,
    "first-cycle": first_cycle.measure,
    "streams": streams.measure,
    "series-count": series_count.measure,
    "two-days": two_days.measure,
    "start": start.measure,
    "decoder": in_process.measure_decoder,
    "storage": in_process.measure_storage,
}
