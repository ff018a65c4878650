"""Which entries of the configuration share a connection, and which files cannot be used."""

import ssl

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from ccms_server.config import Layout, NatsConfig, NatsSubscription
from ccms_server.errors import ConfigError
from ccms_server.ingest.nats_access import check_credentials, connections
from ccms_server.ingest.nats_credentials import TlsFiles


def entry(address, *subjects, **settings):
    subscriptions = tuple(NatsSubscription(subscribe_to=subject) for subject in subjects or ("updates",))
    return NatsConfig(address=address, subscriptions=subscriptions, **settings)


def names(*configs, layout=Layout.OF_2024):
    return [connection.name for connection in connections(configs, layout)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("broker", "nats://broker:4222"),
        ("nats://broker:4222/", "BROKER"),
        ("tls://broker", "tls://Broker:4222"),
        ("ws://broker", "ws://broker:80"),
        ("wss://broker:443", "wss://broker"),
        ("a:4222, nats://b:4333", "b:4333,a"),
        ("a,a", "a"),
        ("[2001:DB8::1]:4222", "nats://[2001:db8::1]"),
        ("nats://store:secret@broker", "nats://store:secret@broker:4222"),
    ],
)
def test_the_same_servers_share_a_connection_however_they_are_written(one, other):
    assert names(entry(one), entry("elsewhere"), entry(other)) == ["nats[0] and nats[2]", "nats[1]"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("broker", "broker:4223"),
        ("broker", "tls://broker"),
        ("ws://broker", "ws://broker:4222"),
        ("a,b", "a"),
        ("nats://store:secret@broker", "broker"),
        ("nats://store:secret@broker", "nats://store:Secret@broker"),
    ],
)
def test_other_servers_have_another_connection(one, other):
    assert names(entry(one), entry(other)) == ["nats[0]", "nats[1]"]


@pytest.mark.parametrize(
    "settings",
    [
        {"username": "store", "password": "other"},
        {"username": "other", "password": "secret"},
        {"creds_file_path": "user.creds"},
        {"tls_ca_file": "ca.pem"},
        {"tls_cert_file": "cert.pem", "tls_key_file": "key.pem"},
    ],
)
def test_other_credentials_have_another_connection(settings):
    known = {"username": "store", "password": "secret"}
    assert names(entry("broker", **known), entry("broker", **known | settings)) == ["nats[0]", "nats[1]"]
    assert names(entry("broker", **settings), entry("broker", **settings)) == ["nats[0] and nats[1]"]


def test_a_shared_connection_has_the_subscriptions_of_all_its_entries_once():
    made = connections([entry("broker", "a", "b"), entry("broker", "b", "c")], Layout.OF_2024)
    assert [each.subscribe_to for each in made[0].config.subscriptions] == ["a", "b", "c"]


def test_the_one_entry_of_the_later_layout_has_no_number():
    assert names(entry("broker"), layout=Layout.OF_1_5) == ["nats"]


@pytest.fixture(scope="module")
def made():
    """The content of files of all kinds."""
    authority = trustme.CA()
    certificate, other = (authority.issue_cert("store") for _ in range(2))
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    encrypted = [
        key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
    ]
    return {
        "ca": authority.cert_pem.bytes(),
        "cert": certificate.cert_chain_pems[0].bytes(),
        "key": certificate.private_key_pem.bytes(),
        "other key": other.private_key_pem.bytes(),
        "encrypted key": encrypted[0],
        "key encrypted in the old way": encrypted[1],
        "nonsense": b"nonsense",
        "half a certificate": certificate.cert_chain_pems[0].bytes()[:400],
        "half a key": certificate.private_key_pem.bytes()[:200],
        "nothing": b"",
        "too much": b"#" * (2 << 20),
    }


def written(directory, made, **kinds):
    """Settings with a file of each kind; None names a file that is not there."""
    settings = {}
    for name, kind in kinds.items():
        path = directory / f"{name}.pem"
        if kind is not None:
            path.write_bytes(made[kind])
        settings[name] = str(path)
    return settings


USABLE = {"tls_ca_file": "ca", "tls_cert_file": "cert", "tls_key_file": "key"}


def test_files_that_can_be_used_are_not_complained_of(tmp_path, made):
    check_credentials([entry("tls://broker", **written(tmp_path, made, **USABLE))])
    check_credentials([entry("wss://broker", **written(tmp_path, made, tls_ca_file="ca"))])


@pytest.mark.parametrize(
    ("kinds", "key", "rule"),
    [
        ({"tls_ca_file": None}, "tls-ca-file", "cannot be read: No such file or directory"),
        ({"tls_ca_file": "nonsense"}, "tls-ca-file", "must hold certificates in PEM form"),
        ({"tls_ca_file": "nothing"}, "tls-ca-file", "must hold certificates in PEM form"),
        ({"tls_ca_file": "half a certificate"}, "tls-ca-file", "must hold certificates in PEM form"),
        ({"tls_ca_file": "key"}, "tls-ca-file", "must hold certificates in PEM form"),
        ({"tls_ca_file": "too much"}, "tls-ca-file", "is larger than 1,048,576 bytes"),
        ({"tls_cert_file": None}, "tls-cert-file", "cannot be read: No such file or directory"),
        ({"tls_cert_file": "key"}, "tls-cert-file", "must hold a certificate in PEM form"),
        ({"tls_cert_file": "half a certificate"}, "tls-key-file", "or cannot be used"),
        ({"tls_key_file": None}, "tls-key-file", "cannot be read: No such file or directory"),
        ({"tls_key_file": "cert"}, "tls-key-file", "must hold a private key in PEM form"),
        ({"tls_key_file": "other key"}, "tls-key-file", "is not the key of the certificate in"),
        ({"tls_key_file": "half a key"}, "tls-key-file", "or cannot be used"),
        ({"tls_key_file": "encrypted key"}, "tls-key-file", "without a passphrase"),
        ({"tls_key_file": "key encrypted in the old way"}, "tls-key-file", "without a passphrase"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, made, kinds, key, rule):
    settings = written(tmp_path, made, **USABLE | kinds)
    with pytest.raises(ConfigError) as raised:
        check_credentials([entry("broker"), entry("tls://broker", **settings)])
    assert raised.value.key == f"nats[1].{key}"
    assert raised.value.value == settings[key.replace("-", "_")]
    assert rule in raised.value.rule


def test_keys_are_those_of_the_layout(tmp_path, made):
    settings = written(tmp_path, made, tls_ca_file=None)
    with pytest.raises(ConfigError) as raised:
        check_credentials([entry("broker", **settings)], Layout.OF_1_5)
    assert raised.value.key == "nats.tls-ca-file"


def test_files_without_tls_are_a_mistake(tmp_path, made):
    with pytest.raises(ConfigError, match="use `wss://`"):
        check_credentials([entry("ws://broker", **written(tmp_path, made, tls_ca_file="ca"))])


def test_old_tls_is_not_spoken_and_names_are_checked(tmp_path, made):
    for files in ({}, USABLE):
        context = TlsFiles(entry("tls://broker", **written(tmp_path, made, **files))).context()
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED


def test_files_are_read_again_when_they_have_changed(tmp_path, made):
    files = TlsFiles(entry("tls://broker", **written(tmp_path, made, **USABLE)))
    first = files.context()
    assert files.context() is first
    written(tmp_path, made, tls_ca_file="cert")
    assert files.context() is not first
