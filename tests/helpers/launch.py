"""Servers that are processes of their own and may end in any way, or never start."""

import asyncio
import os
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from helpers.server import ServerProcess, clients, config_text
from helpers.waiting import DEADLINE_SECONDS, eventually

TESTS = Path(__file__).parents[1]


class Launched:
    """A server process from its first moment on.

    Attributes:
        process: The process; with a prefix that does not `exec`, the one that started it.
        log: The lines it has written so far.
    """

    def __init__(self, process):
        self.process = process
        self.log = []
        self._reading = asyncio.create_task(self._read())

    @property
    def text(self):
        return "".join(self.log)

    async def until_logged(self, pattern, *, seconds=DEADLINE_SECONDS):
        """Waits for a line; returns its match, or None if the process ended without it."""
        at = 0

        def found():
            nonlocal at
            is_last = self._reading.done()
            while at < len(self.log):
                at += 1
                if match := re.search(pattern, self.log[at - 1]):
                    return [match]
            return [None] if is_last else []

        return (await eventually(found, f"{pattern!r} in the log", seconds=seconds))[0]

    async def end(self):
        """Waits for the end; returns the exit code."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._reading
            return await self.process.wait()

    async def kill(self):
        if self.process.returncode is None:
            self.process.kill()
        return await self.end()

    @asynccontextmanager
    async def clients(self, pattern=r"serving REST on (https?://\S+), gRPC on (\S+)$", **access):
        """Waits for a line with addresses; yields the server with a client for each protocol.

        Args:
            pattern: Of the line.
            access: Token and certificates, see `helpers.server.clients`.
        """
        found = await self.until_logged(pattern)
        assert found is not None, f"the server did not start: {self.text}"
        async with clients(found[1], found[2], **access) as (rest, grpc):
            yield ServerProcess(rest, grpc, found[2], self.process, self.log)

    def clients_while_starting(self):
        """As `clients`, as soon as it listens."""
        return self.clients(r"listening at (https?://\S+) and (\S+), starting$")

    async def _read(self):
        async for line in self.process.stderr:
            self.log.append(line.decode())


@asynccontextmanager
async def launched(directory, *, prefix=(), module=("ccms_server",), environment=(), text=None, **config):
    """Starts `python -m ccms_server` with a configuration file in a directory; it is killed at the end of the context.

    Args:
        directory: Of the configuration file.
        prefix: Command that is given the server's.
        module: What `-m` is given instead, and arguments before `-config`.
        environment: Variables to set.
        text: Of the configuration file; None: that of `config_text`.
        config: See `config_text`.
    """
    path = directory / "config.json"
    path.write_text(config_text(**config) if text is None else text)
    path_before = filter(None, [os.environ.get("PYTHONPATH")])
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *(sys.executable, "-m", *module, "-config", str(path)),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *path_before])} | dict(environment),
    )
    server = Launched(process)
    try:
        yield server
    finally:
        await server.kill()


@asynccontextmanager
async def served(directory, **options):
    """Starts a server, see `launched`, and waits for it to serve."""
    async with launched(directory, **options) as server, server.clients() as clients:
        yield clients
