"""Which connections to make for the entries of the configuration, and whether their files can be used."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final
from urllib.parse import urlsplit

from ccms_server.config import Layout, NatsConfig
from ccms_server.errors import ConfigError
from ccms_server.ingest.nats_credentials import TlsFiles, UnusableFileError, UserCredentials

logger = logging.getLogger(__name__)

_DEFAULT_PORTS: Final = {"nats": 4222, "tls": 4222, "ws": 80, "wss": 443}
_HOW_TO_GET_IN: Final = tuple(
    field.name for field in fields(NatsConfig) if field.name not in ("address", "subscriptions")
)


@dataclass(frozen=True, slots=True)
class NatsConnection:
    """A connection to make."""

    name: str
    """The entries of the configuration it is made for: `nats[0] and nats[2]`."""
    config: NatsConfig
    """How to make it, with the subscriptions of all these entries."""


def connections(configs: Sequence[NatsConfig], layout: Layout) -> list[NatsConnection]:
    """Has entries share a connection if they name the same servers, credentials and certificates.

    Entries with other credentials get a connection of their own: what one user may see is none of the other's business.

    Returns:
        The connections, in the order of their first entries.
    """
    sharing: defaultdict[object, list[int]] = defaultdict(list)
    for index, config in enumerate(configs):
        servers = frozenset(map(_normalised, config.servers))
        sharing[servers, *(getattr(config, name) for name in _HOW_TO_GET_IN)].append(index)
    made = []
    for indices in sharing.values():
        # Two entries may say the same of a subject; one subscription is enough for them.
        subscriptions = dict.fromkeys(each for index in indices for each in configs[index].subscriptions)
        name = " and ".join(_entry_name(index, layout) for index in indices)
        made.append(NatsConnection(name, replace(configs[indices[0]], subscriptions=tuple(subscriptions))))
    _log_neighbours(made)
    return made


def check_credentials(configs: Sequence[NatsConfig], layout: Layout = Layout.OF_2024) -> None:
    """Finds out at the start what would fail at every attempt to connect.

    Args:
        configs: The entries of the configuration.
        layout: That of its file; keys in messages are those of the file.

    Raises:
        ConfigError: A file cannot be used, or would never be.
    """
    for index, config in enumerate(configs):
        name = _entry_name(index, layout)
        tls_files = TlsFiles(config)
        if tls_files.named and any(server.startswith("ws:") for server in config.servers):
            raise ConfigError(f"{name}.address", None, "must not have `ws://` together with TLS files: use `wss://`")
        try:
            tls_files.check()
            if config.creds_file_path:
                UserCredentials(config.creds_file_path).check()
        except UnusableFileError as error:
            raise ConfigError(f"{name}.{error.key}", error.path, error.rule) from error


def _entry_name(index: int, layout: Layout) -> str:
    """What a configuration file calls an entry; in the layout of 1.5 there is one."""
    return "nats" if layout is Layout.OF_1_5 else f"nats[{index}]"


def _normalised(server: str) -> str:
    """A server's URL, the same for all ways to write it."""
    url = urlsplit(server)
    user = url.netloc.rpartition("@")[0]
    return f"{url.scheme}://{user}@{_host_and_port(server)}"


def _host_and_port(server: str) -> str:
    url = urlsplit(server)
    return f"{url.hostname}:{url.port or _DEFAULT_PORTS[url.scheme]}"


def _log_neighbours(made: Sequence[NatsConnection]) -> None:
    """Tells of connections that could be one, were they made in the same way."""
    by_servers: defaultdict[object, list[str]] = defaultdict(list)
    for connection in made:
        by_servers[frozenset(map(_host_and_port, connection.config.servers))].append(connection.name)
    for names in by_servers.values():
        if len(names) > 1:
            logger.info(
                "a connection each for %s: the same servers, but other credentials or TLS settings", ", ".join(names)
            )
