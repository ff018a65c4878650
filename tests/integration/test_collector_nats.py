"""Byte for byte what cc-metric-collector's NATS sink sends to a broker, and what is found of it here."""

import asyncio
import json
from contextlib import asynccontextmanager

from helpers.nats import all_connected, configured_nats_server, entry, nats_server
from helpers.server import server_inside
from helpers.waiting import eventually

from ccms_client import SeriesQuery

START = 1_700_000_000
INTERVAL = 60
METRICS = {
    "cpu_load": {"frequency": INTERVAL},
    "flops_any": {"frequency": INTERVAL, "aggregation": "sum"},
    "acc_power": {"frequency": INTERVAL, "aggregation": "sum"},
}
# One flush: tags sorted, a field, seconds; metrics that nobody asked for, and an event, among the others.
FIRST = f"""\
cpu_load,cluster=testcluster,hostname=h,type=node value=1.5 {START}
flops_any,cluster=testcluster,hostname=h,type=hwthread,type-id=0 value=2 {START}
flops_any,cluster=testcluster,hostname=h,type=hwthread,type-id=1 value=3.25 {START}
acc_power,cluster=testcluster,hostname=h,type=accelerator,type-id=00000000:49:00.0 value=71.3 {START}
nfs_iostat_read,cluster=testcluster,hostname=h,stype=filesystem,stype-id=/home,type=node value=17i {START}
nv_perf_state,cluster=testcluster,hostname=h,type=accelerator,type-id=00000000:49:00.0 value="P8" {START}
slurm,cluster=testcluster,function=start_job,hostname=h,type=node event="{{\\"jobId\\": 123}}" {START}
cpu_load,cluster=testcluster,hostname=other\\ host,type=node value=-1.5e-3 {START}
""".encode()
CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,%b"tls_required":false,"name":"","lang":"go","version":"1.48.0",'
    b'"protocol":1,"echo":true,"headers":true,"no_responders":true}\r\n'
)
SECOND = f"cpu_load,cluster=testcluster,hostname=h,type=node value=2.5 {START + INTERVAL}\n".encode()


class Collector:
    """Speaks the protocol as the Go client of NATS does."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer

    async def connect(self, credentials):
        assert (await self._reader.readline()).startswith(b"INFO {")
        self._writer.write(CONNECT % credentials)
        await self.flush()

    def publish(self, subject, payload):
        self._writer.write(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))

    async def flush(self):
        """Returns once the broker has taken everything; it may greet anew, and ask whether we are there."""
        self._writer.write(b"PING\r\n")
        while (answer := await self._reader.readline()) != b"PONG\r\n":
            assert answer.startswith((b"INFO {", b"PING")), answer
            if answer == b"PING\r\n":
                self._writer.write(b"PONG\r\n")


@asynccontextmanager
async def collector(broker, credentials=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    try:
        sink = Collector(reader, writer)
        await sink.connect(credentials)
        yield sink
    finally:
        writer.close()
        await writer.wait_closed()


async def values(server, metric, host, component_type="", ids=()):
    query = SeriesQuery(metric=metric, host=host, type=component_type, type_ids=ids, aggregate=False)
    found = await server.grpc.query("testcluster", START, START + 2 * INTERVAL, [query])
    return [series.values.tolist() for series in found]


async def test_what_a_collector_sends_is_found():
    async with (
        nats_server() as broker,
        server_inside(metrics=METRICS, nats=[entry(broker, ("updates", ""))]) as server,
        collector(broker) as sink,
    ):
        await eventually(lambda: all_connected(server), "a connection")
        sink.publish("updates", FIRST)
        sink.publish("updates", SECOND)
        await sink.flush()
        await eventually(lambda: server.service.counters.stored == 6, "the samples of metrics that are configured")
        assert await values(server, "cpu_load", "h") == [[1.5, 2.5]]
        assert await values(server, "cpu_load", "other host") == [[-0.0015]]
        assert await values(server, "flops_any", "h", "hwthread", ["0", "1"]) == [[2.0], [3.25]]
        assert await values(server, "acc_power", "h", "accelerator", ["00000000:49:00.0"]) == [[71.3]]
        assert server.nats[0].counters.messages == 2
        assert server.nats[0].counters.payload_bytes == len(FIRST) + len(SECOND)
        assert server.service.counters.rejected == {}


async def test_a_collector_with_a_password_may_be_all_that_publishes(tmp_path):
    """The store has no need to publish, nor the collector to subscribe."""
    users = [
        {"user": "collector", "password": "c", "permissions": {"publish": "updates", "subscribe": {"deny": ">"}}},
        {"user": "store", "password": "s", "permissions": {"publish": {"deny": ">"}, "subscribe": "updates"}},
    ]
    async with configured_nats_server(tmp_path, f"authorization {{ users: {json.dumps(users)} }}") as broker:
        nats = entry(broker, ("updates", "testcluster"), username="store", password="s")
        async with (
            server_inside(nats=[nats]) as server,
            collector(broker, b'"user":"collector","pass":"c",') as sink,
        ):
            await eventually(lambda: server.nats[0].serving, "the subscription")
            sink.publish("updates", b"cpu_load,hostname=h,type=node value=1.5 %d\n" % START)
            await sink.flush()
            await eventually(lambda: server.service.counters.stored == 1, "the sample")
            assert await values(server, "cpu_load", "h") == [[1.5]]
