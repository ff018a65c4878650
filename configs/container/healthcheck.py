"""Asks a server for its health: `healthcheck.py host:port [file of the authorities, where TLS is served]`.

Exit codes: 0 when it serves, 1 when it does not.
"""

import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 5


def is_serving(address: str, ca_file: str = "") -> bool:
    """Whether a server answers that it serves.

    Args:
        address: `host:port` of its gRPC services.
        ca_file: PEM file of the authorities its certificate is checked against; empty: it serves without TLS.
    """
    if ca_file:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(Path(ca_file).read_bytes()))
    else:
        channel = grpc.insecure_channel(address)
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            sys.stderr.write(f"{address}: {error.details()}\n")
            return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING


if __name__ == "__main__":
    sys.exit(0 if is_serving(*sys.argv[1:3]) else 1)
