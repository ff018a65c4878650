"""Reading certificates, and reading them again."""

import asyncio
import logging
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP521R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from grpc import aio
from helpers.authority import Authority, self_signed, serial

from ccms_server import tls
from ccms_server.errors import ConfigError
from ccms_server.tls import Certificates

ENCRYPTED = generate_private_key(SECP521R1()).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
)
ENCRYPTED_OLD_FORM = generate_private_key(SECP521R1()).private_bytes(
    Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def always_checked(monkeypatch):
    monkeypatch.setattr(tls, "CHECK_SECONDS", 0.0)


def load(authority, **options):
    return Certificates.load(str(authority.directory / "cert.pem"), str(authority.directory / "key.pem"), **options)


async def shown_serial(port, authority, protocol):
    """Serial number of the certificate that a new connection to a port is shown."""
    context = authority.context()
    context.set_alpn_protocols([protocol])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return serial(ssl.DER_cert_to_PEM_cert(shown).encode())


async def served_serial(certificates, authority):
    """The same for a server of this process."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=certificates.context)
    async with server:
        return await shown_serial(server.sockets[0].getsockname()[1], authority, "http/1.1")


@pytest.mark.parametrize(
    ("file", "content", "key", "rule"),
    [
        ("cert.pem", None, "https-cert-file", "cannot be read: No such file or directory"),
        ("key.pem", None, "https-key-file", "cannot be read: No such file or directory"),
        ("ca.pem", None, "client-ca-file", "cannot be read: No such file or directory"),
        ("cert.pem", b"", "https-cert-file", "must hold a certificate in PEM form"),
        ("cert.pem", b"\xff\x00garbage", "https-cert-file", "must hold a certificate in PEM form"),
        (
            "cert.pem",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "https-cert-file",
            "must hold a certificate in PEM form",
        ),
        ("key.pem", b"", "https-key-file", "must hold a private key in PEM form"),
        ("key.pem", ENCRYPTED, "https-key-file", "must hold a key without a passphrase"),
        ("key.pem", ENCRYPTED_OLD_FORM, "https-key-file", "must hold a key without a passphrase"),
        (
            "key.pem",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "https-key-file",
            "or cannot be used",
        ),
        ("ca.pem", b"", "client-ca-file", "must hold certificates in PEM form"),
        ("ca.pem", b"garbage", "client-ca-file", "must hold certificates in PEM form"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(authority, file, content, key, rule):
    path = authority.directory / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rule) as refused:
        load(authority, client_ca_file=str(authority.directory / "ca.pem"))
    assert (refused.value.key, refused.value.value) == (key, str(path))


def test_a_directory_is_no_certificate(authority):
    (authority.directory / "cert.pem").unlink()
    (authority.directory / "cert.pem").mkdir()
    with pytest.raises(ConfigError, match=r"https-cert-file: .* cannot be read: Is a directory"):
        load(authority)


def test_a_key_of_another_certificate_is_refused(authority):
    (authority.directory / "key.pem").write_bytes(authority.issue().private_key_pem.bytes())
    with pytest.raises(ConfigError, match=r"is not the key of the certificate in .*KEY_VALUES_MISMATCH"):
        load(authority)


@pytest.mark.parametrize("key", [Ed25519PrivateKey.generate(), generate_private_key(SECP521R1())])
def test_a_key_that_grpc_cannot_use_is_refused(authority, key):
    (authority.directory / "cert.pem").write_bytes(self_signed(key))
    (authority.directory / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigError, match=r"https-cert-file.*P-256 or P-384: gRPC clients know no other"):
        load(authority)


@pytest.mark.parametrize(
    ("valid", "told"),
    [
        ((-30, -1), "has expired"),
        ((1, 30), "is not valid yet"),
        ((-30, 13.9), "expires in 13.9 days"),
        ((-30, 14.1), None),
    ],
)
def test_a_certificate_that_is_not_valid_or_not_for_long_is_warned_of(authority, caplog, valid, told):
    begin, end = (datetime.now(UTC) + timedelta(days=days) for days in valid)
    authority.put(authority.issue(not_before=begin, not_after=end))
    load(authority)
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(messages) == (told is not None)
    assert told is None or told in messages[0]


@pytest.mark.usefixtures("always_checked")
def test_a_certificate_that_expires_is_warned_of_every_day(authority, caplog):
    start, hours = datetime.now(UTC), 0
    authority.renew(not_after=start + timedelta(days=10))
    certificates = load(authority, clock=lambda: start.timestamp() + 3600 * hours)
    for hours, warnings in ((1, 1), (23, 1), (24, 2), (25, 2), (48, 3)):  # noqa: B007  the clock reads it
        certificates.grpc_credentials()
        assert len(caplog.records) == warnings
    assert "expires in 8.0 days" in caplog.text


@pytest.mark.usefixtures("always_checked")
async def test_a_new_certificate_is_served_to_new_connections(authority, caplog):
    caplog.set_level(logging.INFO)
    certificates = load(authority)
    new = authority.renew()
    assert await served_serial(certificates, authority) == new
    assert await served_serial(certificates, authority) == new
    assert len([record for record in caplog.records if record.name == tls.logger.name]) == 1


@pytest.mark.usefixtures("always_checked")
async def test_every_port_of_grpc_gets_the_new_certificate(authority):
    certificates, server = load(authority), aio.server()
    ports = [server.add_secure_port("127.0.0.1:0", certificates.grpc_credentials()) for _ in range(2)]
    await server.start()
    for _ in range(2):
        new = authority.renew()
        for port in ports:
            assert await shown_serial(port, authority, "h2") == new
    await server.stop(0)


async def test_files_are_not_looked_at_with_every_connection(authority, monkeypatch):
    certificates = load(authority)
    monkeypatch.setattr(Certificates, "_state", lambda _: pytest.fail("looked at the files"))
    await served_serial(certificates, authority)


async def test_files_are_read_again_when_asked_to(authority):
    certificates = load(authority)
    new = authority.renew()
    certificates.reload()
    assert await served_serial(certificates, authority) == new


def broken(authority, how):
    directory, new = authority.directory, authority.issue()
    if how == "new certificate, old key":
        (directory / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in new.cert_chain_pems))
    elif how == "old certificate, new key":
        (directory / "key.pem").write_bytes(new.private_key_pem.bytes())
    elif how == "no key":
        (directory / "key.pem").unlink()
    elif how == "half a certificate":
        (directory / "cert.pem").write_bytes(new.cert_chain_pems[0].bytes()[:300])


@pytest.mark.usefixtures("always_checked")
@pytest.mark.parametrize(
    "how", ["new certificate, old key", "old certificate, new key", "no key", "half a certificate"]
)
async def test_files_that_do_not_fit_are_told_of_once_and_the_old_ones_stay_in_use(authority, caplog, how):
    old = authority.renew()
    certificates = load(authority)
    broken(authority, how)
    for _ in range(3):
        assert await served_serial(certificates, authority) == old
    assert [record.levelno for record in caplog.records if record.name == tls.logger.name] == [logging.ERROR]
    assert "goes on being served" in caplog.text
    new = authority.renew()
    assert await served_serial(certificates, authority) == new


@pytest.mark.usefixtures("always_checked")
@pytest.mark.parametrize("found", ["nothing wrong", "new certificate, old key"])
async def test_files_that_are_replaced_while_they_are_read_are_read_again(authority, caplog, monkeypatch, found):
    certificates = load(authority)
    old = await served_serial(certificates, authority)
    read = Certificates._load
    later = []

    def load_and_replace(self):
        monkeypatch.setattr(Certificates, "_load", read)
        try:
            return read(self)
        finally:
            later.append(authority.renew())

    monkeypatch.setattr(Certificates, "_load", load_and_replace)
    authority.renew()
    broken(authority, found)
    assert await served_serial(certificates, authority) == old
    assert await served_serial(certificates, authority) == later[0]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
