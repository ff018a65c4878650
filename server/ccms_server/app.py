"""The life of the process: what starts after what, and what stops in which order.

directory locked, versions checked -> sockets bound -> gRPC, REST (503) -> recovery -> health SERVING -> NATS
NOT_SERVING -> NATS drained -> REST and gRPC stopped -> writer drained, WAL synced -> directory let go
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from grpc import aio

import ccms_gateway
from ccms_server.config import Config, split_address
from ccms_server.ingest.nats import NatsSubscriber, check_credentials, subscribed
from ccms_server.listen import Endpoint, bind, close_all, endpoint, ip_addresses
from ccms_server.notify import notify
from ccms_server.rpc.health import HealthState
from ccms_server.rpc.server import SERVICE_NAME, bind_server, create_server, serving
from ccms_server.service import MetricService

logger = logging.getLogger(__name__)

GRACE_SECONDS: Final = 5.0
"""Time for running requests to finish at the end."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running server can be reached."""

    http: tuple[Endpoint, ...]
    grpc: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is up, for those who run it inside their own process."""

    endpoints: Endpoints
    service: MetricService
    nats: Sequence[NatsSubscriber]


async def run(
    config: Config,
    *,
    started: Callable[[Running], None] | None = None,
    stop: asyncio.Event | None = None,
    clock: Callable[[], float] = time.time,
) -> None:
    """Serves until SIGINT or SIGTERM, then stops in order: nothing that was taken in is left unwritten.

    Args:
        config: The configuration.
        started: Called once all requests are served.
        stop: Ends the server when set; None: only signals do.
        clock: Seconds since the epoch.

    Raises:
        OSError: A port is taken, or the directory cannot be used.
        DirectoryError: The directory is in use, or of a later release.
        ConfigError: A file that the configuration names cannot be used.
        ExceptionGroup: A part of the server failed.
    """
    check_credentials(config.nats)
    stop = stop or asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(_signals_set(stop))
        service = stack.enter_context(MetricService.create(config, clock))
        sockets = bind(config.http_api.address)
        stack.callback(close_all, sockets)
        grpc_server = create_server(config.limits.request_bytes)
        endpoints = Endpoints(http=tuple(map(endpoint, sockets)), grpc=_bind_grpc(grpc_server, config.grpc_api.address))
        health = HealthState(SERVICE_NAME)
        await health.set_serving(False)
        await stack.enter_async_context(service.running())
        await stack.enter_async_context(serving(grpc_server, service, health, grace_seconds=GRACE_SECONDS))
        limits = config.limits
        rest = ccms_gateway.create_app(service, request_bytes=limits.request_bytes, bodies_bytes=limits.queue_bytes)
        await stack.enter_async_context(ccms_gateway.serving(rest, sockets, grace_seconds=GRACE_SECONDS))
        _log_endpoints("listening at %s and %s, starting", endpoints)
        if await _first(service.wait_until_up(), stop.wait()):
            logger.info("stopping before everything was recovered")
        else:
            await health.set_serving(True)
            subscribers = await stack.enter_async_context(subscribed(config.nats, service, health.set_nats))
            stack.push_async_callback(health.set_serving, False)
            _log_endpoints("serving REST on %s, gRPC on %s", endpoints)
            if not config.is_durable:
                logger.warning(
                    "samples are kept in memory only: set `checkpoints.directory` for them to outlive this process"
                )
            notify("READY=1")
            if started is not None:
                started(Running(endpoints, service, subscribers))
            await stop.wait()
            logger.info("stopping")
        notify("STOPPING=1")
    logger.info("stopped")


@contextmanager
def _signals_set(stop: asyncio.Event) -> Iterator[None]:
    """Makes SIGINT and SIGTERM set an event; a second one ends the process at once, whatever is left to do."""
    loop = asyncio.get_running_loop()

    def set_stop(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, set_stop, number)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _bind_grpc(server: aio.Server, address: str) -> tuple[Endpoint, ...]:
    """Lets gRPC listen on all IP addresses that an address stands for, with the same port."""
    host, port = split_address(address)
    ips = ip_addresses(address)
    bound: list[Endpoint] = []
    for ip in ips if host else ips[-1:]:  # on IPv6's wildcard address, gRPC listens for IPv4 as well
        bound.append(bind_server(server, Endpoint(ip, port)))
        port = bound[-1].port
    return tuple(bound)


async def _first(*waiting: Coroutine[None, None, object]) -> int:
    """Waits for the first of some coroutines to end, and gives up the others; returns its position."""
    tasks = [asyncio.ensure_future(each) for each in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    return next(position for position, task in enumerate(tasks) if task.done() and not task.cancelled())


def _log_endpoints(form: str, endpoints: Endpoints) -> None:
    rest = " and ".join(f"http://{each.authority}" for each in endpoints.http)
    grpc = " and ".join(each.authority for each in endpoints.grpc)
    logger.info(form, rest, grpc)
