"""The chore `-cleanup-checkpoints`: makes room where the predecessor's files are no longer needed."""

import logging
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ccms_server.config import ArchiveConfig, CheckpointFormat, CheckpointsConfig, Config
from ccms_server.durability.directory import StoreDirectory, fsync_directory, make_directories, replacing
from ccms_server.legacy.files import LegacyFile, find_files
from ccms_server.legacy.ledger import Ledger, State
from ccms_server.opening import open_disk

logger = logging.getLogger(__name__)

NAMED_MAX: Final = 20
"""Files that are kept, and named one by one."""
OPEN_WINDOW_BYTES: Final = 256 << 20


def clean_up_checkpoints(config: Config, clock: Callable[[], float]) -> None:
    """Removes what the server has imported, and what is past the retention; says what was done in the log.

    With an archive, files of the predecessor are moved there instead of deleted, those of a host into
    `<archive.directory>/<cluster>/<host>/<now>.zip`. Files that were not imported, are damaged, or have changed since
    are kept.

    Args:
        config: The configuration.
        clock: Seconds since the epoch.

    Raises:
        DirectoryInUseError: A server works in the directory.
        DirectoryError: It cannot be used otherwise; nothing was changed.
        OSError: The disk refuses; what was removed until then is in the archive, or was to be deleted.
    """
    checkpoints = config.checkpoints
    if checkpoints is None or not checkpoints.directory:
        logger.warning("there is nothing to clean up: `checkpoints.directory` is not set")
        return
    directory = Path(checkpoints.directory).absolute()
    now = int(clock())
    with StoreDirectory(directory) as own:
        _clean_up(directory, Ledger(own.path), checkpoints, _archive_of(config.archive), now)
    _expire(config, checkpoints, now)


def _archive_of(config: ArchiveConfig | None) -> Path | None:
    """Where files are moved to; None: they are deleted."""
    if config is None or not config.interval or config.delete_instead:
        return None
    return Path(config.directory).absolute()


def _clean_up(directory: Path, ledger: Ledger, checkpoints: CheckpointsConfig, archive: Path | None, now: int) -> None:
    """Removes files that are done with."""
    found = find_files(directory)
    done: defaultdict[tuple[str, str], list[LegacyFile]] = defaultdict(list)
    kept: list[str] = []
    for file in found.files:
        why = _reason_to_keep(file, ledger, checkpoints)
        if why is None:
            done[file.cluster, file.host].append(file)
        elif why:
            kept.append(f"{file.key} ({why})")
    n_files = n_bytes = 0
    for host, files in done.items():
        folder = directory.joinpath(*host)
        if archive is not None:
            _zip(folder, files, archive.joinpath(*host), now)
        for file in files:
            (folder / file.name).unlink()
            ledger.forget(file.key)
            n_files += 1
            n_bytes += file.size
        _remove_empty(folder, directory)
    ledger.prune({file.key for file in found.files}, found.unreadable)
    ledger.save()
    for line in kept[:NAMED_MAX]:
        logger.info("kept: %s", line)
    if len(kept) > NAMED_MAX:
        logger.info("kept: %s files more", f"{len(kept) - NAMED_MAX:,}")
    where = "deleted" if archive is None else f"moved to {archive}"
    logger.info("%s files of %s hosts, %s bytes, %s", f"{n_files:,}", f"{len(done):,}", f"{n_bytes:,}", where)


def _reason_to_keep(file: LegacyFile, ledger: Ledger, checkpoints: CheckpointsConfig) -> str | None:
    """Why a file is kept; empty: because it is in use, None: it is not."""
    if not ledger.has(file):
        return "it was not imported yet"
    match ledger.entries[file.key].state:
        case State.DAMAGED:
            return "it is damaged, and not all of it was imported"
        case State.WRITTEN if checkpoints.file_format is CheckpointFormat.JSON:
            return ""
        case _:
            return None


def _zip(folder: Path, files: Sequence[LegacyFile], archive: Path, now: int) -> None:
    """Copies files of a host into a new archive of theirs."""
    make_directories(archive)
    name = now
    while (path := archive / f"{name}.zip").exists():  # files are only removed once they are in one
        name += 1
    with replacing(path) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as into:
        for file in files:
            into.write(folder / file.name, file.name)


def _remove_empty(folder: Path, directory: Path) -> None:
    """Removes the folders of a host and its cluster once nothing is left in them."""
    fsync_directory(folder)
    while folder != directory:
        try:
            folder.rmdir()
        except OSError:  # there is something in it
            return
        folder = folder.parent


def _expire(config: Config, checkpoints: CheckpointsConfig, now: int) -> None:
    """Drops windows of the store that are past the retention, as the server does it while it runs."""
    if not config.retention_seconds:
        return
    if config.backend_url:
        logger.info("samples past the retention are left to the server, which knows the nodes in use")
        return
    with ExitStack() as stack:
        _, keeper, recovery = open_disk(config, checkpoints, OPEN_WINDOW_BYTES, stack)
        stack.callback(keeper.close)
        for _ in recovery.run():
            pass
        n_blocks = len(keeper.blocks)
        while True:
            for _ in keeper.maintain(now - config.retention_seconds):
                pass
            if keeper.is_idle:
                break
            keeper.wait()
        logger.info("%s windows past the retention were dropped", f"{n_blocks - len(keeper.blocks):,}")
