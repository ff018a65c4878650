"""Who a real broker lets in, and to what: passwords, credentials files, permissions; and what changes meanwhile."""

import asyncio
import gc
import json
import logging
import re
import socket

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.nats import Operator, all_connected, configured_nats_server, entry, nats_server, publisher
from helpers.server import config_text, server_inside
from helpers.waiting import eventually

from ccms_client import SeriesQuery
from ccms_server.app import run
from ccms_server.config import parse_config
from ccms_server.errors import ConfigError
from ccms_server.ingest import nats as ingest
from ccms_server.rpc.health import NATS_SERVICE

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
START = 1_700_000_000
INTERVAL = 60
ADMIN = {"user": "admin", "password": "admin"}
STORE = {"username": "store", "password": "secret"}


@pytest.fixture(autouse=True)
def _impatience(monkeypatch):
    monkeypatch.setattr(ingest, "RESUBSCRIBE_SECONDS", 0.05)


def users(**permitted):
    """A broker's configuration: an administrator, and users with the subjects that each may subscribe to."""
    others = [
        {"user": name, "password": "secret", "permissions": {"subscribe": subjects}}
        for name, subjects in permitted.items()
    ]
    return f"authorization {{ users: {json.dumps([ADMIN, *others])} }}\n"


def line(value, number=0):
    return f"cpu_load,hostname=n1 value={value} {START + number * INTERVAL}\n".encode()


async def nats_health(server):
    async with aio.insecure_channel(server.grpc_address) as channel:
        request = health_pb2.HealthCheckRequest(service=NATS_SERVICE)
        return (await health_pb2_grpc.HealthStub(channel).Check(request)).status


async def stored_values(server, cluster):
    query = [SeriesQuery(metric="cpu_load", host="n1")]
    [series] = await server.grpc.query(cluster, START, START + 100 * INTERVAL, query)
    return series.values.tolist()


async def stored(server, count):
    await eventually(lambda: server.service.counters.stored == count, f"{count} stored lines")


def logged(caplog, text):
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


async def test_entries_for_the_same_broker_share_a_connection(caplog):
    caplog.set_level(logging.INFO, "ccms_server.ingest")
    async with nats_server() as broker, nats_server() as other:
        entries = [
            entry(broker, ("updates", "alex"), ("both", "alex")),
            entry(other, ("updates", "emmy")),
            {**entry(broker, ("jobs", "fritz"), ("both", "fritz")), "address": f"127.0.0.1:{broker.port}/"},
        ]
        async with server_inside(nats=entries) as server, publisher(broker) as client:
            await eventually(lambda: all_connected(server), "connections")
            assert len(server.nats) == 2
            await client.publish("updates", line(1.0))
            await client.publish("jobs", line(2.0))
            await client.publish("both", line(3.0, 1))
            await stored(server, 4)
            assert await stored_values(server, "alex") == [1.0, 3.0]
            assert await stored_values(server, "fritz") == [2.0, 3.0]
            assert server.nats[0].counters.connections == 1
    assert len(logged(caplog, "nats[0] and nats[2]: connected to")) == 1
    assert len(logged(caplog, "nats[1]: connected to")) == 1


