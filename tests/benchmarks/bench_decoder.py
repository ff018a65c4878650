"""Lines decoded per second on one core, payload by payload, when every key has been seen before."""

from benchmarks.calibration import seconds_at_best
from benchmarks.payloads import INTERVAL_SECONDS, host_batches, metrics
from helpers.catalog import DictCatalog

from ccms_server.ingest.decoder import LineDecoder

START = 1_700_000_000


def measure(hosts: int = 200, steps: int = 10, repetitions: int = 5) -> float:
    """M lines/s of batches of 426 lines, calls from Python included; the best of several repetitions."""
    batches = host_batches(hosts)
    decoder = LineDecoder(DictCatalog(metrics()), "")
    payloads = [batch.at(START + step * INTERVAL_SECONDS) for step in range(steps) for batch in batches]
    for payload in payloads[:hosts]:
        decoder.decode(payload, START)

    def decode() -> None:
        for payload in payloads:
            decoder.decode(payload, START)

    lines = sum(payload.count(b"\n") for payload in payloads)
    return lines / seconds_at_best(decode, repetitions) / 1e6
