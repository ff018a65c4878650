"""The keeper that makes samples durable, before anybody can see them.

    placed -> WAL record, synced -> put into open tiles -> sealed -> block file -> WAL cut -> ... -> archive or deletion

Blocks, the state and archives are written by a thread of their own, one piece of work at a time, so that samples never
wait for them. Three bounds keep the WAL from growing: beyond a size, and after a time, windows that hold it back are
sealed early; beyond twice the size, because blocks cannot be written, further samples are refused.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from time import monotonic
from typing import Final

from ccms_server.durability.archiving import Archive
from ccms_server.durability.block import Block, block_path
from ccms_server.durability.block_job import BlockJob
from ccms_server.durability.catalogue import Catalogue, StoredMetric
from ccms_server.durability.damage import DamageLog
from ccms_server.durability.directory import StoreDirectory, fsync_directory
from ccms_server.durability.keeper import DiskStatus
from ccms_server.durability.known_writes import KnownWrite, KnownWrites, encode_identified
from ccms_server.durability.sample_codec import (
    DROPPED,
    FLOORS,
    IDENTIFIED_SAMPLES,
    SAMPLES,
    encode,
    encode_dropped,
    encode_floors,
)
from ccms_server.durability.state import COLUMNS, SeriesState, save_state
from ccms_server.durability.wal import Wal
from ccms_server.durability.wal_bounds import WalBounds
from ccms_server.errors import DiskUnavailableError, reason_of
from ccms_server.store.append import Placement
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.store.table import MetricTable

logger = logging.getLogger(__name__)

DISK_RETRY_SECONDS: Final = 5.0
"""Pause after the disk refused something."""
RELEASE_INTERVAL_SECONDS: Final = 600.0
"""What was read of blocks is given back this often; what is still asked for is mapped again in a moment."""
CAP_INTERVAL_SECONDS: Final = 60.0
"""Open windows are sealed for lack of memory at most this often: they open again with the next sample."""
WINDOWS_AT_ONCE_MAX: Final = 64
TILES_AT_ONCE_MAX: Final = 4096
"""New tiles in blocks that are written in one piece of work, but for the last one: adopting them holds up samples."""

BLOCKS_TROUBLE: Final = "blocks cannot be written"
CUT_TROUBLE: Final = "the WAL cannot be cut"
ARCHIVE_TROUBLE: Final = "windows cannot be archived"


class DiskKeeper:
    """Keeps samples on disk.

    Attributes:
        blocks: The block of each window that has one, by interval in seconds and number of the window.
        damage: Damage found so far.
        tick: See `Keeper`.
        known_writes: See `Keeper`.
    """

    def __init__(
        self,
        store: Store,
        directory: StoreDirectory,
        catalogue: Catalogue,
        wal: Wal,
        damage: DamageLog,
        blocks: dict[tuple[int, int], Block],
        outdated: list[Path],
        known_writes: KnownWrites,
        *,
        bounds: WalBounds,
        memory_cap_bytes: int,
        archive: Archive | None,
    ) -> None:
        """Makes a keeper of a store that was recovered from the same directory.

        Args:
            store: The store; nobody else may write to it.
            directory: Where everything lies; locked for this process.
            catalogue: The numbers of all series.
            wal: The log, open.
            damage: Is told of damage that is found.
            blocks: Those that are found by the recovery.
            outdated: Files of blocks to delete, found by the recovery.
            known_writes: Writes that are stored, as far as the recovery has found out.
            bounds: How far the WAL may grow.
            memory_cap_bytes: Resident memory beyond which windows are sealed early and maps given back; 0: no such cap.
            archive: Takes windows before they are dropped; None: they are just dropped.
        """
        self.blocks = blocks
        self.damage = damage
        self.known_writes = known_writes
        self.tick = wal.sync_seconds or float("inf")
        self._store = store
        self._directory = directory
        self._catalogue = catalogue
        self._wal = wal
        self._bounds = bounds
        self._memory_cap_bytes = memory_cap_bytes
        self._archive = archive
        self._tables: dict[int, list[MetricTable]] = {}
        for table in store.tables:
            self._take_table(table)
        self._early: set[tuple[int, int]] = set()  # windows to be written though they are not quiet
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._running: tuple[Future[None], Callable[[], None], str] | None = None
        self._trouble: dict[str, str] = {}  # what the disk refuses, and why
        self._has_logged = False
        self._outdated = outdated  # files to delete
        self._checkpoint = 0  # all before this record is to be stored as soon as possible
        self._refused: str | None = None  # by the disk, since a checkpoint was asked for
        self._retry_at: dict[str, float] = {}  # by trouble: when what the disk refused is tried again
        self._to_archive: tuple[int, int] | None = None  # interval and number of the window to be archived next
        self._next_release = monotonic() + RELEASE_INTERVAL_SECONDS
        self._next_cap = 0.0

    # --- writing

    def put(self, placements: Sequence[Placement], writes: Sequence[KnownWrite] = ()) -> None:
        """See `Keeper`."""
        placements = [placed for placed in placements if len(placed.series)]
        if not placements and not writes:
            return
        placed = placements[0] if len(placements) == 1 else Placement.joined(placements)
        samples = encode(*placed)
        if writes:
            number = self._log(IDENTIFIED_SAMPLES, [*encode_identified(writes), samples])
        else:
            number = self._log(SAMPLES, [samples])
        self._store.put(placed)
        self._store.log_number = number
        self.known_writes.note(writes)

    def free(self, path: Sequence[str], before: int) -> int:
        """See `Keeper`."""
        series, slots = self._store.floors(path, before)
        if len(series):
            number = self._log(FLOORS, [encode_floors(series, slots)])
            self._store.set_floors(series, slots)
            self._store.log_number = number
        return len(series)

    def configure(self, metrics: Iterable[Metric]) -> None:
        """See `Keeper`."""
        for metric in metrics:
            number = self._catalogue.number_of(StoredMetric(metric.name, metric.interval))
            is_new = number == len(self._store.tables)
            self._store.configure(number, metric)
            if is_new:
                self._take_table(self._store.tables[number])

    def _take_table(self, table: MetricTable) -> None:
        self._tables.setdefault(table.metric.interval, []).append(table)

    @property
    def is_sync_due(self) -> bool:
        """See `Keeper`."""
        return self._wal.is_sync_due(monotonic())

    def sync_if_due(self) -> None:
        """See `Keeper`."""
        try:
            self._wal.sync_if_due(monotonic())
        except OSError as error:
            self._note_trouble("the WAL cannot be synced", error)
        else:
            self._forget_trouble("the WAL cannot be synced")

    def sync(self) -> None:
        """Forces all that was put to disk, whatever `checkpoints.sync` says.

        Raises:
            OSError: The disk refuses; a power failure may cost what was put since the last sync.
        """
        self._wal.sync()

    def close(self) -> None:
        """See `Keeper`."""
        self._thread.shutdown(wait=True)
        try:
            self._wal.close()
        except OSError as error:
            logger.error(
                "the WAL cannot be synced: %s; a power failure may cost what was written last", reason_of(error)
            )
        if self._has_logged:  # so that the next start knows more than the log tells
            try:
                save_state(self._directory.state, self._series_state())
            except OSError as error:
                logger.warning("the state cannot be written: %s; nothing is lost by that", reason_of(error))

    def _log(self, kind: int, payload: Sequence[bytes]) -> int:
        """Appends to the WAL; returns the number of the record."""
        if self._bounds.is_exceeded:
            reasons = [f"{what} ({why})" for what, why in self._trouble.items()] or ["blocks are written too slowly"]
            raise DiskUnavailableError(f"the WAL has grown to {self._wal.bytes:,} bytes: {'; '.join(reasons)}")
        try:
            self._catalogue.save()  # first: no record may name a series that nobody knows
            number = self._wal.commit(kind, payload)
        except OSError as error:
            self._note_trouble("samples cannot be logged", error)
            raise DiskUnavailableError(reason_of(error)) from error
        self._forget_trouble("samples cannot be logged")
        self._has_logged = True
        return number

    def _note_trouble(self, what: str, error: BaseException) -> None:
        reason = reason_of(error)
        if what != ARCHIVE_TROUBLE:  # archives have nothing to do with what is stored
            self._refused = f"{what}: {reason}"
        if self._trouble.get(what) != reason:
            logger.error("%s: %s; trying again until it works", what, reason)
        self._trouble[what] = reason

    def _forget_trouble(self, what: str) -> None:
        if self._trouble.pop(what, None) is not None:
            logger.info("no longer: %s", what)

    # --- what is asked for now and then

    def begin_checkpoint(self) -> int:
        """See `Keeper`."""
        assert self._store.log_number is not None, "the store is logged"
        try:
            self._wal.end_segment()
        except OSError as error:
            raise DiskUnavailableError(reason_of(error)) from error
        self._checkpoint = self._store.log_number + 1
        self._retry_at.clear()  # the disk is asked now, whatever it said before
        self._refused = None
        return self._checkpoint

    def is_checkpointed(self, checkpoint: int) -> bool:
        """See `Keeper`."""
        if self._first_needed() >= checkpoint and not self._wal.can_delete_before(checkpoint):
            return True
        if self._refused is not None:
            raise DiskUnavailableError(self._refused)
        return False

    def disk_status(self) -> DiskStatus:
        """See `Keeper`."""
        return DiskStatus(
            directory=self._directory.path,
            wal_bytes=self._wal.bytes,
            wal_segments=self._wal.segments,
            blocks=len(self.blocks),
            damage=self.damage.count,
            troubles=[f"{what}: {reason}" for what, reason in list(self._trouble.items())],
        )

    # --- maintenance

    def maintain(self, oldest: int) -> Iterator[None]:
        """See `Keeper`."""
        self._finish()
        self._delete_outdated()
        yield from self._expire(oldest)
        yield from self._store.seal_quiet()
        yield from self._shorten_wal()
        yield from self._hold_memory_cap()
        if monotonic() >= self._next_release:
            self._release_blocks()
            yield
        self._start_next()

    def _expire(self, oldest: int) -> Iterator[None]:
        """Drops windows past the retention with their files; those that are to be archived wait for it."""
        self._to_archive = None
        for interval, tables in list(self._tables.items()):  # metrics may be added in a pause
            expired = {number for table in tables for number in self._store.expired(table, oldest)}
            if not expired:
                continue
            if self._archive is not None:
                oldest_first = [(interval, min(expired)), *([self._to_archive] if self._to_archive else [])]
                self._to_archive = min(oldest_first, key=lambda window: window[0] * window[1])
                continue
            try:
                self._log_dropped(interval, expired)
            except OSError as error:  # they come back at the next start, to be dropped again
                self._note_trouble("what is past the retention cannot be logged", error)
            else:
                self._forget_trouble("what is past the retention cannot be logged")
            self._drop(interval, expired)
            yield

    def _log_dropped(self, interval: int, expired: set[int]) -> None:
        """Lets the log know that windows are dropped: it may still have some of their samples.

        Without it, a start would find these, and make an archive of them in place of the whole one.
        """
        self._store.log_number = self._wal.commit(DROPPED, [encode_dropped(interval, max(expired) + 1)])
        self._has_logged = True
        self._wal.sync()  # whatever `sync` says: their blocks are deleted next, durably

    def _drop(self, interval: int, expired: set[int]) -> None:
        for table in self._tables[interval]:
            ours = expired & table.windows.keys()
            if ours:
                self._store.drop(table, ours)
        for number in expired:
            self._early.discard((interval, number))
            self.blocks.pop((interval, number), None)
            self._outdated.append(block_path(self._directory.blocks, interval, number))
        self._delete_outdated()

    def _delete_outdated(self) -> None:
        """Deletes the files of windows that were dropped."""
        try:
            for path in self._outdated:
                path.unlink(missing_ok=True)
            for directory in {path.parent for path in self._outdated if path.parent.exists()}:
                fsync_directory(directory)  # once for all: each takes as long as a disk needs
            self._outdated.clear()
        except OSError as error:
            self._note_trouble("blocks past the retention cannot be deleted", error)
        else:
            self._forget_trouble("blocks past the retention cannot be deleted")

    def _shorten_wal(self) -> Iterator[None]:
        """Lets the older part of a WAL that has grown too large, or old, become unnecessary."""
        for cut in self._bounds.cuts():
            yield from self.write_early(cut)
        if self._checkpoint and self._first_needed() < self._checkpoint:
            yield from self.write_early(self._checkpoint)

    def write_early(self, cut: int) -> Iterator[None]:
        """Seals the windows with samples that are only in WAL records before a number, to be written next."""
        waiting = set(self._early)
        for interval, tables in list(self._tables.items()):  # metrics may be added in a pause
            for table in tables:
                for number in sorted(table.unstored):
                    is_held_back = min(table.windows[number].unstored.values(), default=cut) < cut
                    if is_held_back and (interval, number) not in waiting:
                        yield from self._seal_early(table, number)

    def _seal_early(self, table: MetricTable, number: int) -> Iterator[None]:
        """Seals a window that is still being written, to be stored next."""
        self._early.add((table.metric.interval, number))
        yield from self._store.seal_window(table, number)

    def _release_blocks(self) -> None:
        self._next_release = monotonic() + RELEASE_INTERVAL_SECONDS
        for block in self.blocks.values():
            block.release()

    def _hold_memory_cap(self) -> Iterator[None]:
        if not self._memory_cap_bytes or resident_bytes() <= self._memory_cap_bytes or monotonic() < self._next_cap:
            return
        self._next_cap = monotonic() + CAP_INTERVAL_SECONDS
        self._release_blocks()
        yield
        if resident_bytes() <= self._memory_cap_bytes:
            return
        for table in self._store.tables:
            for number in sorted(table.unsealed):
                yield from self._seal_early(table, number)
        logger.warning(
            "%s bytes are in use, which is beyond `memory-cap`: all windows were sealed early",
            f"{resident_bytes():,}",
        )

    # --- work of the other thread

    def _finish(self) -> None:
        """Takes over what the other thread has done, if it has."""
        if self._running is None or not self._running[0].done():
            return
        future, finish, trouble = self._running
        self._running = None
        error = future.exception()
        if error is None:
            try:
                finish()
            except OSError as refused:
                error = refused
        if error is None:
            self._forget_trouble(trouble)
            return
        if not isinstance(error, OSError):
            logger.error("%s", trouble, exc_info=error)
        self._note_trouble(trouble, error)
        self._retry_at[trouble] = monotonic() + DISK_RETRY_SECONDS

    @property
    def is_idle(self) -> bool:
        """Whether the other thread has nothing to do, and nothing it has done is to be taken over."""
        return self._running is None

    def wait(self) -> None:
        """Waits for the other thread."""
        if self._running is not None:
            wait([self._running[0]])

    def _start(self, work: Callable[[], None], finish: Callable[[], None], trouble: str) -> None:
        self._running = self._thread.submit(work), finish, trouble

    def _start_next(self) -> None:
        """Starts the next piece of work, if there is any."""
        if self._running is not None:
            return
        ready = self._ready() if self._is_due(BLOCKS_TROUBLE) else []
        if (self._bounds.is_cut_urgent or not ready) and self._is_due(CUT_TROUBLE) and self._can_cut_wal():
            self._cut_wal()
        elif ready:
            jobs: list[BlockJob] = []
            for interval, number in ready:
                jobs.append(BlockJob.gather(self._tables[interval], number))
                if sum(job.n_tiles for job in jobs) > TILES_AT_ONCE_MAX or len(jobs) == WINDOWS_AT_ONCE_MAX:
                    break
            self._write_blocks(jobs)
        elif self._archive is not None and self._to_archive is not None and self._is_due(ARCHIVE_TROUBLE):
            self._archive_window(self._archive, *self._to_archive)

    def _is_due(self, trouble: str) -> bool:
        """Whether work that may have failed is to be done (again)."""
        return monotonic() >= self._retry_at.get(trouble, 0.0)

    def _can_cut_wal(self) -> bool:
        # Blocks of dropped windows go first: the log tells that they must not come back.
        return not self._outdated and self._wal.can_delete_before(self._first_needed())

    def _ready(self) -> list[tuple[int, int]]:
        """Windows that can be written: sealed in all tables, or to be written early."""
        ready: list[tuple[int, int]] = []
        for interval, tables in self._tables.items():
            unsealed = set().union(*(table.unsealed for table in tables))
            unstored = set().union(*(table.unstored for table in tables))
            ready += [
                (interval, number)
                for number in sorted(unstored)
                if number not in unsealed or (interval, number) in self._early
            ]
        if self._outdated:  # the file of a window that came back must not be deleted with its predecessor
            ready = [key for key in ready if block_path(self._directory.blocks, *key) not in self._outdated]
        return ready

    def _write_blocks(self, jobs: Sequence[BlockJob]) -> None:
        written: dict[BlockJob, Block] = {}

        def work() -> None:
            self._wal.sync()  # a block must not know more than the log that it will be recovered with
            for job in jobs:
                path = block_path(self._directory.blocks, job.interval, job.number)
                written[job] = job.write(path, self.damage)

        def finish() -> None:
            for job, block in written.items():
                job.adopt(block)
                self._early.discard((job.interval, job.number))
                if any(job.number in table.windows for table in self._tables[job.interval]):
                    self.blocks[job.interval, job.number] = block
                else:  # dropped meanwhile
                    self._outdated.append(block.path)

        self._start(work, finish, BLOCKS_TROUBLE)

    def _cut_wal(self) -> None:
        state, needed = self._series_state(), self._first_needed()

        def work() -> None:
            self._wal.sync()
            save_state(self._directory.state, state)

        def finish() -> None:
            self._wal.delete_before(needed)

        self._start(work, finish, CUT_TROUBLE)

    def _archive_window(self, archive: Archive, interval: int, number: int) -> None:
        tables, reader = self._tables[interval], self._store.reader()

        def work() -> None:
            archive.write(self._store.tree, reader, tables, number)

        def finish() -> None:
            self._log_dropped(interval, {number})
            self._drop(interval, {number})

        self._start(work, finish, ARCHIVE_TROUBLE)

    def _first_needed(self) -> int:
        """The first WAL record that may hold a sample which is in no block."""
        assert self._store.log_number is not None, "the store is logged"
        needed = self._store.log_number + 1
        for table in self._store.tables:
            for number in table.unstored:
                needed = min(needed, min(table.windows[number].unstored.values(), default=needed))
        return needed

    def _series_state(self) -> SeriesState:
        assert self._store.log_number is not None, "the store is logged"
        return SeriesState(self._store.log_number, *self._store.series_columns(COLUMNS), writes=self.known_writes.all())


def resident_bytes() -> int:
    """Memory this process has in use; 0 when the system does not tell, for want of descriptors."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
