"""Serving the application on sockets."""

import socket
import struct

from ccms_gateway.app import create_app
from ccms_gateway.server import serving
from ccms_server.auth import Guard
from ccms_server.config import AuthConfig
from ccms_server.listen import BACKLOG, bind

TCP_INFO_COUNTS = struct.Struct("=8x6I")
"""The first fields of the kernel's `struct tcp_info`; of a socket that listens, the last one is its backlog."""


async def test_connections_of_a_whole_cluster_may_wait():
    guard = Guard("", AuthConfig(), clock=lambda: 0.0)
    [listening] = bind("127.0.0.1:0")
    async with serving(create_app(None, guard, request_bytes=1, bodies_bytes=1), [listening], grace_seconds=1):
        told = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_COUNTS.size)
        assert TCP_INFO_COUNTS.unpack(told)[-1] == BACKLOG
