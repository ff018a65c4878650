"""What needs no server: decoding lines, and the size of what is sealed."""

import asyncio

from benchmarks import bench_decoder, storage
from benchmarks.calibration import calibrate
from benchmarks.figures import Figure, Findings, at_least, at_most, rate
from benchmarks.running_peer import RunningPeer
from benchmarks.scale import Scale


async def measure_decoder(_scale: Scale, _peer: RunningPeer | None) -> Findings:
    """How fast lines become numbers."""
    calibration = calibrate()
    target = at_least(10, of_calibrated=False)
    return Findings(
        [rate("line protocol decoder, one core", bench_decoder.measure(), calibration, target, unit="M lines/s")]
    )


async def measure_storage(scale: Scale, _peer: RunningPeer | None) -> Findings:
    """What sealed samples take."""
    sealed, blocks = await asyncio.to_thread(storage.bytes_per_sample, scale.emmy_lines)
    return Findings(
        [
            Figure("sealed windows in memory, real job", sealed, "B/sample", at_most(1.3)),
            Figure("block files, real job", blocks, "B/sample", at_most(1.3)),
        ]
    )
