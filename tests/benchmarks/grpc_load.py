"""Feeds a running server over one `WriteStream`: samples as columns, series as numbers."""

import re
import time
from collections.abc import Iterator, Sequence
from threading import Event

import grpc
import numpy as np
from benchmarks.load import Load
from benchmarks.measured_server import MeasuredServer
from benchmarks.payloads import CLUSTER, INTERVAL_SECONDS, host_batches
from benchmarks.process import cpu_seconds, rss_megabytes

from ccms.v1.metric_store_service_pb2 import WriteStreamOpening, WriteStreamRequest
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms.v1.sample_pb2 import Component, SampleBatch, SeriesDefinition, SeriesSelector

BATCH_SAMPLES = 10_000
_LINE = re.compile(rb"^(\w+),cluster=\w+,hostname=(\w+),type=(\w+)(?:,type-id=([\w:.]+))? value=(\S+)", re.MULTILINE)


def over_stream(
    server: MeasuredServer, times: Sequence[int], *, hosts: int, batch_samples: int = BATCH_SAMPLES
) -> Load:
    """Sends time step after time step of all series, each in batches of so many samples, on one stream.

    What is measured begins when all series are known: a time step before those given makes them known. It ends when
    the last batch is acknowledged.
    """
    found = [match.groups() for batch in host_batches(hosts) for match in _LINE.finditer(batch.at(0))]
    definitions = [
        SeriesDefinition(
            number=number,
            metric=metric.decode(),
            selector=SeriesSelector(
                cluster=CLUSTER, host=host.decode(), component=Component(type=kind.decode(), id=(name or b"").decode())
            ),
        )
        for number, (metric, host, kind, name, _) in enumerate(found)
    ]
    values = np.array([float(value) for *_, value in found])
    times = (times[0] - INTERVAL_SECONDS, *times)
    pieces = [slice(first, first + batch_samples) for first in range(0, len(values), batch_samples)]

    def batches(step: int) -> Iterator[SampleBatch]:
        for piece in pieces:
            yield SampleBatch(
                new_series=definitions[piece] if step == 0 else (),
                series_numbers=range(len(values))[piece],
                timestamps_seconds=[times[step]],
                values=(values[piece] + step).round(3).tolist(),
            )

    samples = [batch for step in range(len(times)) for batch in batches(step)]
    requests = [WriteStreamRequest(sequence=number, samples=batch) for number, batch in enumerate(samples, 1)]
    requests[0].opening.CopyFrom(WriteStreamOpening(stream_id=f"bench-{time.time_ns()}", first_sequence=1))
    known = Event()

    def sent() -> Iterator[WriteStreamRequest]:
        yield from requests[: len(pieces)]
        known.wait()
        yield from requests[len(pieces) :]

    stored = 0
    with grpc.insecure_channel(server.grpc_address) as channel:
        try:
            for response in MetricStoreServiceStub(channel).WriteStream(sent()):
                stored += sum(result.summary.stored for result in response.results)
                if response.acknowledged_sequence == len(pieces):
                    before, began = cpu_seconds(server.pid), time.perf_counter()
                    known.set()
        finally:
            known.set()
    wall = time.perf_counter() - began
    assert stored == len(values) * len(times), (stored, len(values) * len(times))
    return Load(len(values) * (len(times) - 1), wall, cpu_seconds(server.pid) - before, rss_megabytes(server.pid))