async def test_users_keep_their_rights_to_themselves(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ccms_server.ingest")
    async with configured_nats_server(tmp_path, users(alex=["alex.>"], fritz=["fritz.>"])) as broker:
        entries = [
            entry(broker, ("alex.cpu", "alex"), username="alex", password="secret"),
            entry(broker, ("fritz.cpu", "fritz"), ("alex.cpu", "fritz"), username="fritz", password="secret"),
        ]
        async with server_inside(nats=entries) as server, publisher(broker, **ADMIN) as client:
            await eventually(lambda: all_connected(server), "connections")
            await client.publish("alex.cpu", line(1.0))
            await client.publish("fritz.cpu", line(2.0))
            await stored(server, 2)
            assert await stored_values(server, "alex") == [1.0]
            assert await stored_values(server, "fritz") == [2.0]
            assert [subscriber.refused for subscriber in server.nats] == [[], ["alex.cpu"]]
    assert logged(caplog, "a connection each for nats[0], nats[1]: the same servers, but other credentials")
    assert "secret" not in caplog.text


async def test_a_user_name_and_password_are_sent(caplog):
    async with nats_server("--user", "store", "--pass", "secret") as broker:
        good = entry(broker, ("updates", "alex"), username="store", password="secret")
        bad = entry(broker, ("updates", "alex"), username="store", password="guess")
        async with server_inside(nats=[good, bad]) as server:
            await eventually(lambda: server.nats[0].connected, "the connection with the right password")
            await eventually(lambda: server.nats[1].counters.authorization_errors >= 2, "the other one to be refused")
            assert not server.nats[1].connected
            assert server.nats[0].counters.errors == 0
            assert await nats_health(server) == NOT_SERVING
    assert len(logged(caplog, "nats[1]: the broker turns us away, check the credentials")) == 1
    assert "secret" not in caplog.text
    assert "guess" not in caplog.text


async def test_a_password_in_the_address_is_sent_and_not_told(caplog):
    caplog.set_level(logging.INFO, "ccms_server.ingest")
    async with nats_server("--user", "store", "--pass", "secret") as broker:
        there = {**entry(broker, ("updates", "alex")), "address": f"nats://store:secret@127.0.0.1:{broker.port}"}
        async with server_inside(nats=[there]) as server:
            await eventually(lambda: all_connected(server), "a connection")
    assert logged(caplog, f"connected to 127.0.0.1:{broker.port}")
    assert "secret" not in caplog.text


async def test_a_broker_that_sends_us_away_is_asked_again(tmp_path, caplog):
    def let_in(password):
        return f'authorization {{ user: store, password: "{password}" }}'

    async with (
        configured_nats_server(tmp_path, let_in("secret")) as broker,
        server_inside(nats=[entry(broker, ("updates", "alex"), **STORE)]) as server,
    ):
        await eventually(lambda: all_connected(server), "a connection")
        broker.reconfigure(let_in("changed"))
        counters = server.nats[0].counters
        await eventually(lambda: counters.authorization_errors >= 2, "to be sent away and refused")
        assert not all_connected(server)
        broker.reconfigure(let_in("secret"))
        await eventually(lambda: all_connected(server), "a new connection")
        async with publisher(broker, user="store", password="secret") as client:
            await client.publish("updates", line(1.0))
        await stored(server, 1)
        assert counters.connections == 2
    gc.collect()  # a socket that was left open would be found now
    assert logged(caplog, "the broker turns us away, check the credentials")
    assert len(logged(caplog, "turns us away")) <= 2  # once for the farewell, once for the next attempts


async def test_what_is_permitted_arrives_although_something_else_is_not(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ccms_server.ingest")
    async with configured_nats_server(tmp_path, users(store=["open.>"])) as broker:
        nats = [entry(broker, ("Closed.cpu", "fritz"), ("open.cpu", "alex"), **STORE)]
        async with server_inside(nats=nats) as server, publisher(broker, **ADMIN) as client:
            subscriber = server.nats[0]
            await eventually(lambda: subscriber.counters.permission_errors >= 3, "to be refused several times")
            assert subscriber.refused == ["Closed.cpu"]
            assert await nats_health(server) == NOT_SERVING
            await client.publish("Closed.cpu", line(1.0))
            await client.publish("open.cpu", line(2.0))
            await stored(server, 1)
            assert len(logged(caplog, "does not permit to subscribe to Closed.cpu")) == 1

            broker.reconfigure(users(store=[">"]))
            await eventually(lambda: subscriber.serving, "the subscription that is permitted now")
            assert await nats_health(server) == SERVING
            await client.publish("Closed.cpu", line(3.0))
            await stored(server, 2)
            assert await stored_values(server, "fritz") == [3.0]
            assert subscriber.counters.connections == 1
            assert subscriber.counters.dropped == 0
    assert logged(caplog, "subscribed to Closed.cpu, which was refused before")


async def test_a_broker_that_has_enough_of_our_subscriptions_is_asked_again(tmp_path, caplog):
    async with (
        configured_nats_server(tmp_path, "max_subs: 1\n") as broker,
        server_inside(nats=[entry(broker, ("updates", "alex"), ("jobs", "alex"))]) as server,
    ):
        await eventually(lambda: server.nats[0].counters.errors >= 2, "two attempts")
        assert server.nats[0].counters.connections == 0
        await broker.kill()
        (tmp_path / "nats.conf").write_text("max_subs: 2\n")
        await broker.start()
        await eventually(lambda: server.nats[0].serving, "both subscriptions")
    assert len(logged(caplog, "maximum subscriptions exceeded")) == 1


async def test_a_permission_may_be_taken_away_and_given_back(tmp_path, caplog):
    async with configured_nats_server(tmp_path, users(store=[">"])) as broker:
        nats = [entry(broker, ("updates", "alex"), **STORE)]
        async with server_inside(nats=nats) as server, publisher(broker, **ADMIN) as client:
            subscriber = server.nats[0]
            await eventually(lambda: subscriber.serving, "the subscription")
            assert await nats_health(server) == SERVING
            broker.reconfigure(users(store=["nothing"]))
            await eventually(lambda: subscriber.refused, "the loss of the permission")
            assert await nats_health(server) == NOT_SERVING
            broker.reconfigure(users(store=["updates"]))
            await eventually(lambda: subscriber.serving, "the permission")
            await client.publish("updates", line(1.0))
            await stored(server, 1)
    assert len(logged(caplog, "does not permit to subscribe to updates")) == 1


async def test_permissions_that_change_while_the_broker_is_away_are_noticed(tmp_path):
    async with configured_nats_server(tmp_path, users(store=["updates"])) as broker:
        nats = [entry(broker, ("updates", "alex"), ("jobs", "alex"), **STORE)]
        async with server_inside(nats=nats) as server:
            subscriber = server.nats[0]
            await eventually(lambda: subscriber.refused == ["jobs"], "to be refused")
            await broker.kill()
            await eventually(lambda: not subscriber.connected, "the loss to be noticed")
            assert subscriber.refused == []
            (tmp_path / "nats.conf").write_text(users(store=["jobs"]))
            await broker.start()
            await eventually(lambda: subscriber.refused == ["updates"], "the other one to be refused")


async def test_what_was_received_before_a_refusal_is_not_lost(tmp_path, monkeypatch):
    async with configured_nats_server(tmp_path, users(store=["updates"])) as broker:
        nats = [entry(broker, ("updates", "alex"), **STORE)]
        async with server_inside(nats=nats) as server, publisher(broker, **ADMIN) as client:
            subscriber, room, rounds = server.nats[0], asyncio.Event(), []
            admit_lines, ask_again = server.service.admit_lines, subscriber._ask_again

            async def admit_later(payload, default_cluster):
                await room.wait()
                await admit_lines(payload, default_cluster)

            async def ask_again_and_count(client):
                await ask_again(client)
                rounds.append(subscriber.counters.permission_errors)

            monkeypatch.setattr(server.service, "admit_lines", admit_later)
            monkeypatch.setattr(subscriber, "_ask_again", ask_again_and_count)
            await eventually(lambda: subscriber.serving, "the subscription")
            for number in range(10):
                await client.publish("updates", line(1.0, number))
            await eventually(lambda: subscriber.waiting == 10, "messages that wait")
            broker.reconfigure(users(store=["nothing"]))
            await eventually(lambda: rounds and rounds[-1] == 1, "a time to ask again")
            room.set()
            await stored(server, 10)
            await eventually(lambda: subscriber.counters.permission_errors >= 2, "to be refused again")
            assert subscriber.counters.dropped == 0


async def test_a_credentials_file_is_used(tmp_path):
    operator = Operator()
    credentials = operator.write_credentials(tmp_path / "user.creds")
    async with (
        configured_nats_server(tmp_path, operator.config) as broker,
        server_inside(nats=[entry(broker, ("updates", "alex"), **{"creds-file-path": str(credentials)})]) as server,
        publisher(broker, user_credentials=credentials) as client,
    ):
        await eventually(lambda: all_connected(server), "a connection")
        await client.publish("updates", line(1.0))
        await stored(server, 1)


async def test_a_revoked_user_stays_away_until_the_file_is_replaced(tmp_path, caplog):
    operator = Operator()
    credentials = operator.write_credentials(tmp_path / "user.creds")
    async with (
        configured_nats_server(tmp_path, operator.config) as broker,
        server_inside(nats=[entry(broker, ("updates", "alex"), **{"creds-file-path": str(credentials)})]) as server,
    ):
        counters = server.nats[0].counters
        await eventually(lambda: all_connected(server), "a connection")
        broker.reconfigure(operator.config_without(credentials))
        await eventually(lambda: counters.authorization_errors >= 2, "to be sent away and refused")
        assert not all_connected(server)
        operator.write_credentials(credentials)
        await eventually(lambda: all_connected(server), "the connection of the new user")
    assert logged(caplog, "the broker turns us away, check the credentials: user authentication revoked")


async def test_a_user_whose_time_is_up_is_replaced_by_the_next_one(tmp_path, caplog):
    operator = Operator()
    credentials = operator.write_credentials(tmp_path / "user.creds", seconds=2)
    async with (
        configured_nats_server(tmp_path, operator.config) as broker,
        server_inside(nats=[entry(broker, ("updates", "alex"), **{"creds-file-path": str(credentials)})]) as server,
    ):
        await eventually(lambda: all_connected(server), "a connection")
        await eventually(lambda: not all_connected(server), "the end of the user's time")
        operator.write_credentials(credentials)
        await eventually(lambda: all_connected(server), "the connection of the new user")
        async with publisher(broker, user_credentials=credentials) as client:
            await client.publish("updates", line(1.0))
        await stored(server, 1)
    assert logged(caplog, "user authentication expired")


async def test_the_file_is_read_again_when_the_broker_comes_back(tmp_path):
    operator = Operator()
    credentials = operator.write_credentials(tmp_path / "user.creds")
    async with (
        configured_nats_server(tmp_path, operator.config) as broker,
        server_inside(nats=[entry(broker, ("updates", "alex"), **{"creds-file-path": str(credentials)})]) as server,
    ):
        await eventually(lambda: all_connected(server), "a connection")
        await broker.kill()
        (tmp_path / "nats.conf").write_text(operator.config_without(credentials))
        operator.write_credentials(credentials)
        await eventually(lambda: not all_connected(server), "the loss to be noticed")
        await broker.start()
        await eventually(lambda: all_connected(server), "the connection of the new user")
        assert server.nats[0].counters.authorization_errors == 0


@pytest.mark.parametrize(
    "content", ["", "-----BEGIN NATS USER JWT-----\nx\n-----BEGIN USER NKEY SEED-----\nSU\n", None]
)
async def test_a_file_that_is_broken_meanwhile_is_told_and_tried_again(tmp_path, caplog, content):
    """nats-py's own reader would never end on an empty one."""
    operator = Operator()
    credentials = operator.write_credentials(tmp_path / "user.creds")
    async with (
        configured_nats_server(tmp_path, operator.config) as broker,
        server_inside(nats=[entry(broker, ("updates", "alex"), **{"creds-file-path": str(credentials)})]) as server,
    ):
        await eventually(lambda: all_connected(server), "a connection")
        if content is None:
            credentials.unlink()
        else:
            credentials.write_text(content)
        await broker.kill()
        await broker.start()
        await eventually(lambda: logged(caplog, f"creds-file-path: {credentials} "), "the file to be told")
        assert not all_connected(server)
        operator.write_credentials(credentials)
        await eventually(lambda: all_connected(server), "a new connection")
    assert len(logged(caplog, f"creds-file-path: {credentials} ")) == 1


async def test_credentials_are_sent_to_a_broker_that_lets_anybody_in(tmp_path, caplog):
    everybody = users(store=["updates"], guest=["nothing"]) + "no_auth_user: guest\n"
    async with configured_nats_server(tmp_path, everybody) as broker:
        nats = [entry(broker, ("updates", "alex"), **STORE), entry(broker, ("updates", "fritz"))]
        async with server_inside(nats=nats) as server:
            await eventually(lambda: all_connected(server), "connections")
            assert [subscriber.refused for subscriber in server.nats] == [[], ["updates"]]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "BEGIN NATS USER JWT"),
        ("-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n", "BEGIN USER NKEY SEED"),
        ("-----BEGIN NATS USER JWT-----\nx\n-----BEGIN USER NKEY SEED-----", "BEGIN USER NKEY SEED"),
        ("-----BEGIN NATS USER JWT-----\nx\n-----BEGIN USER NKEY SEED-----\nSUnonsense\n", "no nkey"),
        (None, "cannot be read"),
    ],
)
async def test_a_credentials_file_that_cannot_be_used_is_told_at_the_start(tmp_path, content, rule):
    path = tmp_path / "user.creds"
    if content is not None:
        path.write_text(content)
    nats = {"address": "127.0.0.1:1", "creds-file-path": str(path), "subscriptions": [{"subscribe-to": "updates"}]}
    with socket.create_server(("127.0.0.1", 0)) as taken:  # what is found out before anything is started
        http = {"address": f"127.0.0.1:{taken.getsockname()[1]}"}
        with pytest.raises(ConfigError, match=re.escape(rule)) as raised:
            await run(parse_config(config_text(nats=[nats], **{"http-api": http})))
    assert raised.value.key == "nats[0].creds-file-path"
