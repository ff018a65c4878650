"""What the service manager is told of the process' life: systemd's notification protocol, one datagram each."""

import logging
import os
import socket
from functools import cache
from typing import Final

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 1.0
"""How long a service manager may leave its queue full before a notification is given up."""


def notify(state: str) -> None:
    """Tells the service manager a state; does nothing where none asks for it by `NOTIFY_SOCKET`.

    It may take up to `TIMEOUT_SECONDS`. A failure never stops the server: each reason is logged once.

    Args:
        state: Assignments, one a line: `READY=1`, `STOPPING=1`, `STATUS=...`, `EXTEND_TIMEOUT_USEC=...`.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # A leading @ stands for a zero byte: the name of a socket that is in no file system.
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.sendto(state.encode(), name)
    except OSError as error:
        _log_failure(address, error.strerror or str(error))


@cache
def _log_failure(address: str, reason: str) -> None:
    """Warns of a failure, once in the life of the process."""
    logger.warning("the service manager cannot be notified at %s: %s", address, reason)
