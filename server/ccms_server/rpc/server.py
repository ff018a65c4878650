"""The gRPC server: where it listens, which services it has, and how large a message may be."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from grpc import ServerCredentials, aio, unary_stream_rpc_method_handler
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ccms.v1.metric_store_service_pb2 import DESCRIPTOR, QueryResponse
from ccms.v1.metric_store_service_pb2_grpc import add_MetricStoreServiceServicer_to_server
from ccms_server.auth import Guard
from ccms_server.listen import Endpoint
from ccms_server.rpc.authentication import Authentication
from ccms_server.rpc.health import HealthState
from ccms_server.rpc.query import parse_query
from ccms_server.rpc.service import MetricStoreServicer
from ccms_server.rpc.undecodable import RefuseUndecodable
from ccms_server.service import MetricService

SERVICE_NAME: Final = DESCRIPTOR.services_by_name["MetricStoreService"].full_name
SENT_MESSAGE_BYTES_MAX: Final = 4 << 20
"""What clients take unless told otherwise; the largest messages sent are 120 KiB of values and a header."""
CALLS_MAX: Final = 256
"""Calls at the same time, those that watch the health included; more are refused with RESOURCE_EXHAUSTED."""
MESSAGE_ROOM_BYTES: Final = 1 << 20
"""What a message may be larger than a request: what is a little too large is then told so by our own check."""


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
        ],
        interceptors=[Authentication(guard), RefuseUndecodable()],
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
    # Replaces the handler that would parse queries of any size.
    query = unary_stream_rpc_method_handler(servicer.Query, parse_query, QueryResponse.SerializeToString)
    server.add_registered_method_handlers(SERVICE_NAME, {"Query": query})
    health_pb2_grpc.add_HealthServicer_to_server(health_state.servicer, server)
    reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace_seconds)
