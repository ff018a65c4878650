"""Feeds a running server with collector batches, and reads what that costs it."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from benchmarks.payloads import STAMP, host_batches

INTERVAL_SECONDS = 60
QUIET_SECONDS = 0.15
CPU_CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")
"""CPU time is counted in steps of so many seconds; runs that take less are shown too slow."""
ANSWER_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of batches cost the server."""

    lines: int
    wall_seconds: float
    cpu_seconds: float
    """Of the server process, user and system."""
    rss_megabytes: float
    """Of the server process, at the end."""

    @property
    def lines_per_cpu_second(self) -> float:
        """M lines per CPU second of the server."""
        return self.lines / max(self.cpu_seconds, CPU_CLOCK_TICK) / 1e6


def cpu_seconds(pid: int) -> float:
    """CPU time a process has used so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * CPU_CLOCK_TICK


def rss_megabytes(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def over_http(port: int, pid: int, *, hosts: int, steps: int, hosts_per_batch: int = 1, connections: int = 4) -> Load:
    """Posts batches over some connections, one time step after another; the next one begins when all were answered."""
    with _sockets(port, connections) as sockets:

        def send(bodies: list[bytes]) -> None:
            parts = [bodies[first :: len(sockets)] for first in range(len(sockets))]
            senders = [Thread(target=_post_all, args=(each, part)) for each, part in zip(sockets, parts, strict=True)]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()

        return _run(pid, send, hosts=hosts, steps=steps, hosts_per_batch=hosts_per_batch)


def over_nats(port: int, pid: int, *, hosts: int, steps: int, subject: str = "updates") -> Load:
    """Publishes batches to a broker, and lets the server catch up after every time step."""
    with _sockets(port, 1) as (publisher,):
        publisher.recv(ANSWER_BYTES)
        publisher.sendall(b'CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"1","protocol":0}\r\n')
        _ping(publisher)

        def send(bodies: list[bytes]) -> None:
            for body in bodies:
                publisher.sendall(b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(body), body))
            _ping(publisher)
            _wait_until_idle(pid)

        return _run(pid, send, hosts=hosts, steps=steps, hosts_per_batch=1)


def _run(pid: int, send: Callable[[list[bytes]], None], *, hosts: int, steps: int, hosts_per_batch: int) -> Load:
    of_hosts = host_batches(hosts)
    batches = [b"".join(of_hosts[first : first + hosts_per_batch]) for first in range(0, hosts, hosts_per_batch)]
    lines = sum(batch.count(b"\n") for batch in of_hosts) * steps
    start = int(time.time()) // INTERVAL_SECONDS * INTERVAL_SECONDS - steps * INTERVAL_SECONDS
    before, wall = cpu_seconds(pid), 0.0
    for step in range(steps):
        stamp = str(start + step * INTERVAL_SECONDS).encode()
        bodies = [batch.replace(STAMP, stamp) for batch in batches]
        begin = time.perf_counter()
        send(bodies)
        wall += time.perf_counter() - begin
    _wait_until_idle(pid)
    return Load(lines, wall, cpu_seconds(pid) - before, rss_megabytes(pid))


@contextmanager
def _sockets(port: int, count: int) -> Iterator[list[socket.socket]]:
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


def _post_all(connection: socket.socket, bodies: list[bytes]) -> None:
    for body in bodies:
        head = f"POST /api/write?cluster=bench HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        answer = connection.recv(ANSWER_BYTES)
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 204")), answer[:500]


def _ping(connection: socket.socket) -> None:
    connection.sendall(b"PING\r\n")
    while b"PONG" not in connection.recv(ANSWER_BYTES):
        pass


def _wait_until_idle(pid: int) -> None:
    """Returns once a process has used (almost) no CPU time for a while: what it was sent is done."""
    last = -1.0
    while (now := cpu_seconds(pid)) > last + 0.005:
        last = now
        time.sleep(QUIET_SECONDS)
