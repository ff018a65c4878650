"""Many series with few samples each over NATS."""

import asyncio
from functools import partial

from benchmarks import names
from benchmarks.figures import Findings, at_least, rate
from benchmarks.load import over_nats, recent_times, rounds_of
from benchmarks.measured_server import measured_server
from benchmarks.payloads import CLUSTER, host_batches
from benchmarks.running_peer import RunningPeer
from benchmarks.scale import Scale
from benchmarks.turns import in_turns
from helpers.nats import entry, nats_server

OURS = "ours"


async def measure(scale: Scale, _peer: RunningPeer | None) -> Findings:
    """Publishes to a broker that our server is subscribed at."""
    async with nats_server() as broker, measured_server(nats=[entry(broker, ("updates", CLUSTER))]) as server:
        send = partial(over_nats, broker.port, server, host_batches(scale.hosts))
        first = recent_times(1, later_steps=scale.rounds * scale.steps)
        await asyncio.to_thread(send, first)
        turns = (await in_turns({OURS: send}, rounds_of(scale.rounds, scale.steps)))[OURS]
    return Findings([rate(names.NATS, turns.rate, turns.calibration, at_least(3))])
