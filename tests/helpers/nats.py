"""A real nats-server on a free port, which can be killed and started again on the same one."""

import asyncio
import re
import sysconfig
from contextlib import asynccontextmanager
from pathlib import Path

import nats

from helpers.waiting import DEADLINE_SECONDS

BINARY = Path(sysconfig.get_path("scripts")) / "nats-server"
ANY_PORT = -1


class NatsServer:
    def __init__(self, arguments=()):
        self.port = ANY_PORT
        self._arguments = arguments
        self._process = None
        self._reading = None

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    async def start(self):
        """Starts it, the first time on any port, later on the same."""
        self._process = await asyncio.create_subprocess_exec(
            BINARY, "--addr", "127.0.0.1", "--port", str(self.port), *self._arguments, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(DEADLINE_SECONDS):
            async for line in self._process.stderr:
                if found := re.search(rb"Listening for client connections on 127.0.0.1:(\d+)", line):
                    self.port = int(found[1])
                if b"Server is ready" in line:
                    break
            else:
                raise AssertionError("nats-server did not start")
        self._reading = asyncio.create_task(self._process.stderr.read())

    async def kill(self):
        """Ends it without any farewell."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


@asynccontextmanager
async def nats_server(*arguments):
    """Runs a NATS server while the context lasts."""
    server = NatsServer(arguments)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@asynccontextmanager
async def publisher(server, **options):
    """A connection to publish with."""
    client = await nats.connect(server.url, **options)
    try:
        yield client
    finally:
        await client.close()
