"""TLS at the real server, over REST and gRPC."""

import asyncio
import logging
import ssl
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from helpers.authority import Authority, serial
from helpers.launch import launched
from helpers.rest import rest_client
from helpers.server import clients, server_inside
from helpers.tokens import Issuer
from helpers.waiting import eventually

from ccms_client import AsyncClient, ServerUnavailableError, Tls
from ccms_server import tls
from ccms_server.errors import ConfigError

LINES = "cpu_load,cluster=alex,hostname=n1 value=1.5 1700000000\n"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def always_checked(monkeypatch):
    monkeypatch.setattr(tls, "CHECK_SECONDS", 0.0)


@pytest.fixture
async def server(authority):
    async with server_inside(authority=authority, **{"http-api": authority.http_api}) as server:
        yield server


ALPN = {"rest": "http/1.1", "grpc": "h2"}
GREETING = {"rest": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "grpc": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}


async def handshake(server, protocol, context):
    """Connects, and waits for a word of the server: only then has it accepted the client's certificate."""
    host, port = {"rest": server.rest.base_url.partition("://")[2], "grpc": server.grpc_address}[protocol].split(":")
    context.set_alpn_protocols([ALPN[protocol]])
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("ssl_object")
    writer.write(GREETING[protocol])
    try:
        if not await reader.read(1):
            raise ConnectionError("the server ended the connection")
    finally:
        writer.close()
    return shown


async def shown_serial(server, protocol, authority):
    """Serial number of the certificate that a new connection is shown."""
    shown = await handshake(server, protocol, authority.context())
    return serial(ssl.DER_cert_to_PEM_cert(shown.getpeercert(binary_form=True)).encode())


async def test_both_protocols_are_encrypted(server):
    assert server.rest.base_url.startswith("https://")
    assert (await server.rest.write(LINES)).status == 200
    assert (await server.grpc.write_lines(LINES.encode())).stored == 1


async def test_tokens_travel_encrypted(authority, caplog):
    issuer = Issuer()
    config = {"http-api": {**authority.http_api, "address": "0.0.0.0:0"}, "jwt-public-key": issuer.public_key}
    async with server_inside(**config) as server:
        port = server.rest.base_url.rpartition(":")[2]
        access = {"token": issuer.lasting(), "authority": authority}
        async with clients(f"https://127.0.0.1:{port}", server.grpc_address, **access) as (rest, grpc):
            assert (await rest.write(LINES)).status == 200
            assert (await grpc.write_lines(LINES.encode())).stored == 1
    assert "unencrypted" not in caplog.text


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
async def test_who_does_not_know_the_authority_does_not_connect(server, protocol):
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(server, protocol, ssl.create_default_context())


async def test_a_client_without_tls_gets_no_answer(server):
    plain = server.rest.base_url.replace("https", "http")
    async with rest_client(plain) as rest, AsyncClient(server.grpc_address) as grpc:
        with pytest.raises(aiohttp.ClientError):
            await rest.write(LINES)
        with pytest.raises(ServerUnavailableError):
            await grpc.write_lines(LINES.encode(), deadline_seconds=20)
    assert (await server.rest.write(LINES)).status == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("version", ["TLSv1_1", "TLSv1_2", "TLSv1_3"])
async def test_tls_is_of_version_1_2_at_least(server, authority, protocol, version):
    context = authority.context()
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # this side is not to blame
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    if version == "TLSv1_1":
        with pytest.raises(ConnectionResetError):  # by the server; if it was this side, it would be an `SSLError`
            await handshake(server, protocol, context)
    else:
        shown = await handshake(server, protocol, context)
        assert shown.version() == version.replace("_", ".")
        assert shown.selected_alpn_protocol() == ALPN[protocol]


@pytest.fixture
async def closed_server(authority):
    """One that wants certificates, and clients that have one."""
    http_api = authority.http_api_with_clients
    async with server_inside(authority=authority, client=authority.client(), **{"http-api": http_api}) as server:
        yield server


async def test_clients_with_a_certificate_of_the_authority_are_served(closed_server, caplog):
    assert (await closed_server.rest.write(LINES)).status == 200
    assert (await closed_server.grpc.write_lines(LINES.encode())).stored == 1


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("shown", ["none", "of another authority"])
async def test_other_clients_are_not(closed_server, authority, tmp_path_factory, protocol, version, shown):
    other = Authority(tmp_path_factory.mktemp("other"))
    context = authority.context(other.client() if shown == "of another authority" else None)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await handshake(closed_server, protocol, context)


async def test_half_a_client_certificate_is_refused():
    with pytest.raises(ValueError, match="belong together"):
        Tls(certificate=b"")


@pytest.mark.usefixtures("always_checked")
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
async def test_a_renewed_certificate_is_served_without_a_restart(server, authority, protocol):
    assert (await server.rest.write(LINES)).status == 200
    assert (await server.grpc.write_lines(LINES.encode())).stored == 1
    for _ in range(2):
        new = authority.renew()
        for _ in range(2):
            assert await shown_serial(server, protocol, authority) == new
    assert (await server.rest.write(LINES)).status == 200  # on connections that were there before
    assert (await server.grpc.write_lines(LINES.encode())).stored == 1


@pytest.mark.usefixtures("always_checked")
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
async def test_a_broken_renewal_changes_nothing_and_is_told_once(server, authority, protocol, caplog):
    old = authority.renew()
    assert await shown_serial(server, protocol, authority) == old
    (authority.directory / "cert.pem").write_bytes(authority.issue().cert_chain_pems[0].bytes())  # the key is missing
    for _ in range(3):
        assert await shown_serial(server, protocol, authority) == old
    [told] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "https-key-file" in told
    new = authority.renew()
    assert await shown_serial(server, protocol, authority) == new


async def test_a_process_notices_a_renewal_by_itself(tmp_path, authority):
    async with (
        launched(tmp_path, **{"http-api": authority.http_api}) as process,
        process.clients(authority=authority) as server,
    ):
        assert server.rest.base_url.startswith("https://")
        new = authority.renew()

        async def is_new():
            return await shown_serial(server, "rest", authority) == new

        await eventually(is_new, "the new certificate")
        assert await shown_serial(server, "grpc", authority) == new


async def test_a_certificate_that_cannot_be_used_ends_the_start(authority):
    (authority.directory / "key.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"https-key-file: .*key\.pem' must hold a private key in PEM form"):
        async with server_inside(authority=authority, **{"http-api": authority.http_api}):
            pass


async def test_a_certificate_that_expires_soon_is_warned_of(authority, caplog):
    authority.renew(not_after=datetime.now(UTC) + timedelta(days=3.05))
    async with server_inside(authority=authority, **{"http-api": authority.http_api}):
        assert "expires in 3.0 days" in caplog.text
