"""Recovery: a store as it was when the last process that kept it ended, however that was.

    catalogue -> series    state -> their columns    blocks -> windows, not read yet    WAL -> open tiles

A WAL record is put again only where no block has it already: every stored tile knows the last record that is in it.
So records can be repeated without harm, and a value that was written over long ago cannot come back.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.durability.block import Block, DamagedFileError
from ccms_server.durability.catalogue import Catalogue
from ccms_server.durability.damage import Damage, DamageLog
from ccms_server.durability.directory import StoreDirectory
from ccms_server.durability.known_writes import KnownWrite, KnownWrites, decode_identified
from ccms_server.durability.records import Record
from ccms_server.durability.sample_codec import (
    DROPPED,
    FLOORS,
    IDENTIFIED_SAMPLES,
    SAMPLES,
    decode,
    decode_dropped,
    decode_floors,
)
from ccms_server.durability.state import SeriesState, load_state
from ccms_server.durability.wal import Wal
from ccms_server.errors import DirectoryError
from ccms_server.notify import notify
from ccms_server.store.append import Placement
from ccms_server.store.layout import WINDOW_BITS
from ccms_server.store.registry import Reserved
from ccms_server.store.store import Store

logger = logging.getLogger(__name__)

PROGRESS_SECONDS: Final = 2.0
"""Long replays say how far they are, this often."""
EXTENDED_MICROSECONDS: Final = 60_000_000
"""Time that systemd is asked for, each time."""
BLOCK_SUFFIX: Final = ".block"
DAMAGED_SUFFIX: Final = ".damaged"


class Recovery:
    """Reads everything there is into an empty store.

    Attributes:
        blocks: The block of each window that has one, by interval in seconds and number of the window.
        outdated: Files of blocks whose windows were dropped; they are to be deleted.
        known_writes: Writes that are stored.
        samples: Samples replayed so far.
    """

    def __init__(
        self, store: Store, directory: StoreDirectory, catalogue: Catalogue, wal: Wal, damage: DamageLog
    ) -> None:
        """Checks that this release knows all files, and touches none of them.

        Args:
            store: Empty, with the metrics of the catalogue.
            directory: Where everything lies; locked for this process.
            catalogue: The numbers of metrics and series.
            wal: The log, not open yet.
            damage: Is told of damage that is found.

        Raises:
            NewerFormatError: A later release wrote one of the files.
            OSError: One of them cannot be read.
        """
        self.blocks: dict[tuple[int, int], Block] = {}
        self.outdated: list[Path] = []
        self.known_writes = KnownWrites()
        self.samples = 0
        self._n_series = 0  # ids that were given away, as far as is known
        self._store = store
        self._catalogue = catalogue
        self._wal = wal
        self._damage = damage
        wal.check_versions()
        self._state = load_state(directory.state, damage)
        self._unreadable: list[Path] = []
        self._unknown_samples = 0
        self._directory = directory
        self._stored: dict[tuple[int, int], int] = {}  # by band and window: the last record in its stored tile
        for path in _block_files(directory.blocks):
            try:
                block = Block.open(path, damage)
            except DamagedFileError:
                self._unreadable.append(path)
                continue
            self.blocks[block.interval, block.window] = block
        self._phases_known = 0  # the last record whose phases the state has
        self._newest_stored = max((block.number for block in self.blocks.values()), default=0)
        if not catalogue.exists and (self.blocks or wal.segments):
            raise DirectoryError(
                f"{' and '.join(map(str, directory.catalogue))} are missing, but there are {len(self.blocks):,} blocks "
                f"and {wal.segments:,} segments of the WAL, whose series only they name; nothing was changed: restore "
                "one of them, or set another `checkpoints.directory`"
            )

    def run(self) -> Iterator[None]:
        """Does the work; yields after every piece of some milliseconds.

        Raises:
            OSError: The disk refuses.
        """
        begin = monotonic()
        for path in self._unreadable:  # out of the way of the next block of the same window
            path.rename(path.with_name(path.name + DAMAGED_SUFFIX))
        self._catalogue.mend()
        state = self._state or SeriesState(0, 0, {})
        self._store.restore_series(self._catalogue.restore())
        self._n_series = max(state.n_series, self._store.n_series)
        is_whole = self._catalogue.is_whole and self._n_series == self._store.n_series
        if not is_whole:
            self._store.reserve(Reserved(self._n_series, 0))
        self._store.on_registered.insert(0, self._catalogue.add)  # first: what it does not know is lost at a restart
        self._store.set_series_columns(state.columns)
        self.known_writes.note(state.writes)
        self._phases_known = state.number if "phase" in state.columns else 0
        yield
        for (interval, number), block in self.blocks.items():
            self._store.attach(interval, number, block)
        damaged_before = self._damage.count
        # A state is written before the WAL is cut for the first time; a WAL from the beginning tells everything itself.
        is_known = self._wal.first_number == 1 if self._state is None else self._state.is_whole
        if self.blocks and not is_known:
            yield from self._find_out()
        last = max(state.number, self._newest_stored)
        self._store.log_number = 0
        yield from self._replay(begin)
        if last > self._wal.last_number and (self._wal.first_number is not None or self._newest_stored > state.number):
            what = f"the log ends at record {self._wal.last_number}, but {last} were written"
            self._damage.add(Damage(self._directory.wal, 0, 0, what))
        if self._unknown_samples:
            what = f"{self._unknown_samples:,} samples of series that the catalogue has lost"
            self._damage.add(Damage(self._directory.wal, 0, 0, what))
        if self._damage.count > damaged_before:
            yield from self._find_out()  # what the lost records told of the series
        if not is_whole or self._n_series > self._store.n_series:
            self._reserve()
            logger.error(
                "names of series are lost: their samples stay on disk, but cannot be queried; restore %s from a backup",
                self._directory.path,
            )
        self._store.trim()
        self._store.log_number = max(last, self._wal.last_number)
        self._wal.open(self._store.log_number + 1)
        logger.info(
            "recovered in %.1f s: %s series, %s blocks, %s samples from the WAL%s",
            monotonic() - begin,
            f"{self._store.n_series:,}",
            f"{len(self.blocks):,}",
            f"{self.samples:,}",
            f"; {self._damage.count:,} damaged places" if self._damage.count else "",
        )

    def _reserve(self) -> None:
        """Sees to it that new series get nothing that lost ones had: neither ids nor rows."""
        bands = [block.bands() for block in self.blocks.values()]
        n_bands = max((int(tiles[-1]) + 1 for tiles in bands if len(tiles)), default=0)
        self._catalogue.reserve(self._store.reserve(Reserved(self._n_series, n_bands)))
        try:
            self._catalogue.save()
        except OSError as error:
            logger.error("what series have lost cannot be noted: %s; it is tried again with the next series", error)

    def _find_out(self) -> Iterator[None]:
        """Reads all blocks, because what is known of the series was lost."""
        if not self.blocks:
            return
        logger.warning("reading all %s blocks to find out what is known of the series", f"{len(self.blocks):,}")
        for (interval, number), block in sorted(self.blocks.items(), reverse=True):  # the latest phase is that of now
            for table in self._store.tables:
                if table.metric.interval != interval:
                    continue
                for band in table.bands:
                    tile = block.tile(band)
                    if tile is not None:
                        self._store.note_tile(table, number, band, tile)
                    yield

    # --- the WAL

    def _replay(self, begin: float) -> Iterator[None]:
        next_progress = begin + PROGRESS_SECONDS
        for record in self._wal.replay():
            try:
                self._replay_record(record)
            except ValueError as error:  # its checksum holds: a defect of the release that wrote it
                self._damage.add(Damage(record.path, record.offset, len(record.payload), str(error)))
            if monotonic() >= next_progress:
                next_progress = monotonic() + PROGRESS_SECONDS
                rate = self.samples / (monotonic() - begin)
                notify(f"EXTEND_TIMEOUT_USEC={EXTENDED_MICROSECONDS}")
                logger.info("replaying the WAL: %s samples so far, %s a second", f"{self.samples:,}", f"{rate:,.0f}")
            yield

    def _replay_record(self, record: Record) -> None:
        self._store.log_number = record.number - 1
        if record.kind in (SAMPLES, IDENTIFIED_SAMPLES):
            samples = record.payload
            writes: list[KnownWrite] = []
            if record.kind == IDENTIFIED_SAMPLES:
                writes, samples = decode_identified(samples)
            placed = Placement(*decode(samples))
            known = self._store.is_known(placed.series)
            if not known.all():
                self._unknown_samples += int((~known).sum())
                self._n_series = max(self._n_series, int(placed.series.max()) + 1)
                placed = placed.some(known)
            self.samples += len(placed.series)
            covered = self._covered(placed, record.number)
            if covered.any():
                self._store.note(placed.some(covered))
                placed = placed.some(~covered)
            # What the state knows already would set phases back to those of long ago.
            self._store.put(placed, takes_phases=record.number > self._phases_known)
            self.known_writes.note(writes)
        elif record.kind == FLOORS:
            series, slots = decode_floors(record.payload)
            known = self._store.is_known(series)
            self._store.set_floors(series[known], slots[known])
        elif record.kind == DROPPED:
            self._drop(*decode_dropped(record.payload), record.number)
        else:
            raise ValueError(f"record of unknown kind {record.kind}")

    def _drop(self, interval: int, first_kept: int, record: int) -> None:
        """Drops windows again, that have come back with their block, or with records before the one that drops them."""
        newer = {
            number for (_, number), block in self.blocks.items() if block.interval == interval and block.number > record
        }
        for table in self._store.tables:
            if table.metric.interval == interval:
                gone = [number for number in table.windows if number < first_kept and number not in newer]
                if gone:
                    self._store.drop(table, gone)
        for key, block in list(self.blocks.items()):
            if block.interval == interval and block.window < first_kept and block.window not in newer:
                self.outdated.append(block.path)
                del self.blocks[key]

    def _covered(self, placed: Placement, record: int) -> NDArray[np.bool_]:
        """Which samples are in a stored tile already: bool array of shape (n_samples,)."""
        covered = np.zeros(len(placed.series), np.bool_)
        if record > self._newest_stored or not len(covered):
            return covered
        bands = self._store.bands_of(placed.series)
        windows = placed.slots >> WINDOW_BITS
        edges = np.flatnonzero((bands[1:] != bands[:-1]) | (windows[1:] != windows[:-1])) + 1
        for first, last in zip([0, *edges.tolist()], [*edges.tolist(), len(bands)], strict=True):
            covered[first:last] = self._is_stored(int(bands[first]), int(windows[first]), record)
        return covered

    def _is_stored(self, band: int, window: int, record: int) -> bool:
        """Whether the stored tile of a band in a window has the samples of a record."""
        last = self._stored.get((band, window))
        if last is None:
            block = self.blocks.get((self._store.interval_of(band), window))
            entry = None if block is None else block.entry(band)
            # A tile that turns out to be damaged is made again, as far as the WAL reaches back.
            is_whole = block is not None and entry is not None and block.tile(band) is not None
            last = self._stored[band, window] = entry[0] if entry is not None and is_whole else 0
        return record <= last


def _block_files(directory: Path) -> list[Path]:
    """The files of all blocks. `Path.glob` would take a directory that cannot be read for an empty one."""
    folders = [folder for folder in sorted(directory.iterdir()) if folder.is_dir()]
    return [path for folder in folders for path in sorted(folder.iterdir()) if path.name.endswith(BLOCK_SUFFIX)]
