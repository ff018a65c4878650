"""What becomes of samples beyond the tiles they are put into: the writer's thread calls a keeper."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ccms_server.durability.known_writes import KnownWrite, KnownWrites
from ccms_server.store.append import Placement
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """What is on disk."""

    directory: Path
    """Where."""
    wal_bytes: int
    wal_segments: int
    """Files of the WAL."""
    blocks: int
    """Files of blocks."""
    damage: int
    """Damaged places that were found since the start."""
    troubles: Sequence[str]
    """What the disk refuses at the moment, and why."""


class Keeper(Protocol):
    """What the writer needs; all of it is called on one thread.

    Attributes:
        tick: Seconds after which `is_sync_due` may have changed.
        known_writes: Writes that are stored.
    """

    tick: float
    known_writes: KnownWrites

    def put(self, placements: Sequence[Placement], writes: Sequence[KnownWrite] = ()) -> None:
        """Puts samples into the store, all of them at once as far as durability is concerned.

        Args:
            placements: The samples.
            writes: What is to be known of them from then on, in `known_writes`.

        Raises:
            DiskUnavailableError: They cannot be made durable; none of them was put.
        """

    def free(self, path: Sequence[str], before: int) -> int:
        """Drops the samples of a subtree that are older than a time in seconds; see `Store.floors`.

        Returns:
            Number of series that lost samples.

        Raises:
            DiskUnavailableError: It cannot be made durable; nothing was dropped.
        """

    def configure(self, metrics: Iterable[Metric]) -> None:
        """Serves metrics from now on, or other rules to aggregate them by; a name keeps its interval."""

    def maintain(self, oldest: int) -> Iterator[None]:
        """Does what is due; yields after every piece of a few milliseconds.

        Args:
            oldest: Windows that end before this time are dropped, seconds.
        """

    def begin_checkpoint(self) -> int:
        """Has everything that was put so far sealed and stored by `maintain`, as soon as possible.

        Returns:
            What `is_checkpointed` is to be asked with.

        Raises:
            DiskUnavailableError: The disk refuses.
        """

    def is_checkpointed(self, checkpoint: int) -> bool:
        """Whether that is done; for after `maintain`.

        Raises:
            DiskUnavailableError: The disk has refused something since.
        """

    def disk_status(self) -> DiskStatus | None:
        """What is on disk; None: nothing is kept there. May be asked on any thread."""

    @property
    def is_sync_due(self) -> bool:
        """Whether `sync_if_due` has something to do; may be asked on any thread."""

    def sync_if_due(self) -> None:
        """Forces to disk what must not wait any longer."""

    def close(self) -> None:
        """Forces everything to disk that is not there yet."""


class MemoryKeeper:
    """Keeps samples in memory only."""

    tick = float("inf")
    is_sync_due = False

    def __init__(self, store: Store) -> None:
        self.known_writes = KnownWrites()
        self._store = store
        self._checkpoints_begun = 0
        self._checkpoints_done = 0

    def put(self, placements: Sequence[Placement], writes: Sequence[KnownWrite] = ()) -> None:  # noqa: D102  see Keeper
        for placed in placements:
            self._store.put(placed)
        self.known_writes.note(writes)

    def free(self, path: Sequence[str], before: int) -> int:  # noqa: D102
        return self._store.free(path, before)

    def configure(self, metrics: Iterable[Metric]) -> None:  # noqa: D102
        for metric in metrics:
            number = self._store.metric_id(metric.name)
            self._store.configure(len(self._store.tables) if number is None else number, metric)

    def maintain(self, oldest: int) -> Iterator[None]:  # noqa: D102
        yield from self._store.maintain(oldest)
        begun = self._checkpoints_begun
        if self._checkpoints_done < begun:
            for table in list(self._store.tables):  # metrics may be added in a pause
                for number in sorted(table.unsealed):
                    yield from self._store.seal_window(table, number)
            self._checkpoints_done = begun

    def begin_checkpoint(self) -> int:  # noqa: D102
        self._checkpoints_begun += 1
        return self._checkpoints_begun

    def is_checkpointed(self, checkpoint: int) -> bool:  # noqa: D102
        return self._checkpoints_done >= checkpoint

    def disk_status(self) -> None:  # noqa: D102
        return None

    def sync_if_due(self) -> None:  # noqa: D102
        pass

    def close(self) -> None:  # noqa: D102
        pass
