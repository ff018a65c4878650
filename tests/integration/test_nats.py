"""Samples over NATS, from a real broker that goes down and comes back."""

import asyncio
import contextlib
import logging
import re
from contextlib import asynccontextmanager

import nats
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.nats import all_connected, delivered, entry, nats_server, publisher
from helpers.server import server_inside
from helpers.waiting import DEADLINE_SECONDS, eventually

from ccms_client import SeriesQuery
from ccms_server.config import NatsConfig, NatsSubscription
from ccms_server.errors import NotReadyError
from ccms_server.ingest import nats as ingest
from ccms_server.ingest.nats import subscribed
from ccms_server.ingest.writer import IngestCounters
from ccms_server.rpc.health import NATS_SERVICE

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
START = 1_700_000_000
INTERVAL = 60


def line(value, number=0, host="n1"):
    return f"cpu_load,hostname={host} value={value} {START + number * INTERVAL}\n".encode()


async def health(server, service=""):
    async with aio.insecure_channel(server.grpc_address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return (await health_pb2_grpc.HealthStub(channel).Check(request)).status


async def stored_values(server, cluster, host="n1"):
    [series] = await server.grpc.query(
        cluster, START, START + 100_000 * INTERVAL, [SeriesQuery(metric="cpu_load", host=host)]
    )
    return series.values.tolist()


async def test_each_subscription_has_its_own_default_cluster():
    async with (
        nats_server() as broker,
        server_inside(nats=[entry(broker, ("cc.alex.>", "alex"), ("cc.*.metrics", "fritz"), ("other", ""))]) as server,
        publisher(broker) as client,
    ):
        await eventually(lambda: all_connected(server), "a connection")
        await client.publish("cc.alex.node", line(1.0))
        await client.publish("cc.fritz.metrics", line(2.0))
        await client.publish("other", line(3.0))
        await client.publish("cc.fritz.metrics", b"cpu_load,cluster=emmy,hostname=n1 value=4 1700000000")
        await eventually(lambda: server.service.counters.stored == 3, "the three lines that have a cluster")
        assert await stored_values(server, "alex") == [1.0]
        assert await stored_values(server, "fritz") == [2.0]
        assert await stored_values(server, "emmy") == [4.0]
        await eventually(lambda: sum(server.service.counters.rejected.values()) == 1, "the line without a cluster")


async def test_messages_of_a_subscription_stay_in_order():
    """A later value replaces an earlier one of the same minute."""
    async with (
        nats_server() as broker,
        server_inside(nats=[entry(broker, ("updates", "alex"))]) as server,
        publisher(broker) as client,
    ):
        await eventually(lambda: all_connected(server), "a connection")
        for value in range(3000):
            await client.publish("updates", line(value, value % 3))
        await eventually(lambda: server.service.counters.stored == 3000, "all lines")
        assert await stored_values(server, "alex") == [2997.0, 2998.0, 2999.0]


async def test_the_server_starts_without_its_broker_and_connects_later():
    async with nats_server() as broker:
        await broker.kill()
        async with server_inside(nats=[entry(broker, ("updates", "alex"))]) as server:
            assert await health(server) == SERVING
            assert await health(server, NATS_SERVICE) == NOT_SERVING
            assert (await server.rest.write(line(1.0), "/api/write?cluster=alex")).status == 200
            await broker.start()
            await eventually(lambda: all_connected(server), "a connection")
            async with publisher(broker) as client:
                await client.publish("updates", line(2.0, 1))
            await eventually(lambda: server.service.counters.stored == 2, "the published line")
            assert await health(server, NATS_SERVICE) == SERVING


async def test_a_broker_killed_under_load_is_found_again(caplog):
    caplog.set_level(logging.INFO, "ccms_server.ingest")
    async with nats_server() as broker, server_inside(nats=[entry(broker, ("updates", "alex"))]) as server:
        counters = server.service.counters
        await eventually(lambda: all_connected(server), "a connection")
        async with publisher(broker, reconnect_time_wait=0.1, max_reconnect_attempts=-1, error_cb=ignore) as client:
            load = asyncio.create_task(publish_for_ever(client))
            await eventually(lambda: counters.stored > 100, "lines before the broker is killed")
            await broker.kill()
            await eventually(lambda: not all_connected(server), "the loss to be noticed")
            assert await health(server) == SERVING
            assert await health(server, NATS_SERVICE) == NOT_SERVING
            before = counters.stored
            await broker.start()
            await eventually(lambda: counters.stored > before + 100, "lines after the broker is back", seconds=10)
            assert await health(server, NATS_SERVICE) == SERVING
            load.cancel()
            await asyncio.wait({load})
        assert counters.rejected == {}
    messages = [record.getMessage() for record in caplog.records]
    assert len([message for message in messages if "connected to 127.0.0.1" in message]) == 2
    assert len([message for message in messages if "connection lost" in message]) == 1
    assert len([message for message in messages if "ConnectionRefusedError" in message]) <= 1


async def ignore(error):
    """The publisher's part of a broker's death."""


async def publish_for_ever(client):
    number = 0
    while True:
        with contextlib.suppress(nats.errors.OutboundBufferLimitError):  # while the broker is away
            await client.publish("updates", line(float(number), number % 1000))
        number += 1
        await asyncio.sleep(0.0005)


async def test_what_the_broker_delivered_is_stored_when_the_server_stops():
    async with nats_server() as broker, publisher(broker) as client:
        async with server_inside(nats=[entry(broker, ("updates", "alex"))]) as server:
            await eventually(lambda: all_connected(server), "a connection")
            for number in range(2000):
                await client.publish("updates", line(1.0, number))
            await delivered(client)
        assert server.service.counters.stored == 2000
        assert server.service.counters.dropped == 0


async def test_one_of_several_servers_is_enough():
    async with nats_server() as dead, nats_server() as broker:
        await dead.kill()
        address = f"{dead.url}, 127.0.0.1:{broker.port}"
        subscription = {"subscribe-to": "updates", "cluster-tag": "alex"}
        async with (
            server_inside(nats=[{"address": address, "subscriptions": [subscription]}]) as server,
            publisher(broker) as client,
        ):
            await eventually(lambda: all_connected(server), "a connection")
            await client.publish("updates", line(1.0))
            await eventually(lambda: server.service.counters.stored == 1, "the published line")
            assert await stored_values(server, "alex") == [1.0]


async def test_several_entries_have_a_connection_each():
    async with nats_server() as one, nats_server() as other:
        entries = [entry(one, ("updates", "alex")), entry(other, ("updates", "fritz"))]
        async with server_inside(nats=entries) as server, publisher(one) as client, publisher(other) as other_client:
            await eventually(lambda: all_connected(server), "both connections")
            await client.publish("updates", line(1.0))
            await other_client.publish("updates", line(2.0))
            await eventually(lambda: server.service.counters.stored == 2, "both lines")
            assert await stored_values(server, "alex") == [1.0]
            assert await stored_values(server, "fritz") == [2.0]
            await other.kill()
            await eventually(lambda: not server.nats[1].connected, "the loss to be noticed")
            assert server.nats[0].connected
            assert await health(server, NATS_SERVICE) == NOT_SERVING


class BusySink:
    """Takes nothing before it is told to."""

    def __init__(self, error=None):
        self.counters = IngestCounters()
        self.free = asyncio.Event()
        self.payloads = []
        self._error = error

    async def admit_lines(self, payload, default_cluster):
        await self.free.wait()
        if self._error is not None:
            raise self._error
        self.payloads.append(payload)


async def set_health(connected):
    """Nobody asks."""


def config_of(broker):
    subscription = NatsSubscription(subscribe_to="updates", cluster_tag="alex")
    return NatsConfig(address=broker.url, subscriptions=(subscription,))


async def test_what_does_not_fit_is_counted_and_logged_once(monkeypatch, caplog):
    monkeypatch.setattr(ingest, "PENDING_MESSAGES_MAX", 10)
    sink = BusySink()
    async with (
        nats_server() as broker,
        publisher(broker) as client,
        subscribed([config_of(broker)], sink, set_health) as [subscriber],
    ):
        await eventually(lambda: subscriber.connected, "a connection")
        await client.publish("updates", b"first")
        await eventually(lambda: subscriber.waiting == 1, "the message in hand")
        for number in range(30):
            await client.publish("updates", b"%d" % number)
        await eventually(lambda: sink.counters.dropped == 20, "the messages that do not fit")
        sink.free.set()
        await eventually(lambda: len(sink.payloads) == 11, "the messages that fit")
        assert sink.payloads == [b"first", *(b"%d" % number for number in range(10))]
        assert subscriber.counters.dropped == 20
    assert len(re.findall("messages lost", caplog.text)) == 1


async def test_what_was_received_is_handed_over_although_the_broker_is_gone():
    sink = BusySink()
    async with nats_server() as broker, publisher(broker, error_cb=ignore) as client:
        async with subscribed([config_of(broker)], sink, set_health) as [subscriber]:
            await eventually(lambda: subscriber.connected, "a connection")
            for number in range(30):
                await client.publish("updates", b"%d" % number)
            await eventually(lambda: subscriber.waiting == 30, "all messages received")
            await broker.kill()
            await eventually(lambda: not subscriber.connected, "the loss to be noticed")
            asyncio.get_running_loop().call_soon(sink.free.set)
        assert len(sink.payloads) == 30


async def test_messages_that_are_refused_are_counted():
    sink = BusySink(error=NotReadyError("stopping"))
    sink.free.set()
    async with (
        nats_server() as broker,
        publisher(broker) as client,
        subscribed([config_of(broker)], sink, set_health) as [subscriber],
    ):
        await eventually(lambda: subscriber.serving, "the subscription")
        for _ in range(3):
            await client.publish("updates", b"x")
        await eventually(lambda: sink.counters.dropped, "a refused message")
        await eventually(lambda: subscriber.counters.dropped == 3, "all refused messages")
        assert sink.counters.dropped == 3
        assert subscriber.counters.messages == 0


GREETINGS = [
    b"INFO []\r\n",
    b"INFO " + b"x" * 100_000 + b"\r\n",
    b'INFO {"connect_urls": ["[::::"]}\r\n',
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\xff\xfe\x00",
]


@asynccontextmanager
async def impostor(broker, greeting):
    """Listens in place of a broker that is down, and greets with something else; gives a list of its guests."""
    guests = []

    async def greet(_, writer):
        guests.append(writer)
        with contextlib.suppress(ConnectionError):
            writer.write(greeting)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", broker.port):
        yield guests


@pytest.mark.parametrize("greeting", GREETINGS)
async def test_a_broker_that_talks_nonsense_costs_nothing_but_its_messages(greeting):
    async with nats_server() as broker:
        await broker.kill()
        async with (
            impostor(broker, greeting) as guests,
            server_inside(nats=[entry(broker, ("updates", "alex"))]) as server,
        ):
            await server.rest.write(line(1.0), "/api/write?cluster=alex")
            await eventually(lambda: len(guests) >= 2, "a second attempt")
            assert await stored_values(server, "alex") == [1.0]
            assert not all_connected(server)


@pytest.mark.parametrize("greeting", GREETINGS[:2])
async def test_a_broker_that_comes_back_as_something_else_is_found_again(greeting, monkeypatch):
    """nats-py stops to reconnect, and says so to nobody."""
    monkeypatch.setattr(ingest, "SILENCE_SECONDS", 0.1)
    async with nats_server() as broker, server_inside(nats=[entry(broker, ("updates", "alex"))]) as server:
        await eventually(lambda: all_connected(server), "a connection")
        await broker.kill()
        async with impostor(broker, greeting) as guests:
            await eventually(lambda: len(guests) >= 2, "a second attempt")
        await broker.start()
        await eventually(lambda: all_connected(server), "a new connection")
        async with publisher(broker) as client:
            await client.publish("updates", line(1.0))
        await eventually(lambda: server.service.counters.stored == 1, "the published line")


async def test_what_nats_py_did_not_expect_is_told_once_and_truly(caplog):
    async with nats_server() as broker:
        await broker.kill()
        async with (
            impostor(broker, GREETINGS[0]) as guests,
            server_inside(nats=[entry(broker, ("updates", "alex"))]),
        ):
            await eventually(lambda: len(guests) >= 3, "a third attempt")
    records = [record for record in caplog.records if record.name.startswith(ingest.__name__)]
    [record] = [record for record in records if record.levelname == "ERROR"]
    assert record.getMessage().startswith("nats[0]: the broker cannot be understood: AttributeError: ")


async def test_a_message_that_a_defect_loses_is_counted(caplog):
    sink = BusySink(error=ZeroDivisionError("a defect"))
    sink.free.set()
    async with (
        nats_server() as broker,
        publisher(broker) as client,
        subscribed([config_of(broker)], sink, set_health) as [subscriber],
    ):
        await eventually(lambda: subscriber.connected, "a connection")
        await client.publish("updates", b"x")
        await eventually(lambda: sink.counters.dropped == 1, "the loss")
    assert "nats[0]: a message could not be handed over" in caplog.text


async def test_a_connection_that_swallows_being_cancelled_does_not_hold_up_the_end(monkeypatch):
    cancelled = []

    async def stubborn(self):
        while len(cancelled) < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(self)

    monkeypatch.setattr(ingest, "CANCEL_SECONDS", 0.01)
    monkeypatch.setattr(ingest.NatsSubscriber, "run", stubborn)
    configs = [NatsConfig(address="nats://127.0.0.1:9", subscriptions=(NatsSubscription(subscribe_to="x"),))]
    async with asyncio.timeout(DEADLINE_SECONDS), subscribed(configs, BusySink(), set_health):
        await asyncio.sleep(0)
    assert len(cancelled) == 2
