"""Samples from NATS: subscriptions whose messages are handed to the writer.

One connection for each entry of the configuration. Messages of a subscription are handed over one by one, in the order
they arrived; the next waits while the writer's queue is full. Across subscriptions of a connection the order is not
that of arrival: nats-py gives each subscription a queue and a task of its own, and nothing public says which message
came first. A collector publishes to one subject, so what one host sends stays in order.

Core NATS has no acknowledgements: what does not fit into a subscription's pending limits is lost, counted and logged.
So is what nats-py throws away when it closes a connection: `Client.stats` tells how much was received.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import nats.errors
import nkeys
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from ccms_server.config import NatsConfig
from ccms_server.errors import ConfigError, MetricStoreError
from ccms_server.ingest.writer import IngestCounters

logger = logging.getLogger(__name__)

PENDING_BYTES_MAX: Final = 64 << 20
"""Payload that may wait in one subscription, beside the writer's queue."""
PENDING_MESSAGES_MAX: Final = 65_536
RECONNECT_SECONDS: Final = 1
"""Pause between two attempts to reach the same server."""
CONNECT_TIMEOUT_SECONDS: Final = 5
SILENCE_SECONDS: Final = 60
"""A client that is reconnecting and tells nothing of its attempts for so long has ended them."""
PING_SECONDS: Final = 20
"""A connection that answers neither of two pings is given up."""
DRAIN_SECONDS: Final = 10
"""Time for what was received to reach the writer's queue at the end."""
PROBLEMS_LOGGED_MAX: Final = 16
"""Different problems that are logged between two changes of the connection's state."""
LOG_INTERVAL_SECONDS: Final = 10.0
"""Losses are logged together, this often."""

