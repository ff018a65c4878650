"""Feeds a running server with collector batches, and reads what that costs it."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.measured_server import MeasuredServer
from benchmarks.payloads import INTERVAL_SECONDS, Batch
from benchmarks.process import cpu_seconds, rss_megabytes, wait_until_idle

ANSWER_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of batches cost the server."""

    lines: int
    wall_seconds: float
    """While batches were sent."""
    cpu_seconds: float
    """Of the server process, user and system, until it was idle again."""
    rss_megabytes: float
    """Of the server process, at the end."""

    @property
    def lines_per_cpu_second(self) -> float:
        """M lines per CPU second of the server."""
        return self.lines / self.cpu_seconds / 1e6


def recent_times(steps: int, *, later_steps: int = 0) -> range:
    """Timestamps of so many steps, the last of which is the last full interval, or so many steps before it."""
    end = int(time.time()) // INTERVAL_SECONDS - later_steps
    return range((end - steps) * INTERVAL_SECONDS, end * INTERVAL_SECONDS, INTERVAL_SECONDS)


def rounds_of(rounds: int, steps: int) -> list[range]:
    """Recent times cut into rounds of so many steps, one after another."""
    times = recent_times(rounds * steps)
    return [times[first : first + steps] for first in range(0, rounds * steps, steps)]


def over_http(server: MeasuredServer, batches: Sequence[Batch], times: Sequence[int], *, connections: int = 4) -> Load:
    """Posts batches as fast as they are answered, see `post`, and lets the server finish."""
    return _measured(server.pid, batches, times, lambda: post(server, batches, times, connections=connections))


def post(
    server: MeasuredServer,
    batches: Sequence[Batch],
    times: Sequence[int],
    *,
    connections: int = 4,
    batches_per_second: float = float("inf"),
) -> float:
    """Posts batches over some connections, one time step after another; the next one begins when all were answered.

    Args:
        server: That they are posted to.
        batches: Those of each time step.
        times: The timestamps.
        connections: That share the batches.
        batches_per_second: How fast they are sent at most.

    Returns:
        Seconds that it took, by the clock on the wall.
    """
    pace_seconds = connections / batches_per_second
    with _sockets(server.host, server.port, connections) as sockets, ThreadPoolExecutor(connections) as senders:

        def send(bodies: list[bytes]) -> None:
            parts = [bodies[first::connections] for first in range(connections)]
            list(
                senders.map(_post_all, sockets, [server.write_path] * connections, parts, [pace_seconds] * connections)
            )

        return _send_all(send, batches, times)


def over_nats(
    port: int, server: MeasuredServer, batches: Sequence[Batch], times: Sequence[int], *, subject: str = "updates"
) -> Load:
    """Publishes batches to a broker, and lets the server catch up after every time step."""
    with _sockets("127.0.0.1", port, 1) as (publisher,):
        publisher.recv(ANSWER_BYTES)
        publisher.sendall(b'CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"1","protocol":0}\r\n')
        _ping(publisher)

        def send(bodies: list[bytes]) -> None:
            for body in bodies:
                publisher.sendall(b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(body), body))
            _ping(publisher)
            wait_until_idle(server.pid)

        return _measured(server.pid, batches, times, lambda: _send_all(send, batches, times))


def line_count(batches: Sequence[Batch], times: Sequence[int]) -> int:
    """Lines that are sent when the batches are sent for each timestamp."""
    return sum(batch.n_lines for batch in batches) * len(times)


def _measured(pid: int, batches: Sequence[Batch], times: Sequence[int], send: Callable[[], float]) -> Load:
    before = cpu_seconds(pid)
    wall = send()
    wait_until_idle(pid)
    return Load(line_count(batches, times), wall, cpu_seconds(pid) - before, rss_megabytes(pid))


def _send_all(send: Callable[[list[bytes]], None], batches: Sequence[Batch], times: Sequence[int]) -> float:
    wall = 0.0
    for timestamp in times:
        bodies = [batch.at(timestamp) for batch in batches]
        begin = time.perf_counter()
        send(bodies)
        wall += time.perf_counter() - begin
    return wall


@contextmanager
def _sockets(host: str, port: int, count: int) -> Iterator[list[socket.socket]]:
    sockets = [socket.create_connection((host, port)) for _ in range(count)]
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


def _post_all(connection: socket.socket, path: str, bodies: list[bytes], pace_seconds: float) -> None:
    due = time.perf_counter()
    for body in bodies:
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        answer = connection.recv(ANSWER_BYTES)
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 204")), answer[:500]
        due += pace_seconds
        if (early := due - time.perf_counter()) > 0:
            time.sleep(early)


def _ping(connection: socket.socket) -> None:
    connection.sendall(b"PING\r\n")
    while b"PONG" not in connection.recv(ANSWER_BYTES):
        pass
