"""The servers that are measured: ours, started here as users run it, and perhaps a peer that runs already."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.payloads import CLUSTER, metrics
from helpers.server import ServerProcess, server_process

IN_MEMORY = "memory"
"""Stands beside the policies for syncing the WAL: nothing is kept on disk."""


@dataclass(frozen=True, slots=True)
class MeasuredServer:
    """Where a server takes lines and answers queries, and which process it is."""

    port: int
    """Of HTTP, on `host`."""
    pid: int
    host: str = "127.0.0.1"
    write_path: str = f"/api/write?cluster={CLUSTER}"
    """Path, and perhaps a query, that lines are posted to."""
    grpc_address: str = ""
    """Empty: there is no gRPC."""
    cluster: str = CLUSTER
    """That is written and queried."""

    @classmethod
    def of(cls, server: ServerProcess) -> "MeasuredServer":
        """One of ours."""
        port = urlsplit(server.rest.base_url).port
        assert port is not None
        return cls(port, server.process.pid, grpc_address=server.grpc_address)


@asynccontextmanager
async def running(directory: Path, sync: str = "always", **options: object) -> AsyncIterator[ServerProcess]:
    """Runs our server with all metrics of the payloads, without authentication.

    Args:
        directory: For its configuration and what it keeps.
        sync: When the WAL is synced, or IN_MEMORY.
        options: Further sections of its configuration, and options of `server_process`.
    """
    kept = {} if sync == IN_MEMORY else {"checkpoints": {"directory": str(directory / "store"), "sync": sync}}
    async with server_process(directory, metrics=metrics(), **kept, **options) as server:
        yield server


@asynccontextmanager
async def measured_server(**options: object) -> AsyncIterator[MeasuredServer]:
    """The same in an empty directory, as it is measured."""
    with tempfile.TemporaryDirectory() as directory:
        async with running(Path(directory), **options) as server:
            yield MeasuredServer.of(server)