_CREDENTIAL_MARKERS: Final = (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED")


class LineSink(Protocol):
    """Where messages go: `MetricService`."""

    @property
    def counters(self) -> IngestCounters:
        """Lost messages are counted here."""
        ...

    async def admit_lines(self, payload: bytes, default_cluster: str) -> None:
        """Queues a batch of line protocol, as soon as there is room."""
        ...


@dataclass(slots=True)
class NatsCounters:
    """What one connection received since the start."""

    messages: int = 0
    """Messages handed over."""
    payload_bytes: int = 0
    """Their size."""
    dropped: int = 0
    """Messages lost because the writer was behind, or refused by it."""
    connections: int = 0
    """Times a connection was made."""


class NatsSubscriber:
    """One connection with its subscriptions, kept up as long as `run` runs.

    Attributes:
        counters: What it received.
        connected: Whether the connection is up and the subscriptions are made.
    """

    def __init__(
        self, config: NatsConfig, sink: LineSink, on_change: Callable[[], Awaitable[None]], name: str = "nats"
    ) -> None:
        """Makes a subscriber; `run` starts it.

        Args:
            config: Where to connect to, and what to subscribe to.
            sink: Takes the payloads.
            on_change: Called when `connected` has changed.
            name: What the configuration calls it, for messages: `nats[0]`.
        """
        self.counters = NatsCounters()
        self.connected = False
        self._config = config
        self._sink = sink
        self._on_change = on_change
        self._name = name
        self._client: Client | None = None
        self._closed = asyncio.Event()
        """Set when `_client` is of no use any more."""
        self._silence: asyncio.TimerHandle | None = None
        self._stopping = False
        self._subscriptions: list[Subscription] = []
        self._handing_over = 0
        """Messages that were taken from a subscription and wait for room in the writer's queue."""
        self._idle = asyncio.Event()
        self._problems: set[str] = set()
        """Those logged since the last change of `connected`."""
        self._dropped_logged = 0
        self._next_drop_log = 0.0

    @property
    def waiting(self) -> int:
        """Messages that were received and not handed over yet."""
        return self._handing_over + sum(subscription.pending_msgs for subscription in self._subscriptions)

    async def run(self) -> None:
        """Connects, subscribes and stays connected, until drained or cancelled; never gives up."""
        while not self._stopping:
            client = Client()
            accounted_before = self.counters.messages + self.counters.dropped
            try:
                await self._connect(client)
                await self._subscribe(client)
                await self._set_connected(True)
                await self._closed.wait()  # nats-py reconnects by itself, unless the server sent it away
            except Exception as error:  # of any kind: nothing that a broker says may end this server
                self._log_problem(error)
            finally:
                await self._close(client)
                accounted = self.counters.messages + self.counters.dropped - accounted_before
                if lost := client.stats["in_msgs"] - accounted:
                    self._count_drop("they were still waiting when the connection was closed", lost)
            await self._set_connected(False)
            if not self._stopping:
                await asyncio.sleep(RECONNECT_SECONDS)

    async def drain(self) -> None:
        """Takes nothing more, hands over what was received, and disconnects."""
        self._stopping = True
        if self._client is None or self._client.is_closed:
            return
        try:
            if self._client.is_connected:
                await self._client.drain()
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._until_idle()  # also while the server is away
        except Exception as error:  # lost meanwhile, or out of time
            self._log_problem(error)

    async def _connect(self, client: Client) -> None:
        self._closed = closed = asyncio.Event()

        async def on_closed() -> None:
            closed.set()

        config = self._config
        await client.connect(
            servers=config.servers,
            name="cc-metric-store",
            user=config.username or None,
            password=config.password or None,
            user_credentials=config.creds_file_path or None,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_SECONDS,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            ping_interval=PING_SECONDS,
            drain_timeout=DRAIN_SECONDS,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=on_closed,
        )
        self._client = client

    async def _subscribe(self, client: Client) -> None:
        self._subscriptions = []
        for subscription in self._config.subscriptions:
            self._subscriptions.append(
                await client.subscribe(
                    subscription.subscribe_to,
                    cb=partial(self._receive, subscription.cluster_tag),
                    pending_msgs_limit=PENDING_MESSAGES_MAX,
                    pending_bytes_limit=PENDING_BYTES_MAX,
                )
            )
        # A PING of nats-py overtakes what waits to be sent: only the second tells that the subscriptions are made.
        await client.flush()
        await client.flush()

    async def _close(self, client: Client) -> None:
        try:
            await client.close()
        except Exception as error:  # such as an AssertionError of one that did not get far
            self._log_problem(error)
        if self._silence is not None:
            self._silence.cancel()

    async def _receive(self, cluster_tag: str, message: Msg) -> None:
        self._handing_over += 1
        self._idle.clear()
        try:
            await self._sink.admit_lines(message.data, cluster_tag)
            self.counters.messages += 1
            self.counters.payload_bytes += len(message.data)
        except MetricStoreError as error:
            self._count_drop(f"{message.subject}: {error}")
        except Exception as error:
            logger.exception("%s: a message could not be handed over", self._name)
            self._count_drop(f"{message.subject}: {error!r}")
        finally:
            self._handing_over -= 1
            self._idle.set()

    async def _until_idle(self) -> None:
        """Waits until nothing that was received is left to hand over."""
        while self.waiting:
            self._idle.clear()
            await self._idle.wait()

    # --- what nats-py tells

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self._count_drop(f"{error.subject}: the writer is behind")
        else:
            self._log_problem(error)
        self._watch()

    async def _on_disconnected(self) -> None:
        await self._set_connected(False)
        self._watch()

    async def _on_reconnected(self) -> None:
        await self._set_connected(True)
        self._watch()

    def _watch(self) -> None:
        """Has the client replaced that falls silent while it reconnects: what a broker says can make it give up."""
        if self._silence is not None:
            self._silence.cancel()
        if self._client is not None and self._client.is_reconnecting:
            self._silence = asyncio.get_running_loop().call_later(SILENCE_SECONDS, self._closed.set)

    # --- telling others

    async def _set_connected(self, connected: bool) -> None:
        if connected == self.connected:
            return
        self.connected = connected
        self._problems.clear()
        if connected:
            self.counters.connections += 1
            subjects = ", ".join(subscription.subscribe_to for subscription in self._config.subscriptions)
            logger.info("%s: connected to %s, subscribed to %s", self._name, self._server(), subjects)
        elif not self._stopping:
            logger.warning("%s: connection lost; trying again every %d s", self._name, RECONNECT_SECONDS)
        await self._on_change()

    def _server(self) -> str:
        """The server we are connected to, without the password its URL may hold."""
        url = self._client.connected_url if self._client is not None else None
        return f"{url.hostname}:{url.port}" if url is not None else "no server"

    def _log_problem(self, error: Exception) -> None:
        """Logs a problem once in each state of the connection: servers that are down are tried every second."""
        problem = f"{type(error).__name__}: {error}"
        if problem in self._problems or len(self._problems) >= PROBLEMS_LOGGED_MAX:
            return
        self._problems.add(problem)
        if isinstance(error, nats.errors.Error | OSError):
            logger.warning("%s: %s", self._name, problem)
        else:  # nats-py lets through what it did not expect
            logger.error("%s: the broker cannot be understood: %s", self._name, problem, exc_info=error)

    def _count_drop(self, why: str, count: int = 1) -> None:
        self.counters.dropped += count
        self._sink.counters.dropped += count
        now = time.monotonic()
        if now >= self._next_drop_log:
            self._next_drop_log = now + LOG_INTERVAL_SECONDS
            new = self.counters.dropped - self._dropped_logged
            self._dropped_logged = self.counters.dropped
            logger.error("%s: %d messages lost, the last one: %s", self._name, new, why)


@asynccontextmanager
async def subscribed(
    configs: Sequence[NatsConfig], sink: LineSink, set_health: Callable[[bool], Awaitable[None]]
) -> AsyncIterator[list[NatsSubscriber]]:
    """Takes messages in while the context lasts; at its end, what was received is handed over first.

    Args:
        configs: One for each connection.
        sink: Takes the payloads.
        set_health: Told whether all connections are up, whenever that changes.
    """

    async def on_change() -> None:
        await set_health(all(subscriber.connected for subscriber in subscribers))

    subscribers = [NatsSubscriber(config, sink, on_change, f"nats[{index}]") for index, config in enumerate(configs)]
    if subscribers:
        await set_health(False)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(subscriber.run(), name="nats") for subscriber in subscribers]
        try:
            yield subscribers
        finally:
            await asyncio.gather(*(subscriber.drain() for subscriber in subscribers))
            for task in running:
                task.cancel()


def check_credentials(configs: Sequence[NatsConfig]) -> None:
    """Finds out at the start what would make nats-py read for ever, or fail at every attempt.

    Raises:
        ConfigError: A credentials file cannot be used.
    """
    for index, config in enumerate(configs):
        path = config.creds_file_path
        if path and (rule := _broken_credentials_rule(Path(path))):
            raise ConfigError(f"nats[{index}].creds-file-path", path, rule)


def _broken_credentials_rule(path: Path) -> str | None:
    """The rule that a credentials file breaks."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    for marker in _CREDENTIAL_MARKERS:
        if not any(marker in line for line in lines[:-1]):
            return f"has no line `-----{marker.decode()}-----`"
    seed = next(after for line, after in pairwise(lines) if _CREDENTIAL_MARKERS[1] in line)
    try:
        nkeys.from_seed(bytearray(seed.strip())).wipe()
    except Exception:
        return "holds a seed that is no nkey"
    return None
