"""What the predecessor left in a directory, and what it is to find there again, for the server around the store."""

from collections.abc import Callable, Iterator
from pathlib import Path

from ccms_server.config import CheckpointFormat, CheckpointsConfig, Config
from ccms_server.durability.directory import StoreDirectory
from ccms_server.durability.disk_keeper import DiskKeeper
from ccms_server.legacy.checkpoints import JsonCheckpoints
from ccms_server.legacy.importing import LegacyImport
from ccms_server.legacy.ledger import Ledger
from ccms_server.store.store import Store


class LegacyFiles:
    """The predecessor's files in the directory of a store, which is locked.

    Attributes:
        write_interval: Seconds between two calls of `write`; 0: only the last one is wanted; None: not even that.
    """

    def __init__(
        self,
        config: Config,
        checkpoints: CheckpointsConfig,
        store: Store,
        keeper: DiskKeeper,
        clock: Callable[[], float],
    ) -> None:
        """Reads the ledger.

        Args:
            config: The configuration.
            checkpoints: Its section that names the directory.
            store: The store.
            keeper: Keeps its samples.
            clock: Seconds since the epoch.

        Raises:
            NewerFormatError: A later release wrote the ledger.
            OSError: It cannot be read.
        """
        directory = Path(checkpoints.directory).absolute()
        ledger = Ledger(StoreDirectory(directory).path)
        self._clock = clock
        self._import = LegacyImport(
            store,
            keeper,
            directory,
            ledger,
            clock=clock,
            retention_seconds=config.retention_seconds,
            future_seconds=config.limits.future_seconds,
        )
        self._checkpoints: JsonCheckpoints | None = None
        self.write_interval: int | None = None
        if checkpoints.file_format is CheckpointFormat.JSON:
            self.write_interval = checkpoints.interval
            self._checkpoints = JsonCheckpoints(
                store,
                directory,
                ledger,
                interval_seconds=checkpoints.interval,
                kept_seconds=_kept_seconds(config, checkpoints),
            )

    def import_all(self) -> Iterator[None]:
        """Imports what is new; yields after every piece of some milliseconds. On the writer's thread, once."""
        return self._import.run()

    def write(self) -> None:
        """Writes checkpoints, if they are wanted: now and then, and when the last sample is written. On any thread."""
        if self._checkpoints is not None:
            self._checkpoints.write(int(self._clock()))


def _kept_seconds(config: Config, checkpoints: CheckpointsConfig) -> int:
    """How far back the predecessor reads at start; 0: everything."""
    if not config.retention_in_memory:
        return 0
    return max(config.retention_in_memory, checkpoints.restore)
