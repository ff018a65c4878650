"""From addresses to sockets."""

import errno
import socket

import pytest

from ccms_server.listen import Endpoint, bind, close_all, endpoint, ip_addresses


@pytest.mark.parametrize(
    ("host", "authority"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("0.0.0.0", "0.0.0.0:80")]
)
def test_an_authority_can_be_put_into_a_url(host, authority):
    assert Endpoint(host, 80).authority == authority


@pytest.mark.parametrize("address", ["localhost:0", "127.0.0.1:0", ":0"])
def test_all_sockets_of_an_address_have_the_same_port(address):
    sockets = bind(address)
    try:
        assert [endpoint(each).host for each in sockets] == ip_addresses(address)
        assert len({endpoint(each).port for each in sockets}) == 1
        with socket.create_connection(("127.0.0.1", endpoint(sockets[0]).port)):
            pass
    finally:
        close_all(sockets)


def test_ipv4_comes_first():
    assert ip_addresses("localhost:0")[0] == "127.0.0.1"


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}") as raised:
            bind(address)
    assert raised.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no-such-host.invalid:0"])
def test_an_address_of_no_interface_is_named(address):
    with pytest.raises(OSError, match=f"cannot listen on {address}"):
        bind(address)
