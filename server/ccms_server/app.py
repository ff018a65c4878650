"""The life of the process: what starts after what, and what stops in which order.

sockets bound -> privileges dropped -> directory locked, versions checked -> gRPC, REST (503) -> recovery
    -> health SERVING -> NATS
NOT_SERVING -> NATS drained -> REST and gRPC stopped -> writer drained, WAL synced -> directory let go

SIGINT and SIGTERM end it, SIGHUP has the configuration read again (`reload`).
"""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grpc import aio

import ccms_gateway
from ccms_server.auth import Guard
from ccms_server.config import Config, HttpApiConfig, split_address
from ccms_server.errors import reason_of
from ccms_server.exposure import warn_of_exposure
from ccms_server.extents import series_extents
from ccms_server.ingest.nats import NatsSubscriber, subscribed
from ccms_server.ingest.nats_access import check_credentials
from ccms_server.jit import keep_no_more
from ccms_server.listen import Endpoint, bind, close_all, endpoint, ip_addresses
from ccms_server.notify import notify
from ccms_server.privileges import drop_privileges
from ccms_server.reload import Reloader
from ccms_server.rpc.health import HealthState
from ccms_server.rpc.server import SERVICE_NAMES, bind_server, create_server, serving
from ccms_server.service import MetricService
from ccms_server.tls import Certificates
from ccms_server.used_nodes import UsedNodes
from ccms_server.warm_up import warm_up

logger = logging.getLogger(__name__)

GRACE_SECONDS: Final = 5.0
"""Time for running requests to finish at the end."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running server can be reached."""

    http: tuple[Endpoint, ...]
    grpc: tuple[Endpoint, ...]
    scheme: str
    """`http` or `https`."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is up, for those who run it inside their own process."""

    endpoints: Endpoints
    service: MetricService
    nats: Sequence[NatsSubscriber]


async def run(
    config: Config,
    *,
    config_path: Path | None = None,
    dev: bool = False,
    started: Callable[[Running], None] | None = None,
    stop: asyncio.Event | None = None,
    clock: Callable[[], float] = time.time,
) -> None:
    """Serves until SIGINT or SIGTERM, then stops in order: nothing that was taken in is left unwritten.

    Args:
        config: The configuration.
        config_path: File it was read from, to be read again on SIGHUP; None: it cannot be.
        dev: Serve a page to try the REST API.
        started: Called once all requests are served.
        stop: Ends the server when set; None: only signals do.
        clock: Seconds since the epoch.

    Raises:
        OSError: A port is taken, or the directory cannot be used.
        DirectoryError: The directory is in use, or of a later release.
        ConfigError: A file that the configuration names cannot be used.
        ExceptionGroup: A part of the server failed.
    """
    check_credentials(config.nats, config.layout)
    stop, hung_up = stop or asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(_ending(stop))
        stack.enter_context(_signal_set(signal.SIGHUP, hung_up))
        sockets = bind(config.http_api.address)
        stack.callback(close_all, sockets)
        guard = Guard(config.jwt_public_key, config.auth, clock=clock)
        grpc_server = create_server(config.limits.request_bytes, guard)
        certificates = _certificates(config.http_api, clock)
        endpoints = Endpoints(
            http=tuple(map(endpoint, sockets)),
            grpc=_bind_grpc(grpc_server, config.grpc_api.address, certificates),
            scheme="https" if certificates else "http",
        )
        if config.user or config.group:
            # Machine code that is not there yet is kept where this user may write.
            if not await _done_before(stop, warm_up()):
                logger.info("stopped before anything was served")
                return
            keep_no_more()
            drop_privileges(config.user, config.group)
            check_credentials(config.nats, config.layout)  # as the user who will read them at every connection
        used_nodes = _used_nodes(config, clock)
        kept_from = {} if used_nodes is None else {"kept_from": used_nodes.kept_from}
        service = stack.enter_context(MetricService.create(config, clock, **kept_from))
        health = HealthState(SERVICE_NAMES)
        await health.set_serving(False)
        if config.debug.dump_to_file:
            stack.push_async_callback(_dump, Path(config.debug.dump_to_file), service)
        await stack.enter_async_context(service.running())
        await stack.enter_async_context(serving(grpc_server, service, health, grace_seconds=GRACE_SECONDS))
        limits = config.limits
        rest = ccms_gateway.create_app(
            service,
            guard,
            request_bytes=limits.request_bytes,
            bodies_bytes=limits.queue_bytes,
            compression=config.http_api.compression,
            swagger=dev,
        )
        context = certificates.context if certificates else None
        await stack.enter_async_context(
            ccms_gateway.serving(rest, sockets, grace_seconds=GRACE_SECONDS, ssl_context=context)
        )
        _log_endpoints("listening at %s and %s, starting", endpoints)
        addresses = (*endpoints.http, *endpoints.grpc)
        warn_of_exposure(config, addresses)
        if await _first(service.wait_until_up(), stop.wait()):
            logger.info("stopping before everything was recovered")
        else:
            await health.set_serving(True)
            subscribers = await stack.enter_async_context(
                subscribed(config.nats, service, health.set_nats, config.layout)
            )
            stack.callback(service.drain)
            stack.push_async_callback(health.set_serving, False)
            _log_endpoints("serving REST on %s, gRPC on %s", endpoints)
            if not config.is_durable:
                logger.warning(
                    "samples are kept in memory only: set `checkpoints.directory` for them to outlive this process"
                )
            if used_nodes is not None:
                await stack.enter_async_context(_in_background(used_nodes.run()))
            if config_path is not None:
                reloader = Reloader(config_path, config, service, guard, certificates, addresses)
                await stack.enter_async_context(_in_background(reloader.run(hung_up)))
            notify("READY=1")
            if started is not None:
                started(Running(endpoints, service, subscribers))
            await stop.wait()
            logger.info("stopping")
        notify("STOPPING=1")
    logger.info("stopped")


