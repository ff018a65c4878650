"""TLS to a real broker: whom the server trusts, what it shows, and that it does not do without."""

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager

import pytest
from helpers.authority import Authority, chain
from helpers.nats import Operator, all_connected, configured_nats_server, entry, publisher
from helpers.server import server_inside
from helpers.waiting import eventually

START = 1_700_000_000
LINE = f"cpu_load,hostname=n1 value=1.5 {START}\n".encode()


@pytest.fixture
def authority(tmp_path):
    directory = tmp_path / "tls"
    directory.mkdir()
    return Authority(directory)


@pytest.fixture
def stranger(tmp_path):
    """An authority that nobody trusts."""
    directory = tmp_path / "stranger"
    directory.mkdir()
    return Authority(directory)


def tls(authority, **settings):
    """The part of a broker's configuration about TLS."""
    files = {
        name: str(authority.directory / f"{file}.pem") for name, file in (("cert_file", "cert"), ("key_file", "key"))
    }
    return f"tls: {json.dumps(files | settings)}\n"


def tls_for_clients(authority, **settings):
    """The same for a broker that wants certificates of its clients."""
    return tls(authority, ca_file=str(authority.directory / "ca.pem"), **settings)


def trusting(authority):
    """Keys of the server's configuration."""
    return {"tls-ca-file": str(authority.directory / "ca.pem")}


def showing(authority, certificate):
    """Keys of the server's configuration, with a certificate to show."""
    cert, key = authority.directory / "client.pem", authority.directory / "client-key.pem"
    cert.write_bytes(chain(certificate))
    key.write_bytes(certificate.private_key_pem.bytes())
    return trusting(authority) | {"tls-cert-file": str(cert), "tls-key-file": str(key)}


def at(broker, scheme, **settings):
    return {**entry(broker, ("updates", "alex"), **settings), "address": f"{scheme}://127.0.0.1:{broker.port}"}


async def arrives(server, broker, authority, client_certificate=None, **options):
    """Publishes a line, and waits until it is stored."""
    await eventually(lambda: all_connected(server), "a connection")
    context = authority.context(client_certificate)
    async with publisher(broker, tls=context, **options) as client:
        await client.publish("updates", LINE)
    await eventually(lambda: server.service.counters.stored == 1, "the published line")
    assert server.nats[0].counters.messages == 1
    assert server.nats[0].counters.dropped == 0


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_a_broker_that_wants_tls_gets_it(tmp_path, authority, scheme):
    async with (
        configured_nats_server(tmp_path, tls(authority)) as broker,
        server_inside(nats=[at(broker, scheme, **trusting(authority))]) as server,
    ):
        await arrives(server, broker, authority)


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_a_broker_that_offers_tls_is_taken_at_its_word(tmp_path, authority, scheme):
    async with (
        configured_nats_server(tmp_path, f"{tls(authority)}allow_non_tls: true\nhttp: '127.0.0.1:-1'\n") as broker,
        server_inside(nats=[at(broker, scheme, **trusting(authority))]) as server,
    ):
        await arrives(server, broker, authority)
        assert server.nats[0]._client._transport._io_writer.get_extra_info("ssl_object").version() == "TLSv1.3"


async def test_a_password_goes_with_tls(tmp_path, authority):
    user = 'authorization { user: store, password: "secret" }\n'
    async with (
        configured_nats_server(tmp_path, tls(authority) + user) as broker,
        server_inside(nats=[at(broker, "tls", username="store", password="secret", **trusting(authority))]) as server,
    ):
        await arrives(server, broker, authority, user="store", password="secret")


async def test_a_credentials_file_goes_with_tls(tmp_path, authority):
    operator = Operator()
    credentials = operator.write_credentials(tmp_path / "user.creds")
    settings = {"creds-file-path": str(credentials), **trusting(authority)}
    async with (
        configured_nats_server(tmp_path, tls(authority) + operator.config) as broker,
        server_inside(nats=[at(broker, "tls", **settings)]) as server,
    ):
        await arrives(server, broker, authority, user_credentials=credentials)


async def test_a_broker_may_want_a_certificate(tmp_path, authority):
    certificate = authority.client()
    async with (
        configured_nats_server(tmp_path, tls_for_clients(authority, verify=True)) as broker,
        server_inside(nats=[at(broker, "nats", **showing(authority, certificate))]) as server,
    ):
        await arrives(server, broker, authority, certificate)


async def test_a_certificate_may_say_who_the_user_is(tmp_path, authority):
    users = 'authorization { users: [{ user: "collector@example.org", permissions: { subscribe: "updates" } }] }\n'
    nats = {"subscriptions": [{"subscribe-to": "updates", "cluster-tag": "alex"}, {"subscribe-to": "other"}]}
    async with (
        configured_nats_server(tmp_path, tls_for_clients(authority, verify_and_map=True) + users) as broker,
        server_inside(nats=[at(broker, "tls", **showing(authority, authority.client())) | nats]) as server,
    ):
        await eventually(lambda: all_connected(server), "a connection")
        assert server.nats[0].refused == ["other"]


