"""How fast is this machine right now? Two plain loops to quote every other figure against."""

import json
import random
import time
from collections.abc import Callable

from benchmarks.payloads import STAMP, host_batches

VALUES = 100_000
HOSTS = 50


def seconds_at_best(function: Callable[[], object], repetitions: int = 5) -> float:
    """Wall-clock seconds of the fastest of several runs."""
    best = float("inf")
    for _ in range(repetitions):
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
    return best


def line_rate(hosts: int = HOSTS) -> float:
    """M lines/s of splitting lines and looking the whole key up in a dict: the simplest decoder that works."""
    payloads = [batch.replace(STAMP, b"1700000000") for batch in host_batches(hosts)]
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
