"""How the server is: what it holds, what came in, and what is on disk."""

from dataclasses import dataclass
from importlib import metadata

from ccms_server.durability.keeper import DiskStatus
from ccms_server.ingest.writer import IngestCounters
from ccms_server.store.store import StoreSize

DISTRIBUTION = "cc-metric-store"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """A look at the server."""

    version: str
    """Its release."""
    uptime_seconds: float
    clock: int
    """Its time, seconds since the epoch."""
    resident_bytes: int
    """Memory of the process; 0 if the system does not tell."""
    size: StoreSize
    """What the store holds."""
    series_max: int
    """Series there may be."""
    counters: IngestCounters
    """What came in since the start."""
    queued_bytes: int
    """What waits to be written."""
    watches: int
    """Watches that are open."""
    missed_samples: int
    """Samples that slow watches have missed since the start."""
    disk: DiskStatus | None
    """What is on disk; None: nothing is kept there."""


def version() -> str:
    """Release of this server."""
    return metadata.version(DISTRIBUTION)
