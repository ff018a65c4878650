"""The gRPC server: where it listens, which services it has, and how large a message may be."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from grpc import ServerCredentials, aio, unary_stream_rpc_method_handler
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ccms.v1 import admin_service_pb2, catalog_service_pb2, metric_store_service_pb2
from ccms.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from ccms.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from ccms.v1.metric_store_service_pb2_grpc import add_MetricStoreServiceServicer_to_server
from ccms_server.auth import Guard
from ccms_server.listen import Endpoint
from ccms_server.rpc.admin import AdminServicer
from ccms_server.rpc.authentication import Authentication
from ccms_server.rpc.call_limits import CALLS_MAX, CallLimits
from ccms_server.rpc.calls import AroundCalls
from ccms_server.rpc.catalog import CatalogServicer
from ccms_server.rpc.health import HealthState
from ccms_server.rpc.service import MetricStoreServicer
from ccms_server.service import MetricService

SERVICE_NAMES: Final = tuple(
    service.full_name
    for file in (metric_store_service_pb2, catalog_service_pb2, admin_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
SENT_MESSAGE_BYTES_MAX: Final = 32 << 20
"""Larger than any answer that comes as one message: the health of 100,000 hosts. Those of queries have 120 KiB."""
MESSAGE_ROOM_BYTES: Final = 1 << 20
"""What a message may be larger than a request: what is a little too large is then told so by our own check."""

KEEPALIVE: Final = (
    # Collectors are silent for a minute between two cycles. A peer that is gone without a word is noticed by pings, and
    # gives its place back.
    ("grpc.keepalive_time_ms", 120_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Clients may ping as well, between calls too, to keep firewalls from forgetting them; more often is an attack.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


def create_server(request_bytes: int, guard: Guard) -> aio.Server:
    """Makes a server without services, which can be bound to its addresses before the store is ready.

    Args:
        request_bytes: Size of the largest write request.
        guard: Decides who may call what.
    """
    return aio.server(
        options=[
            ("grpc.max_receive_message_length", min(request_bytes + MESSAGE_ROOM_BYTES, 2**31 - 1)),
            ("grpc.max_send_message_length", SENT_MESSAGE_BYTES_MAX),
            ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake to be told of
            *KEEPALIVE,
        ],
        interceptors=[Authentication(guard), AroundCalls(CallLimits())],
        maximum_concurrent_rpcs=CALLS_MAX,
    )


def bind_server(server: aio.Server, endpoint: Endpoint, credentials: ServerCredentials | None = None) -> Endpoint:
    """Listens on an address.

    Args:
        server: The server.
        endpoint: The address.
        credentials: Certificate to show; None: connections are not encrypted.

    Returns:
        The address, with the port that was free where it asks for port 0.

    Raises:
        OSError: It is taken, or no address of this machine.
    """
    try:
        if credentials is None:
            port = server.add_insecure_port(endpoint.authority)
        else:
            port = server.add_secure_port(endpoint.authority, credentials)
    except RuntimeError:
        raise OSError(errno.EADDRINUSE, f"cannot listen on {endpoint.authority}: it is taken") from None
    return Endpoint(endpoint.host, port)


@asynccontextmanager
async def serving(
    server: aio.Server, service: MetricService, health_state: HealthState, *, grace_seconds: float
) -> AsyncIterator[None]:
    """Answers calls while the context lasts; at its end, running calls have some time to finish."""
    servicer = MetricStoreServicer(service)
    add_MetricStoreServiceServicer_to_server(servicer, server)
    # Replaces the handler that would serialize the answers of queries, which are bytes already.
    query: Any = unary_stream_rpc_method_handler(servicer.Query, metric_store_service_pb2.QueryRequest.FromString)
    server.add_registered_method_handlers(SERVICE_NAMES[0], {"Query": query})
    add_CatalogServiceServicer_to_server(CatalogServicer(service), server)
    add_AdminServiceServicer_to_server(AdminServicer(service), server)
    health_pb2_grpc.add_HealthServicer_to_server(health_state.servicer, server)
    reflection.enable_server_reflection((*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace_seconds)
