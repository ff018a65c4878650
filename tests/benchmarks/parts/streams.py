"""Columns over one gRPC stream, every batch synced."""

from functools import partial

from benchmarks import grpc_load
from benchmarks.figures import Findings, at_least, rate
from benchmarks.load import rounds_of
from benchmarks.measured_server import measured_server
from benchmarks.running_peer import RunningPeer
from benchmarks.scale import Scale
from benchmarks.turns import in_turns

OURS = "ours"
LONGER = 5
"""A round has so many times the steps of other parts: a sample costs so little that fewer are hard to measure."""


async def measure(scale: Scale, _peer: RunningPeer | None) -> Findings:
    """Opens a stream for each round."""
    async with measured_server() as server:
        send = partial(grpc_load.over_stream, server, hosts=scale.hosts)
        turns = (await in_turns({OURS: send}, rounds_of(scale.rounds, LONGER * scale.steps)))[OURS]
    target = at_least(8, of_calibrated=False)
    name = "gRPC, one stream, batches of 10,000 samples"
    return Findings([rate(name, turns.rate, turns.calibration, target, unit="M samples/CPU-s")])
