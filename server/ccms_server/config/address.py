"""Addresses in the configuration: hosts with ports, NATS servers, and URLs that may hold a password."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

PORT_MAX: Final = 65_535
MASK: Final = "********"
"""Stands where a secret was."""

_NATS_SERVER: Final = re.compile(
    r"(?P<scheme>nats|tls|wss?)://([^\s/?#@\[\]]+@)?"  # perhaps with `user:password@`
    r"(?P<host>[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?|\[[0-9a-fA-F:.]+\])(?P<port>:[1-9][0-9]{0,4})?/?"
)
_USER_INFO: Final = re.compile(r"^(\s*(?:[A-Za-z]+://)?)[^/]*@")


def split_address(address: str) -> tuple[str, int]:
    """Splits `host:port`. An IPv6 host loses its brackets; an empty host stands for every interface.

    Raises:
        ValueError: It is no such address; the message is the rule it breaks.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise ValueError(f"must be `host:port`, the port a number from 0 to {PORT_MAX:,}")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            raise ValueError("must hold an IPv6 address between its brackets") from None
    if not re.fullmatch(r"[A-Za-z0-9._-]*", host):
        raise ValueError("must be `host:port` and nothing more; an IPv6 address goes in brackets")
    return host, int(port)


def nats_servers(address: str) -> list[str]:
    """The URLs in the address of a NATS server, or a cluster of them, each with a scheme."""
    servers = [server.strip() for server in address.split(",")]
    return [server if "://" in server else f"nats://{server}" for server in servers]


def broken_nats_rule(address: str) -> str | None:
    """The rule that the address of NATS servers breaks: nats-py would raise, or try in vain for ever."""
    is_web_socket = set()
    for server in nats_servers(address):
        match = _NATS_SERVER.fullmatch(server)
        if match is None:
            return "must be servers separated by commas, each `host:port` or `nats://host:port`"
        host_and_port = match["host"] + (match["port"] or ":4222")
        try:
            split_address(host_and_port)
        except ValueError as error:
            return f"names the server {host_and_port!r}, which {error}"
        is_web_socket.add(match["scheme"].startswith("ws"))
    return "must not mix WebSockets (`ws`, `wss`) with `nats` and `tls`" if len(is_web_socket) > 1 else None


def broken_http_rule(url: str) -> str | None:
    """The rule that the base URL of an HTTP server breaks."""
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port, or of an IPv6 address
        is_http = False
    if not is_http or not url.isprintable() or " " in url:
        return "must be a URL: `http://host:port` or `https://host`, perhaps with a path"
    if "?" in url or "#" in url:
        return "must be a URL without `?` and `#`: paths are added to it"
    return None


def masked(url: str) -> str:
    """A URL, or a server without a scheme, with a mask in place of the user name and the password in it."""
    return _USER_INFO.sub(rf"\1{MASK}@", url)
