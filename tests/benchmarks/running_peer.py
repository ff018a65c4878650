"""A peer that runs already, to be measured in turns with our server."""

import socket
import time
from dataclasses import replace
from itertools import count
from urllib.parse import urlsplit

from benchmarks.measured_server import MeasuredServer
from benchmarks.process import cpu_seconds, pids_listening_on

CLUSTER_NAMES = 16**5


class PeerError(Exception):
    """The peer cannot be measured."""


class RunningPeer:
    """A server that takes line protocol over HTTP on this machine.

    Args:
        url: Where it listens, `http://host:port`.
        pid: Its process; None: whatever listens on its port.
        write_path: Path, and perhaps a query, that lines are posted to.

    Raises:
        PeerError: There is none, or its CPU time cannot be read.
    """

    def __init__(self, url: str, *, pid: int | None = None, write_path: str = "/api/write") -> None:
        host, port = _address(url)
        pid = _only_pid(port) if pid is None else pid
        try:
            cpu_seconds(pid)
        except OSError as error:
            raise PeerError(f"the CPU time of process {pid} cannot be read: {error.strerror}") from error
        self._server = MeasuredServer(port, pid, host, write_path)
        self._numbers = count(int(time.time()))

    def in_new_cluster(self) -> MeasuredServer:
        """The peer, with the name of a cluster that it has never seen: five letters, as ours has."""
        return replace(self._server, cluster=f"{next(self._numbers) % CLUSTER_NAMES:05x}")


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise PeerError(f"{url!r} is not like http://host:port")
    port = parts.port or 80
    try:
        socket.create_connection((parts.hostname, port), timeout=5).close()
    except OSError as error:
        raise PeerError(f"nothing answers at {url}: {error}") from error
    return parts.hostname, port


def _only_pid(port: int) -> int:
    pids = pids_listening_on(port)
    if len(pids) == 1:
        return pids.pop()
    if pids:
        raise PeerError(f"several processes listen on port {port}, name one of them: {sorted(pids)}")
    raise PeerError(
        f"the process that listens on port {port} is not to be seen: it is on another machine, or another user's. "
        "CPU time is read on this machine; name the process if it is here"
    )
