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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from ccms_server.config import Layout, NatsConfig
from ccms_server.errors import MetricStoreError
from ccms_server.ingest.nats_access import connections
from ccms_server.ingest.nats_client import BrokerClient
from ccms_server.ingest.nats_feed import Feed, is_refusal
from ccms_server.ingest.nats_report import NatsCounters, NatsReport
from ccms_server.ingest.writer import IngestCounters

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
CANCEL_SECONDS: Final = 1
"""Pause before a connection that goes on in spite of it is told again to end."""
DRAIN_SECONDS: Final = 10
"""Time for what was received to reach the writer's queue at the end."""


class LineSink(Protocol):
    """Where messages go: `MetricService`."""

    @property
    def counters(self) -> IngestCounters:
        """Lost messages are counted here."""
        ...

    async def admit_lines(self, payload: bytes, default_cluster: str) -> None:
        """Queues a batch of line protocol, as soon as there is room."""
        ...


class NatsSubscriber:
    """One connection with its subscriptions, kept up as long as `run` runs.

    Attributes:
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
        self.connected = False
        self._config = config
        self._sink = sink
        self._on_change = on_change
        self._report = NatsReport(name, sink.counters)
        self._client: Client | None = None
        self._closed = asyncio.Event()
        """Set when `_client` is of no use any more."""
        self._silence: asyncio.TimerHandle | None = None
        self._stopping = False
        self._feeds = [Feed(subscription) for subscription in config.subscriptions]
        self._idle = asyncio.Event()

    @property
    def counters(self) -> NatsCounters:
        """What happened on it since the start."""
        return self._report.counters

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
                if not self._stopping and client.last_error and not is_refusal(client.last_error):
                    self._report.problem(client.last_error)  # with this it sent us away; nats-py calls nobody then
            except Exception as error:  # of any kind: nothing that a broker says may end this server
                self._report.problem(error)
            finally:
                await self._close(client)
                accounted = self.counters.messages + self.counters.dropped - accounted_before
                if lost := client.stats["in_msgs"] - accounted:
                    self._report.dropped("they were still waiting when the connection was closed", lost)
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
            self._report.problem(error)

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

    async def _subscribe_one(self, client: Client, feed: Feed) -> None:
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
            self._report.problem(error)
            return
        for feed, refusals in asked.items():
            if feed.refused and feed.refusals == refusals:
                feed.refused = False
                self._report.permitted(feed.subject)
        await self._on_change()

    async def _close(self, client: Client) -> None:
        try:
            await client.close()
        except Exception as error:  # such as an AssertionError of one that did not get far
            self._report.problem(error)
        if self._silence is not None:
            self._silence.cancel()

    async def _receive(self, feed: Feed, message: Msg) -> None:
        feed.handing_over += 1
        self._idle.clear()
        try:
            await self._sink.admit_lines(message.data, feed.cluster_tag)
            self._report.received(len(message.data))
        except MetricStoreError as error:
            self._report.dropped(f"{message.subject}: {error}")
        except Exception as error:
            self._report.defect(error)
            self._report.dropped(f"{message.subject}: {error!r}")
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
            self._report.dropped(f"{error.subject}: the writer is behind")
        elif refused := [feed for feed in self._feeds if feed.is_refused_by(error)]:
            await self._refuse(refused)
        else:
            self._report.problem(error)
        self._watch()

    async def _refuse(self, feeds: Sequence[Feed]) -> None:
        """Marks what the broker does not permit: all feeds of a subject, the broker tells no more of them."""
        self._report.refused([feed.subject for feed in feeds if not feed.refused], RESUBSCRIBE_SECONDS)
        for feed in feeds:
            feed.refusals += 1
            feed.refused = True
        if self.connected:
            await self._on_change()

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

    async def _set_connected(self, connected: bool) -> None:
        if connected == self.connected:
            return
        self.connected = connected
        if connected:
            self._report.connected(self._server(), [feed.subject for feed in self._feeds if not feed.refused])
        else:
            self._report.disconnected(None if self._stopping else RECONNECT_SECONDS)
        await self._on_change()

    def _server(self) -> str:
        """The server we are connected to, without the password its URL may hold."""
        url = self._client.connected_url if self._client is not None else None
        return f"{url.hostname}:{url.port}" if url is not None else "no server"


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
            while pending := [task for task in running if not task.done()]:
                for task in pending:
                    task.cancel()
                await asyncio.wait(pending, timeout=CANCEL_SECONDS)  # what nats-py awaits may swallow a cancellation


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
