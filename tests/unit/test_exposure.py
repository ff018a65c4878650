"""What the operator is told of who can reach the server."""

import logging
from dataclasses import replace

import pytest

from ccms_server.config import Config, HttpApiConfig
from ccms_server.exposure import warn_of_exposure
from ccms_server.listen import Endpoint
from ccms_server.store.metric import Metric

LOCAL = (Endpoint("127.0.0.1", 8082), Endpoint("::1", 8082), Endpoint("127.0.0.1", 8083))
KEY = "kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0="
PLAIN = HttpApiConfig(address="localhost:8082")
TLS = replace(PLAIN, https_cert_file="cert.pem", https_key_file="key.pem")
CONFIG = Config(metrics=(Metric("load", 60),), http_api=PLAIN, retention_in_memory=0)


def told(caplog, config, endpoints):
    caplog.set_level(logging.DEBUG)
    warn_of_exposure(config, endpoints)
    return [(record.levelno, record.getMessage()) for record in caplog.records]


def test_without_a_key_on_loopback_it_is_a_warning(caplog):
    [(level, message)] = told(caplog, CONFIG, LOCAL)
    assert level == logging.WARNING
    assert "every user of this machine" in message


@pytest.mark.parametrize(
    ("host", "authority"),
    [("0.0.0.0", "0.0.0.0:8083"), ("::", "[::]:8083"), ("10.1.2.3", "10.1.2.3:8083"), ("fe80::1%eth0", "fe80::1%eth0")],
)
@pytest.mark.parametrize("http", [PLAIN, TLS])
def test_without_a_key_beyond_loopback_it_is_an_error_that_says_where(caplog, http, host, authority):
    endpoints = (*LOCAL, Endpoint(host, 8083))
    [(level, message)] = told(caplog, replace(CONFIG, http_api=http), endpoints)
    assert level == logging.ERROR
    assert "ANYONE" in message
    assert authority in message
    assert "127.0.0.1" not in message


def test_certificates_of_clients_are_better_than_nothing(caplog):
    http = replace(TLS, client_ca_file="ca.pem")
    [(level, message)] = told(caplog, replace(CONFIG, http_api=http), (Endpoint("0.0.0.0", 1),))
    assert level == logging.WARNING
    assert "certificate of an authority in `client-ca-file`" in message


def test_tokens_that_travel_unencrypted_are_warned_of(caplog):
    [(level, message)] = told(caplog, replace(CONFIG, jwt_public_key=KEY), (*LOCAL, Endpoint("10.1.2.3", 8082)))
    assert level == logging.WARNING
    assert "tokens travel unencrypted to 10.1.2.3:8082" in message


@pytest.mark.parametrize(
    ("http", "endpoints"),
    [(PLAIN, LOCAL), (PLAIN, (Endpoint("::ffff:127.0.0.1", 1),)), (TLS, (Endpoint("0.0.0.0", 1),))],
)
def test_with_a_key_there_is_nothing_to_tell(caplog, http, endpoints):
    assert told(caplog, replace(CONFIG, jwt_public_key=KEY, http_api=http), endpoints) == []
