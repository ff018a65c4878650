"""How a channel of gRPC to a server is set up."""

import json
from typing import Final

import grpc
from grpc import aio

from ccms.v1 import admin_service_pb2, catalog_service_pb2, metric_store_service_pb2
from ccms_client.tls import Tls

MESSAGE_BYTES_MAX: Final = 64 << 20
"""Largest message sent or taken; what the server takes may be less."""

STORE: Final = metric_store_service_pb2.DESCRIPTOR.services_by_name["MetricStoreService"].full_name
CATALOG: Final = catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name
ADMIN: Final = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

_BACKOFF: Final = {
    "maxAttempts": 5,  # the most gRPC makes; together they last some three seconds, a restart of the server one or two
    "initialBackoff": "0.2s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
}

SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [
                {"service": CATALOG},
                {"service": ADMIN},  # what is freed twice is freed
                {"service": STORE, "method": "Query"},  # until the first part has come
                {"service": STORE, "method": "Watch"},
            ],
            "retryPolicy": _BACKOFF | {"retryableStatusCodes": ["UNAVAILABLE"]},
        },
        {
            # Their request ids make it harmless. A server that is behind says when to come back, which is kept to.
            "name": [{"service": STORE, "method": "Write"}, {"service": STORE, "method": "WriteLineProtocol"}],
            "retryPolicy": _BACKOFF | {"retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]},
        },
    ]
}
"""Calls that gRPC makes again by itself. `WriteStream` is not among them: its writer knows what to send again."""

OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.per_rpc_retry_buffer_size", MESSAGE_BYTES_MAX),  # a request beyond it would not be sent again
    # Collectors are silent for a minute between two cycles; firewalls may forget a connection by then.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that comes back is found within seconds; the default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),  # each client has a connection of its own
)


def open_channel(address: str, tls: Tls | None, *, compression: bool, retries: bool) -> aio.Channel:
    """A channel of the event loop that runs; it connects when it is used.

    Args:
        address: `host:port`.
        tls: Encrypts the connection; None: it is not encrypted.
        compression: Whether requests are sent compressed.
        retries: Whether failed calls are made again, see `SERVICE_CONFIG`.
    """
    options = [*OPTIONS, ("grpc.enable_retries", int(retries))]
    algorithm = grpc.Compression.Gzip if compression else None
    if tls is None:
        return aio.insecure_channel(address, options=options, compression=algorithm)
    return aio.secure_channel(address, tls.credentials(), options=options, compression=algorithm)
