"""From the configuration to a store that is kept on disk."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ccms_server.config import ArchiveConfig, ArchiveFormat, CheckpointsConfig, Config
from ccms_server.durability.archiving import Archive, ParquetArchive
from ccms_server.durability.catalogue import Catalogue, StoredMetric
from ccms_server.durability.damage import DamageLog
from ccms_server.durability.directory import StoreDirectory, make_directories
from ccms_server.durability.disk_keeper import DiskKeeper
from ccms_server.durability.recovery import Recovery
from ccms_server.durability.wal import Wal
from ccms_server.durability.wal_bounds import WalBounds
from ccms_server.errors import reason_of
from ccms_server.legacy.zip_archive import ZipArchive
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store

logger = logging.getLogger(__name__)

SEGMENTS: Final = 64
"""Segments that a WAL of its full size has: a start replays one or two that are no longer needed."""


def open_disk(
    config: Config, checkpoints: CheckpointsConfig, open_window_bytes: int, stack: ExitStack
) -> tuple[Store, DiskKeeper, Recovery]:
    """Locks the directory, and checks that this release knows all that is in it.

    Args:
        config: The configuration.
        checkpoints: Its section that names the directory.
        open_window_bytes: Memory for samples that are not compressed yet.
        stack: The directory is let go of when it ends.

    Returns:
        An empty store, what keeps its samples, and what fills it with those of the last time.

    Raises:
        DirectoryError: The directory cannot be used; nothing in it was changed.
        OSError: The same, as the operating system puts it.
    """
    directory = stack.enter_context(StoreDirectory(Path(checkpoints.directory).absolute()))
    damage = DamageLog()
    catalogue = Catalogue(directory.catalogue, damage)
    configured = {StoredMetric(metric.name, metric.interval): metric for metric in config.metrics}
    for stored in configured:
        catalogue.number_of(stored)
    retired = {number for number, stored in enumerate(catalogue.metrics) if stored not in configured}
    store = Store(
        [configured.get(stored) or Metric(stored.name, stored.interval) for stored in catalogue.metrics],
        series_max=config.limits.series,
        open_window_bytes=open_window_bytes,
        retired=retired,
    )
    wal = Wal(
        directory.wal,
        damage,
        segment_bytes=max(checkpoints.wal_bytes // SEGMENTS, 1),
        sync_seconds=checkpoints.sync_seconds,
    )
    recovery = Recovery(store, directory, catalogue, wal, damage)
    archive = _archive(config.archive)
    keeper = DiskKeeper(
        store,
        directory,
        catalogue,
        wal,
        damage,
        recovery.blocks,
        recovery.outdated,
        recovery.known_writes,
        bounds=WalBounds(
            store,
            wal,
            n_bytes=checkpoints.wal_bytes,
            bytes_per_host=checkpoints.wal_bytes_per_host,
            seconds=checkpoints.interval,
        ),
        memory_cap_bytes=config.memory_cap_bytes,
        archive=archive,
    )
    return store, keeper, recovery


def _archive(config: ArchiveConfig | None) -> Archive | None:
    """What takes windows before they are dropped."""
    if config is None or not config.interval or config.delete_instead:
        return None
    directory = Path(config.directory).absolute()
    try:
        make_directories(directory)
    except OSError as error:  # to be told now, not in some weeks
        logger.error("windows cannot be archived: %s; until they can, they stay on disk", reason_of(error))
    return ZipArchive(directory) if config.file_format is ArchiveFormat.ZIP else ParquetArchive(directory)