async def test_without_the_certificate_the_broker_turns_us_away(tmp_path, authority, stranger, caplog):
    nobody, other = trusting(authority), showing(stranger, stranger.client()) | trusting(authority)
    async with (
        configured_nats_server(tmp_path, tls_for_clients(authority, verify=True)) as broker,
        server_inside(nats=[at(broker, "tls", **nobody), at(broker, "tls", **other)]) as server,
    ):
        for subscriber in server.nats:
            await eventually(lambda each=subscriber: each.counters.errors >= 3, "three attempts")
        assert not any(subscriber.connected for subscriber in server.nats)
        assert (await server.rest.write(LINE, "/api/write?cluster=alex")).status == 200
    warnings = [record for record in caplog.records if record.name.startswith("ccms_server.ingest.nats")]
    assert 2 <= len(warnings) <= 6  # an attempt may fail while writing or while reading
    assert all(record.levelname == "WARNING" for record in warnings)


async def test_a_broker_of_an_unknown_authority_is_not_trusted(tmp_path, authority, stranger, caplog):
    async with (
        configured_nats_server(tmp_path, tls(stranger)) as broker,
        server_inside(nats=[at(broker, "nats", **trusting(authority)), at(broker, "nats")]) as server,
    ):
        for subscriber in server.nats:
            await eventually(lambda each=subscriber: each.counters.errors >= 3, "three attempts")
        assert not any(subscriber.connected for subscriber in server.nats)
    told = [record.getMessage() for record in caplog.records if "CERTIFICATE_VERIFY_FAILED" in record.getMessage()]
    assert sorted(message[:7] for message in told) == ["nats[0]", "nats[1]"]


async def test_a_broker_that_is_not_trusted_at_first_is_asked_again(tmp_path, authority, stranger):
    async with (
        configured_nats_server(tmp_path, tls(stranger)) as broker,
        server_inside(nats=[at(broker, "tls", **trusting(authority))]) as server,
    ):
        await eventually(lambda: server.nats[0].counters.errors >= 2, "two attempts")
        broker.reconfigure(tls(authority))
        await arrives(server, broker, authority)


async def test_a_broker_of_another_name_is_not_trusted(tmp_path, authority, caplog):
    authority.put(authority._ca.issue_cert("broker.example.org"))
    async with (
        configured_nats_server(tmp_path, tls(authority)) as broker,
        server_inside(nats=[at(broker, "tls", **trusting(authority))]) as server,
    ):
        await eventually(lambda: "certificate is not valid for '127.0.0.1'" in caplog.text, "the name to be checked")
        assert not all_connected(server)


async def test_a_renewed_authority_counts_from_the_next_connection_on(tmp_path, authority, stranger):
    async with (
        configured_nats_server(tmp_path, tls(authority)) as broker,
        server_inside(nats=[at(broker, "tls", **trusting(authority))]) as server,
    ):
        await eventually(lambda: all_connected(server), "a connection")
        await broker.kill()
        for name in ("ca.pem", "cert.pem", "key.pem"):
            (authority.directory / name).write_bytes((stranger.directory / name).read_bytes())
        await eventually(lambda: not all_connected(server), "the loss to be noticed")
        await broker.start()
        await arrives(server, broker, stranger)


@pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float' is deprecated:DeprecationWarning")  # nats-py
async def test_web_sockets_have_the_same_tls(tmp_path, authority):
    web_socket = f"websocket {{ listen: '127.0.0.1:-1', {tls(authority)} }}"
    async with configured_nats_server(tmp_path, web_socket) as broker:
        address = f"wss://127.0.0.1:{broker.websocket_port}"
        nats = {**entry(broker, ("updates", "alex"), **trusting(authority)), "address": address}
        async with server_inside(nats=[nats]) as server, publisher(broker) as client:
            await eventually(lambda: all_connected(server), "a connection")
            await client.publish("updates", LINE)
            await eventually(lambda: server.service.counters.stored == 1, "the published line")


@asynccontextmanager
async def plain_broker(greeting):
    """Listens, greets, and notes what it is sent."""
    received = []

    async def greet(reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(b"INFO " + json.dumps(greeting).encode() + b"\r\n")
            await writer.drain()
            received.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1], received


@pytest.mark.parametrize(("scheme", "has_files"), [("tls", False), ("nats", True)])
async def test_no_password_is_sent_without_the_tls_that_was_asked_for(authority, scheme, has_files, caplog):
    async with plain_broker({"auth_required": True}) as (port, received):
        nats = {
            "address": f"{scheme}://127.0.0.1:{port}",
            "username": "store",
            "password": "secret",
            "subscriptions": [{"subscribe-to": "updates"}],
            **(trusting(authority) if has_files else {}),
        }
        async with server_inside(nats=[nats]):
            await eventually(lambda: len(received) >= 2, "two attempts")
    assert set(received) == {b""}
    assert caplog.text.count("secure connection not available") == 1


async def test_credentials_are_sent_although_the_broker_does_not_ask(tmp_path):
    credentials = Operator().write_credentials(tmp_path / "user.creds")
    async with plain_broker({"nonce": "once"}) as (port, received):
        subscriptions = [{"subscribe-to": "updates"}]
        nats = {"address": f"127.0.0.1:{port}", "creds-file-path": str(credentials), "subscriptions": subscriptions}
        async with server_inside(nats=[nats]):
            await eventually(lambda: received, "an attempt")
    command, _, options = received[0].partition(b" ")
    assert command == b"CONNECT"
    assert {"jwt", "sig"} <= json.loads(options).keys()
