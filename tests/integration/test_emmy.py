"""A whole day of a real job goes in by every way there is, in two orders, and comes out again, value by value.

The measurements are those of 32 hosts, 9 metrics each, one sample a minute with gaps; they were taken in December 2020.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers.nats import delivered, nats_server, publisher
from helpers.server import server_inside
from helpers.waiting import eventually

from ccms_client import SampleColumn, SeriesQuery

MEASUREMENTS = Path(__file__).parent.parent / "data" / "emmy-1403244.lp.gz"
INTERVAL = 60
BATCH_LINES = 300
SUBJECT = "hpc.emmy"


@dataclass(frozen=True)
class Job:
    """What was measured.

    Attributes:
        lines: As a collector sends them: minute by minute, host by host.
        samples: Time and value of each sample, by metric and host.
    """

    lines: list[str]
    samples: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]

    @property
    def metrics(self):
        return {metric: {"frequency": INTERVAL} for metric, _ in self.samples}

    @property
    def start(self):
        return min(int(times[0]) for times, _ in self.samples.values())

    @property
    def end(self):
        return max(int(times[-1]) for times, _ in self.samples.values()) + INTERVAL

    def values(self, series):
        """Values from the first sample of a series to its last, NaN where a minute is missing."""
        times, values = self.samples[series]
        slots = (times - times[0]) // INTERVAL
        expected = np.full(slots[-1] + 1, np.nan)
        expected[slots] = values
        return expected


@pytest.fixture(scope="module")
def job():
    lines = gzip.decompress(MEASUREMENTS.read_bytes()).decode().splitlines(keepends=True)
    collected = {}
    for line in lines:
        key, field, time = line.split()
        metric, _, hostname, _ = key.split(",")
        series = metric, hostname.removeprefix("hostname=")
        collected.setdefault(series, []).append((int(time), float(field.removeprefix("value="))))
    samples = {
        series: (np.array([time for time, _ in pairs]), np.array([value for _, value in pairs]))
        for series, pairs in collected.items()
    }
    assert len(lines) == 377_019
    assert len(samples) == 32 * 9
    return Job(lines, samples)


def as_recorded(job):
    return job.lines


def host_by_host(job):
    return sorted(job.lines, key=lambda line: line.split(",")[2])  # stable: each host's lines stay in order


def batches(lines):
    return ["".join(lines[start : start + BATCH_LINES]).encode() for start in range(0, len(lines), BATCH_LINES)]


async def over_http(server, lines):
    for batch in batches(lines):
        answer = await server.rest.write(batch)
        assert answer.status == 200, answer.body


async def over_grpc(server, lines):
    for batch in batches(lines):
        result = await server.grpc.write_lines(batch)
        assert result.stored == batch.count(b"\n")


ORDERS = pytest.mark.parametrize("order", [as_recorded, host_by_host], ids=lambda order: order.__name__)


@ORDERS
@pytest.mark.parametrize("feed", [over_http, over_grpc], ids=lambda feed: feed.__name__)
async def test_lines_come_out_as_they_went_in(job, feed, order):
    async with server_inside(metrics=job.metrics) as server:
        await feed(server, order(job))
        await assert_complete(server, job)


@ORDERS
async def test_messages_come_out_as_they_went_in(job, order):
    async with nats_server() as broker:
        nats = [{"address": broker.url, "subscriptions": [{"subscribe-to": SUBJECT, "cluster-tag": "other"}]}]
        async with server_inside(metrics=job.metrics, nats=nats) as server, publisher(broker) as client:
            await eventually(lambda: server.nats[0].connected, "a connection to NATS")
            for batch in batches(order(job)):
                await client.publish(SUBJECT, batch)
            await delivered(client)
            await eventually(lambda: server.service.counters.stored >= len(job.lines), "all samples stored")
            assert server.nats[0].counters.messages == len(batches(job.lines))
            assert server.nats[0].counters.payload_bytes == sum(map(len, job.lines))
            assert server.service.counters.dropped == 0
            await assert_complete(server, job)


async def test_columns_come_out_as_they_went_in(job):
    async with server_inside(metrics=job.metrics) as server:
        for (metric, host), (times, values) in job.samples.items():
            column = SampleColumn(metric=metric, cluster="emmy", host=host, timestamps=times, values=values)
            assert (await server.grpc.write([column])).stored == len(values)
        await assert_complete(server, job)


async def assert_complete(server, job):
    counters = server.service.counters
    assert (counters.stored, counters.ignored, counters.rejected) == (len(job.lines), 0, {})
    await assert_complete_over_grpc(server.grpc, job)
    await assert_complete_over_rest(server.rest, job)


async def assert_complete_over_grpc(grpc, job):
    queries = [SeriesQuery(metric=metric, host=host) for metric, host in job.samples]
    answers = await grpc.query("emmy", job.start, job.end, queries)
    assert [(answer.metric, answer.host) for answer in answers] == list(job.samples)
    for answer in answers:
        times, values = job.samples[answer.metric, answer.host]
        assert (answer.start, answer.end, answer.interval) == (times[0], times[-1] + INTERVAL, INTERVAL)
        np.testing.assert_array_equal(answer.values, job.values((answer.metric, answer.host)))
        assert answer.statistics.count == len(values)
        assert (answer.statistics.min, answer.statistics.max) == (values.min(), values.max())
        assert answer.statistics.avg == pytest.approx(values.mean())


async def assert_complete_over_rest(rest, job):
    queries = [{"metric": metric, "host": host} for metric, host in job.samples]
    answer = await rest.query({"cluster": "emmy", "from": job.start, "to": job.end, "queries": queries})
    assert answer.status == 200
    for series, [result] in zip(job.samples, answer.json["results"], strict=True):
        times, values = job.samples[series]
        expected = job.values(series)
        padding = (times[0] - job.start) // INTERVAL
        assert (result["from"], result["to"], result["resolution"]) == (times[0], times[-1] + INTERVAL, INTERVAL)
        data = np.array(result["data"], dtype=float)  # null becomes NaN
        assert np.isnan(data[:padding]).all()
        np.testing.assert_allclose(data[padding:], expected, atol=0.0005001, rtol=0)
        assert all(value is None or round(value, 3) == value for value in result["data"])
        assert (result["min"], result["max"]) == (round(values.min(), 3), round(values.max(), 3))
        assert result["avg"] == pytest.approx(values.mean(), abs=0.0005001)
