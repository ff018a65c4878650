"""Loads of several servers in turns, as the machine is not the same from minute to minute."""

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks import calibration
from benchmarks.calibration import Calibration, calibrate
from benchmarks.load import Load

Name = TypeVar("Name")


@dataclass(slots=True)
class Turns:
    """What the rounds of one contender came to."""

    loads: list[Load] = field(default_factory=list)
    calibrations: list[Calibration] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median of the lines per CPU second, in M."""
        return statistics.median(each.lines_per_cpu_second for each in self.loads)

    @property
    def calibration(self) -> Calibration:
        """Median of the machine."""
        return calibration.median(self.calibrations)


async def in_turns(
    contenders: Mapping[Name, Callable[[Sequence[int]], Load]], rounds: Sequence[Sequence[int]]
) -> dict[Name, Turns]:
    """Lets each contender send the timestamps of each round, one contender after another."""
    turns = {name: Turns() for name in contenders}
    for times in rounds:
        beside = calibrate()
        for name, send in contenders.items():
            turns[name].calibrations.append(beside)
            turns[name].loads.append(await asyncio.to_thread(send, times))
    return turns
