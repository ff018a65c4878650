"""From an address in the configuration to what is listened on."""

import errno
import socket
from dataclasses import dataclass
from typing import Final

from ccms_server.config import split_address

BACKLOG: Final = 1024
"""Connections that may wait to be accepted: all collectors of a cluster flush at once."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server can be reached."""

    host: str
    """IP address."""
    port: int

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bind(address: str) -> list[socket.socket]:
    """Listens on every IP address that an address stands for: `localhost` is often two, an empty host all there are.

    Args:
        address: `host:port`; port 0 is any free one, the same for all.

    Returns:
        Sockets that listen, without blocking; at least one.

    Raises:
        OSError: None of them exists on this machine, or one is taken; the message names the address.
    """
    ips = ip_addresses(address)
    sockets: list[socket.socket] = []
    port = split_address(address)[1]
    try:
        for ip in ips:
            sockets.append(_listen(ip, port))
            port = sockets[-1].getsockname()[1]
    except OSError as error:
        close_all(sockets)
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
    return sockets


def ip_addresses(address: str) -> list[str]:
    """IP addresses of this machine that the host of an address stands for, IPv4 first; containers often lack IPv6.

    Raises:
        OSError: There is none; the message names the address.
    """
    host, _ = split_address(address)
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
    existing = [ip for ip in dict.fromkeys(str(where[0]) for _, _, _, _, where in found) if _exists(ip)]
    if not existing:
        raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {address}: it is no address of this machine")
    return sorted(existing, key=lambda ip: ":" in ip)


def close_all(sockets: list[socket.socket]) -> None:
    """Closes sockets that no server has taken over."""
    for each in sockets:
        each.close()


def endpoint(listening: socket.socket) -> Endpoint:
    """Where a listening socket can be reached."""
    host, port = listening.getsockname()[:2]
    return Endpoint(host, port)


def _listen(ip: str, port: int) -> socket.socket:
    listening = socket.create_server((ip, port), family=_family(ip), backlog=BACKLOG)
    listening.setblocking(False)
    return listening


def _exists(ip: str) -> bool:
    try:
        _listen(ip, 0).close()
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return False
        raise
    return True


def _family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET
