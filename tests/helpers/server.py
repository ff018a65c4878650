"""The real server: inside this process, or as a process of its own."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

from ccms_client import AsyncClient
from ccms_server.app import run
from ccms_server.config import parse_config
from helpers.rest import rest_client
from helpers.waiting import DEADLINE_SECONDS

METRICS = {"cpu_load": {"frequency": 60}, "flops_any": {"frequency": 60, "aggregation": "sum"}}


def config_text(metrics=METRICS, nats=(), **sections):
    """A configuration on free ports that keeps samples for ever."""
    return json.dumps(
        {
            "metrics": metrics,
            "http-api": {"address": "127.0.0.1:0"},
            "grpc-api": {"address": "127.0.0.1:0"},
            "retention-in-memory": "0",
            "nats": list(nats),
            **sections,
        }
    )


class Server:
    """A server that runs, with a client for each protocol."""

    def __init__(self, rest, grpc, grpc_address):
        self.rest = rest
        self.grpc = grpc
        self.grpc_address = grpc_address


class ServerInside(Server):
    """A server in this process, whose insides can be seen."""

    def __init__(self, rest, grpc, grpc_address, running, stop, task):
        super().__init__(rest, grpc, grpc_address)
        self.service = running.service
        self.nats = running.nats
        self.stop = stop
        self.task = task


@asynccontextmanager
async def server_inside(*, token=None, authority=None, client=None, dev=False, clock=time.time, **config):
    """Runs the whole application in this process.

    Args:
        token: What its clients send.
        authority: Whose certificate it has; None: there is no TLS.
        client: Certificate that its clients show.
        dev: Whether there is a page to try the REST API.
        clock: Seconds since the epoch.
        config: See `config_text`.
    """
    loop = asyncio.get_running_loop()
    up, stop = loop.create_future(), asyncio.Event()
    serving = run(parse_config(config_text(**config)), dev=dev, started=up.set_result, stop=stop, clock=clock)
    task = asyncio.create_task(serving)
    await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task  # raises what kept it from starting
    running = up.result()
    grpc_address = running.endpoints.grpc[0].authority
    try:
        async with clients(
            f"{running.endpoints.scheme}://{running.endpoints.http[0].authority}",
            grpc_address,
            token=token,
            authority=authority,
            client=client,
        ) as (rest, grpc):
            yield ServerInside(rest, grpc, grpc_address, running, stop, task)
    finally:
        stop.set()
        await asyncio.wait({task})
    await task


@asynccontextmanager
async def clients(http, grpc_address, *, token=None, authority=None, client=None):
    """A client for each protocol, see `server_inside`."""
    async with (
        rest_client(http, token=token, ssl_context=authority and authority.context(client)) as rest,
        AsyncClient(grpc_address, token=token, tls=authority and authority.tls(client)) as grpc,
    ):
        yield rest, grpc


class ServerProcess(Server):
    """A server of its own process, as users run it."""

    def __init__(self, rest, grpc, grpc_address, process, log):
        super().__init__(rest, grpc, grpc_address)
        self.process = process
        self.log = log

    def resident_bytes(self):
        """Memory the process has in use."""
        return self._status_bytes("VmRSS")

    def resident_peak_bytes(self):
        """Memory the process had in use at most, since the start or since `forget_resident_peak`."""
        return self._status_bytes("VmHWM")

    def anonymous_bytes(self):
        """Memory of the process that is no file's, swapped out or not: no shortage of memory changes it."""
        return self._status_bytes("RssAnon") + self._status_bytes("VmSwap")

    def forget_resident_peak(self):
        """Makes the memory in use now the peak."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    async def terminate(self):
        """Sends SIGTERM and waits; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.process.wait()

    def _status_bytes(self, key):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)[1])


@asynccontextmanager
async def server_process(directory, *, environment=None, start_seconds=DEADLINE_SECONDS, **config):
    """Runs `python -m ccms_server` with a configuration file in a directory.

    Args:
        directory: For the file.
        environment: Variables beside those of this process.
        start_seconds: How long its start may take.
        config: See `config_text`.
    """
    path = directory / "config.json"
    path.write_text(config_text(**config))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ccms_server", "-config", str(path)),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | (environment or {}),
    )
    log = []
    try:
        async with asyncio.timeout(start_seconds):
            http, grpc_address = await _addresses(process, log)
        reading = asyncio.create_task(_read_log(process, log))
        async with rest_client(http) as rest, AsyncClient(grpc_address) as grpc:
            yield ServerProcess(rest, grpc, grpc_address, process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    await reading


async def _addresses(process, log):
    """Reads the log up to the line that says where the server listens."""
    async for line in process.stderr:
        log.append(line.decode())
        if found := re.search(r"REST on (https?://\S+), gRPC on (\S+)$", log[-1]):
            return found[1], found[2]
    raise AssertionError(f"the server did not start: {''.join(log)}")


async def _read_log(process, log):
    async for line in process.stderr:
        log.append(line.decode())
