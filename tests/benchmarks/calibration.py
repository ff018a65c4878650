"""How fast is this machine right now? Two plain loops to quote every other figure against: CPU time beside CPU time.

`python -m benchmarks.calibration` prints what they reach.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.payloads import host_batches

VALUES = 100_000
HOSTS = 50


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one core of a machine does at some moment."""

    line_rate: float
    """M lines/s, see `line_rate`."""
    json_rate: float
    """M values/s, see `json_rate`."""


QUIET = Calibration(line_rate=1.85, json_rate=4.2)
"""The machine that the peers were measured on, and for which targets in milliseconds are meant."""


def calibrate() -> Calibration:
    """Measures the machine, which takes half a second.

    It does so in a fresh process: in one that has done much, JSON is dumped up to a fifth faster.
    """
    command = (sys.executable, "-m", "benchmarks.calibration")
    done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, check=True)
    return Calibration(**json.loads(done.stdout))


def median(calibrations: Sequence[Calibration]) -> Calibration:
    """The median of each rate."""
    return Calibration(
        statistics.median(each.line_rate for each in calibrations),
        statistics.median(each.json_rate for each in calibrations),
    )


def seconds_at_best(function: Callable[[], object], repetitions: int = 5) -> float:
    """CPU seconds of the fastest of several runs on this thread: what else the machine does is not counted."""
    best = float("inf")
    for _ in range(repetitions):
        begin = time.thread_time()
        function()
        best = min(best, time.thread_time() - begin)
    return best


def line_rate(hosts: int = HOSTS) -> float:
    """M lines/s of splitting lines and looking the whole key up in a dict: the simplest decoder that works."""
    payloads = [batch.at(1_700_000_000) for batch in host_batches(hosts)]
    lines = [line for payload in payloads for line in payload.splitlines()]
    index = {line.split(b" ")[0]: number for number, line in enumerate(lines)}

    def decode() -> None:
        for payload in payloads:
            rows, values = [], []
            for line in payload.split(b"\n"):
                if line:
                    key, field, timestamp = line.split(b" ")
                    rows.append(index[key] * 128 + (int(timestamp) // 60) % 128)
                    values.append(float(field[6:]))

    return len(lines) / seconds_at_best(decode) / 1e6


def json_rate(count: int = VALUES) -> float:
    """M values/s of `json.dumps` over floats of three decimals."""
    rng = random.Random(1)
    values = [round(rng.uniform(0, 1000), 3) for _ in range(count)]
    return len(values) / seconds_at_best(lambda: json.dumps(values)) / 1e6


if __name__ == "__main__":
    print(json.dumps(asdict(Calibration(line_rate(), json_rate()))))  # noqa: T201