@contextmanager
def _signal_set(number: signal.Signals, event: asyncio.Event) -> Iterator[None]:
    """Makes a signal set an event."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(number, event.set)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)


@asynccontextmanager
async def _in_background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs something that never ends by itself while the context lasts."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        finally:
            task.cancel()


async def _dump(path: Path, service: MetricService) -> None:
    """Writes what is held to a file, once all that came in is stored."""
    if not service.was_up:
        return
    try:
        await asyncio.to_thread(ccms_gateway.write_dump, path, series_extents(service.store, ()))
    except OSError as error:
        logger.error("`dump-to-file` cannot be written: %s", reason_of(error))
    else:
        logger.info("what is held was dumped to %s", path)


def _used_nodes(config: Config, clock: Callable[[], float]) -> UsedNodes | None:
    """Who tells which nodes are in use, if anybody does and it matters."""
    if not config.backend_url or not config.retention_seconds:
        return None
    return UsedNodes(config.backend_url, config.retention_seconds, clock, config.backend_token_file)


@contextmanager
def _ending(stop: asyncio.Event) -> Iterator[None]:
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


def _certificates(http: HttpApiConfig, clock: Callable[[], float]) -> Certificates | None:
    """What connections are encrypted with, if they are."""
    if not http.https_cert_file:
        return None
    return Certificates.load(http.https_cert_file, http.https_key_file, http.client_ca_file, clock=clock)


def _bind_grpc(server: aio.Server, address: str, certificates: Certificates | None) -> tuple[Endpoint, ...]:
    """Lets gRPC listen on all IP addresses that an address stands for, with the same port."""
    host, port = split_address(address)
    ips = ip_addresses(address)
    bound: list[Endpoint] = []
    for ip in ips if host else ips[-1:]:  # on IPv6's wildcard address, gRPC listens for IPv4 as well
        credentials = certificates.grpc_credentials() if certificates else None
        bound.append(bind_server(server, Endpoint(ip, port), credentials))
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


async def _done_before(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Works until it is done, or an event is set; returns whether it is done.

    Raises:
        ExceptionGroup: The work failed.
    """
    async with asyncio.TaskGroup() as tasks:
        working, stopping = tasks.create_task(work), tasks.create_task(stop.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        stopping.cancel()
    return not working.cancelled()


def _log_endpoints(form: str, endpoints: Endpoints) -> None:
    rest = " and ".join(f"{endpoints.scheme}://{each.authority}" for each in endpoints.http)
    grpc = " and ".join(each.authority for each in endpoints.grpc)
    logger.info(form, rest, grpc)
