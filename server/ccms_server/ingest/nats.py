"""Samples from NATS: subscriptions whose messages are handed to the writer.

Entries of the configuration that say the same of a broker share a connection (`nats_access`). Messages of a
subscription are handed over one by one, in the order they arrived; the next waits while the writer's queue is full.
Across subscriptions of a connection the order is not that of arrival: nats-py gives each subscription a queue and a
task of its own, and nothing public says which message came first. A collector publishes to one subject, so what one
host sends stays in order.

Core NATS has no acknowledgements: what does not fit into a subscription's pending limits is lost, counted and logged.
So is what nats-py throws away when it closes a connection: `Client.stats` tells how much was received.

A broker may refuse a subscription and leave the others alone. A refused one is asked for again from time to time: the
broker does not tell when its permissions have been mended.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from ccms_server.config import Layout, NatsConfig, NatsSubscription
from ccms_server.errors import MetricStoreError
from ccms_server.ingest.nats_access import connections
from ccms_server.ingest.nats_client import BrokerClient
from ccms_server.ingest.writer import IngestCounters

logger = logging.getLogger(__name__)

PENDING_BYTES_MAX: Final = 64 << 20
"""Payload that may wait in one subscription, beside the writer's queue."""
PENDING_MESSAGES_MAX: Final = 65_536
RECONNECT_SECONDS: Final = 1
"""Pause between two attempts to reach the same server."""
RESUBSCRIBE_SECONDS: Final = 10.0
"""Pause between two attempts to make the subscriptions that the broker refused."""
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

_AUTHORIZATION_PROBLEM: Final = re.compile("authoriz|authentic", re.IGNORECASE)
"""`Authorization Violation`, `User Authentication Expired` and the like."""
_PERMISSION_PROBLEM: Final = re.compile("permissions violation", re.IGNORECASE)


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
    """What happened on one connection since the start."""

    messages: int = 0
    """Messages handed over."""
    payload_bytes: int = 0
    """Their size."""
    dropped: int = 0
    """Messages lost because the writer was behind, or refused by it."""
    connections: int = 0
    """Times a connection was made; each but the first after a loss."""
    errors: int = 0
    """Attempts to connect that failed, and errors while connected; of these there are:"""
    authorization_errors: int = 0
    """Those with which the broker turned us away: a wrong password, or credentials that have expired."""
    permission_errors: int = 0
    """Subscriptions that the broker refused, each time it did."""


class _Feed:
    """What comes in for one subscription of the configuration.

    Attributes:
        subscription: What the configuration says.
        handle: nats-py's subscription; None before the first connection.
        handing_over: Messages taken from it that wait for room in the writer's queue.
        refusals: Times the broker refused it.
        refused: Whether the broker did when it was last asked.
    """

    def __init__(self, subscription: NatsSubscription) -> None:
        self.subscription = subscription
        self.handle: Subscription | None = None
        self.handing_over = 0
        self.refusals = 0
        self.refused = False
        subject = subscription.subscribe_to.replace("\\", "\\\\").replace('"', '\\"')
        self._quoted_subject = f'"{subject.lower()}"'

    @property
    def subject(self) -> str:
        return self.subscription.subscribe_to

    @property
    def waiting(self) -> int:
        """Messages that were received and not handed over yet."""
        return self.handing_over + (self.handle.pending_msgs if self.handle is not None else 0)

    def is_meant_by(self, error: Exception) -> bool:
        """Whether a broker's refusal is of this subscription; nats-py makes its words lowercase."""
        return self._quoted_subject in str(error).lower()


