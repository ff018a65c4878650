"""Telling the operator, at start and after each reload, who can reach the server, and what they may do there."""

import logging
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from ccms_server.config import Config
from ccms_server.listen import Endpoint

logger = logging.getLogger(__name__)


def warn_of_exposure(config: Config, endpoints: Sequence[Endpoint]) -> None:
    """Logs what is open to others than it should be; as an error where other machines come in unasked.

    Args:
        config: The configuration.
        endpoints: Every address that is listened on.
    """
    http = config.http_api
    reachable = ", ".join(dict.fromkeys(each.authority for each in endpoints if not is_loopback(each.host)))
    if not config.jwt_public_key:
        if http.client_ca_file:
            logger.warning(
                "whoever has a certificate of an authority in `client-ca-file` may write, read, dump and drop all "
                "samples; set `jwt-public-key` to ask for tokens as well"
            )
        elif reachable:
            logger.error(
                "ANYONE who can reach %s may write, read, dump and drop all samples: no `jwt-public-key` is set; set "
                "one, or listen on localhost",
                reachable,
            )
        else:
            logger.warning(
                "every user of this machine may write, read, dump and drop all samples; set `jwt-public-key` to ask "
                "for tokens"
            )
    elif reachable and not http.https_cert_file:
        logger.warning(
            "tokens travel unencrypted to %s, and whoever sees one can use it; set `https-cert-file` and "
            "`https-key-file`, or listen on localhost behind a proxy that encrypts",
            reachable,
        )


def is_loopback(ip: str) -> bool:
    """Whether only this machine can reach an IP address."""
    address = ip_address(ip)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
