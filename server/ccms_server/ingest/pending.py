"""What waits in the writer's queue, and what may become of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ccms_server.durability.known_writes import WriteId
from ccms_server.ingest.batches import OVERHEAD_BYTES, Batch
from ccms_server.model import WriteReport


@dataclass(slots=True, eq=False)
class PendingWrite:
    """A batch that waits to be written."""

    batch: Batch
    id: WriteId | None
    """What it is told from other writes by; None: it is stored whenever it comes."""
    done: asyncio.Future[WriteReport] | None
    """None: nobody waits."""

    @property
    def size(self) -> int:
        """Bytes it takes while it waits."""
        return self.batch.size


@dataclass(slots=True, eq=False)
class PendingCall:
    """Something else that is to be done in its turn."""

    work: Callable[[], int]
    done: asyncio.Future[int]
    size: int = OVERHEAD_BYTES


@dataclass(slots=True, eq=False)
class PendingCheckpoint:
    """A checkpoint that is asked for; it is begun in its turn, and done later."""

    done: asyncio.Future[int]
    """Its result says nothing."""
    size: int = OVERHEAD_BYTES


Pending = PendingWrite | PendingCall | PendingCheckpoint
Outcome = WriteReport | int | Exception