class NatsSubscriber:
    """One connection with its subscriptions, kept up as long as `run` runs.

    Attributes:
        counters: What happened on it.
        connected: Whether the connection is up and the broker was asked for the subscriptions.
    """

    def __init__(
        self, config: NatsConfig, sink: LineSink, on_change: Callable[[], Awaitable[None]], name: str = "nats"
    ) -> None:
        """Makes a subscriber; `run` starts it.

        Args:
            config: Where to connect to, and what to subscribe to.
            sink: Takes the payloads.
            on_change: Called when `serving` may have changed.
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
        self._feeds = [_Feed(subscription) for subscription in config.subscriptions]
        self._idle = asyncio.Event()
        self._problems: set[str] = set()
        """Those logged since the last change of `connected`."""
        self._dropped_logged = 0
        self._next_drop_log = 0.0

    @property
    def refused(self) -> list[str]:
        """Subjects that the broker does not permit."""
        return [feed.subject for feed in self._feeds if feed.refused]

    @property
    def serving(self) -> bool:
        """Whether everything that is published on the subjects of the configuration arrives here."""
        return self.connected and not self.refused

    @property
    def waiting(self) -> int:
        """Messages that were received and not handed over yet."""
        return sum(feed.waiting for feed in self._feeds)

    async def run(self) -> None:
        """Connects, subscribes and stays connected, until drained or cancelled; never gives up."""
        while not self._stopping:
            client = BrokerClient(self._config)
            accounted_before = self.counters.messages + self.counters.dropped
            try:
                await self._connect(client)
                await self._subscribe(client)
                await self._set_connected(True)
                await self._until_closed(client)  # nats-py reconnects by itself, unless the server sent it away
                self._note_farewell(client)
            except Exception as error:  # of any kind: nothing that a broker says may end this server
                self._note_problem(error)
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
            self._note_problem(error)

    async def _connect(self, client: BrokerClient) -> None:
        self._closed = closed = asyncio.Event()

        async def on_closed() -> None:
            closed.set()

        await client.connect(
            **client.access,
            name="cc-metric-store",
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
        for feed in self._feeds:
            feed.refused = False
            await self._subscribe_one(client, feed)
        await _until_answered(client)

    async def _subscribe_one(self, client: Client, feed: _Feed) -> None:
        async def receive(message: Msg) -> None:
            await self._receive(feed, message)

        feed.handle = await client.subscribe(
            feed.subject,
            cb=receive,
            pending_msgs_limit=PENDING_MESSAGES_MAX,
            pending_bytes_limit=PENDING_BYTES_MAX,
        )

    async def _until_closed(self, client: Client) -> None:
        """Waits until a connection is of no use any more; meanwhile asks for what was refused on it."""
        while not self._closed.is_set():
            try:
                async with asyncio.timeout(RESUBSCRIBE_SECONDS):
                    await self._closed.wait()
            except TimeoutError:
                await self._ask_again(client)

    async def _ask_again(self, client: Client) -> None:
        """Makes refused subscriptions anew: nats-py does so only when it reconnects."""
        # What waits in a subscription is lost with it; with a writer that is behind, there is no hurry.
        asked = {feed: feed.refusals for feed in self._feeds if feed.refused and not feed.waiting}
        if not asked or not client.is_connected or self._stopping:
            return
        try:
            for feed in asked:
                assert feed.handle is not None
                await feed.handle.unsubscribe()
                await self._subscribe_one(client, feed)
            await _until_answered(client)
        except nats.errors.Error as error:  # the connection was lost meanwhile
            self._note_problem(error)
            return
        for feed, refusals in asked.items():
            if feed.refused and feed.refusals == refusals:
                feed.refused = False
                logger.info("%s: subscribed to %s, which was refused before", self._name, feed.subject)
        await self._on_change()

    async def _close(self, client: Client) -> None:
        try:
            await client.close()
        except Exception as error:  # such as an AssertionError of one that did not get far
            self._note_problem(error)
        if self._silence is not None:
            self._silence.cancel()

    async def _receive(self, feed: _Feed, message: Msg) -> None:
        feed.handing_over += 1
        self._idle.clear()
        try:
            await self._sink.admit_lines(message.data, feed.subscription.cluster_tag)
            self.counters.messages += 1
            self.counters.payload_bytes += len(message.data)
        except MetricStoreError as error:
            self._count_drop(f"{message.subject}: {error}")
        except Exception as error:
            logger.exception("%s: a message could not be handed over", self._name)
            self._count_drop(f"{message.subject}: {error!r}")
        finally:
            feed.handing_over -= 1
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
        elif refused := [feed for feed in self._feeds if _is_refusal(error) and feed.is_meant_by(error)]:
            await self._note_refusal(refused)
        else:
            self._note_problem(error)
        self._watch()

    async def _on_disconnected(self) -> None:
        await self._set_connected(False)
        for feed in self._feeds:
            feed.refused = False  # nats-py asks for all of them when it is back
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
            subjects = ", ".join(feed.subject for feed in self._feeds if not feed.refused)
            logger.info("%s: connected to %s, subscribed to %s", self._name, self._server(), subjects or "nothing")
        elif not self._stopping:
            logger.warning("%s: connection lost; trying again every %d s", self._name, RECONNECT_SECONDS)
        await self._on_change()

    def _server(self) -> str:
        """The server we are connected to, without the password its URL may hold."""
        url = self._client.connected_url if self._client is not None else None
        return f"{url.hostname}:{url.port}" if url is not None else "no server"

    async def _note_refusal(self, feeds: Sequence[_Feed]) -> None:
        """Counts what the broker does not permit, and logs it if it is new."""
        self.counters.errors += 1
        self.counters.permission_errors += 1
        for feed in feeds:
            feed.refusals += 1
            if not feed.refused:
                feed.refused = True
                logger.error(
                    "%s: the broker does not permit to subscribe to %s, samples on it are missing; "
                    "permit it there, it is tried again every %g s",
                    self._name,
                    feed.subject,
                    RESUBSCRIBE_SECONDS,
                )
        if self.connected:
            await self._on_change()

    def _note_farewell(self, client: Client) -> None:
        """Tells why the broker sent us away, if it did: nats-py calls nobody then."""
        error = client.last_error
        if error is not None and not self._stopping and not _is_refusal(error):
            self._note_problem(error)

    def _note_problem(self, error: Exception) -> None:
        """Counts a problem, and logs it once in each state of the connection: servers are tried every second."""
        self.counters.errors += 1
        words = str(error).removeprefix("nats: ").strip("'")
        problem = f"{type(error).__name__}: {words}"
        if is_authorization := _AUTHORIZATION_PROBLEM.search(words) is not None:
            self.counters.authorization_errors += 1
        if problem in self._problems or len(self._problems) >= PROBLEMS_LOGGED_MAX:
            return
        self._problems.add(problem)
        if is_authorization:
            logger.warning("%s: the broker turns us away, check the credentials: %s", self._name, words)
        elif isinstance(error, nats.errors.Error | OSError):
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
    configs: Sequence[NatsConfig],
    sink: LineSink,
    set_health: Callable[[bool], Awaitable[None]],
    layout: Layout = Layout.OF_2024,
) -> AsyncIterator[list[NatsSubscriber]]:
    """Takes messages in while the context lasts; at its end, what was received is handed over first.

    Args:
        configs: The entries of the configuration; those that agree on how to reach a broker share a connection.
        sink: Takes the payloads.
        set_health: Told whether all connections are up with all their subscriptions, whenever that may have changed.
        layout: That of the configuration's file; messages name its entries.
    """

    async def on_change() -> None:
        await set_health(all(subscriber.serving for subscriber in subscribers))

    subscribers = [
        NatsSubscriber(connection.config, sink, on_change, connection.name)
        for connection in connections(configs, layout)
    ]
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


async def _until_answered(client: Client) -> None:
    """Waits until the broker has taken or refused every subscription that was asked for.

    A PING of nats-py overtakes what waits to be sent: only the answer to the second one tells.

    Raises:
        nats.errors.Error: The broker did not answer, or sent us away.
    """
    try:
        await client.flush()
        await client.flush()
    except nats.errors.ConnectionClosedError as error:
        raise client.last_error or error from None
    if client.is_closed:
        raise client.last_error or nats.errors.ConnectionClosedError


def _is_refusal(error: Exception) -> bool:
    """Whether the broker refuses something, and stays connected."""
    return _PERMISSION_PROBLEM.search(str(error)) is not None
