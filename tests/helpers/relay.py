"""What lies between a client and a server on a network, and may fail."""

import asyncio
from contextlib import asynccontextmanager, suppress


class Relay:
    """Passes bytes on between clients and a server.

    Attributes:
        address: Where clients connect.
        target: Where the server is, `host:port`; may change.
        connections: Those there have been.
        sent: Bytes that clients have sent.
        received: Bytes that the server has sent.
    """

    def __init__(self, target):
        self.address = ""
        self.target = target
        self.connections = 0
        self.sent = 0
        self.received = 0
        self._mute = False
        self._open = set()
        self._tasks = set()

    def cut(self):
        """Breaks all connections off."""
        for writer in self._open:
            writer.transport.abort()

    def mute(self):
        """Keeps from clients what the server says, until the connections are cut."""
        self._mute = True

    async def take(self, reader, writer):
        """Passes a connection on until one of its ends is gone."""
        host, _, port = self.target.rpartition(":")
        try:
            to_server = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        self._mute = False
        self._open |= {writer, to_server[1]}
        try:
            async with asyncio.TaskGroup() as passing:
                passing.create_task(self._pass(reader, to_server[1], from_server=False))
                passing.create_task(self._pass(to_server[0], writer, from_server=True))
        finally:
            self._open -= {writer, to_server[1]}

    async def _pass(self, reader, writer, *, from_server):
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                if from_server:
                    self.received += len(piece)
                else:
                    self.sent += len(piece)
                if not (from_server and self._mute):
                    writer.write(piece)
                    await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def relay_to(target=""):
    """A relay to a server."""
    relay = Relay(target)
    server = await asyncio.start_server(relay.take, "127.0.0.1", 0)
    relay.address = "{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield relay
    finally:
        server.close()
        relay.cut()
        await server.wait_closed()
