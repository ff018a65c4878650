"""The writer's thread: takes what waits, stores it, and maintains the store in between.

    queue -> take all -> decode, place, make durable, put -> tell -> a slice of maintenance -> ...

It takes all that waits, in order, and works on it in one go, so groups grow by themselves under load; a group shares
one record of the log, and one sync. Where senders wait for answers before they send again, those of two groups would
take turns for ever: then a group is waited for a moment, until all of them can be in it.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter, sleep
from typing import Final

from ccms_server.durability.keeper import Keeper
from ccms_server.durability.known_writes import KnownWrite, NameKind, WriteId
from ccms_server.errors import DiskUnavailableError, RequestError, SequenceGapError
from ccms_server.ingest.pending import Outcome, Pending, PendingCall, PendingCheckpoint
from ccms_server.ingest.placing import Decoded, Placer
from ccms_server.ingest.unheard import UnheardRejections
from ccms_server.model import WriteReport
from ccms_server.store.append import Placement
from ccms_server.watches import Watches

logger = logging.getLogger(__name__)

BATCH_BYTES_MAX: Final = 16 << 20
"""Payload taken from the queue in one go: bounds how long a sender waits for those who came with it."""

GATHER_SECONDS: Final = 0.0001
"""How long a group is waited for when others like it have just been written."""
GATHER_WITHIN_SECONDS: Final = 0.002
"""How long ago that may be."""
GATHER_BATCHES_MIN: Final = 3
"""Batches of the last two groups from which on the next one is waited for: a single sender never is."""

MAINTENANCE_INTERVAL_SECONDS: Final = 1.0
CHECKPOINT_INTERVAL_SECONDS: Final = 0.02
"""The same while a checkpoint is waited for."""
MAINTENANCE_SLICE_SECONDS: Final = 0.01
"""Maintenance stops after so long to let waiting writes through."""

SUBSCRIPTION_RETRY_SECONDS: Final = 0.5
"""Pause before batches of subscriptions that the disk did not take are tried again."""


class WriterThread:
    """What the writer does on its own thread; everything but `close` and `give_up` belongs to that thread.

    Attributes:
        checkpoints: Those that are being waited for, and what the keeper is to be asked with.
    """

    def __init__(
        self,
        keeper: Keeper,
        watches: Watches,
        placer: Placer,
        *,
        tell: Callable[[Sequence[tuple[Pending, Outcome]]], None],
        clock: Callable[[], float],
        kept_from: Callable[[int], int],
    ) -> None:
        """Gets ready to `run`.

        Args:
            keeper: What becomes of samples.
            watches: Are told of what is stored.
            placer: Decodes batches and finds places for their samples.
            tell: Is told what became of what was in the queue.
            clock: Seconds since the epoch.
            kept_from: See `Writer`.
        """
        self.queue: SimpleQueue[Pending | None] = SimpleQueue()
        self.checkpoints: list[tuple[int, PendingCheckpoint]] = []
        self._keeper = keeper
        self._watches = watches
        self._placer = placer
        self._tell = tell
        self._clock = clock
        self._kept_from = kept_from
        self._waiting: deque[Pending] = deque()  # taken from the queue, and not being written yet
        self._closing = False  # nothing comes any more
        self._given_up = False
        self._last_groups = (0, 0)  # batches of the last one, and of the one before
        self._last_written = 0.0  # when the last one was
        self._retry_at = 0.0  # until then nothing is written, for lack of disk
        self._unheard = UnheardRejections()
        self._maintenance: Iterator[None] | None = None
        self._next_maintenance = 0.0

    def run(self) -> None:
        """Writes until it is closed and has written everything, or is given up."""
        self._next_maintenance = monotonic() + MAINTENANCE_INTERVAL_SECONDS
        while not self._given_up:
            batch = self._take()
            if batch:
                self._finish(batch, self._write(batch))
            elif self._closing and not self._waiting:
                return
            if self._keeper.is_sync_due:
                self._keeper.sync_if_due()
            if not self._closing:
                self._maintain()

    def close(self) -> None:
        """Nothing more is put into the queue; `run` ends when all of it is written."""
        self.queue.put(None)

    def give_up(self) -> None:
        """Has `run` end soon, whatever waits."""
        self._given_up = True
        self.queue.put(None)

    # --- the queue

    def _take(self) -> list[Pending]:
        """What waits, in order, up to a size; empty when there is nothing for now, or the disk is waited for."""
        self._receive(0.0 if self._waiting and not self._is_held else self._idle_seconds())
        if self._is_held:
            return []
        self._gather()
        batch: list[Pending] = []
        size = 0
        while self._waiting and size < BATCH_BYTES_MAX:
            pending = self._waiting.popleft()
            batch.append(pending)
            size += pending.size
        return batch

    @property
    def _is_held(self) -> bool:
        """Whether nothing is written for now, for lack of disk; at the end all is tried once more."""
        return monotonic() < self._retry_at and not self._closing

    def _gather(self) -> None:
        """Waits a moment for senders that are likely to come again, as they have just been answered."""
        likely = sum(self._last_groups)
        if not 0 < len(self._waiting) < likely or likely < GATHER_BATCHES_MIN or self._closing:
            return
        if monotonic() - self._last_written < GATHER_WITHIN_SECONDS:
            sleep(GATHER_SECONDS)
            self._receive(0.0)

    def _receive(self, seconds: float) -> None:
        """Takes what is in the queue; waits for so long if there is nothing."""
        try:
            pending = self.queue.get(timeout=seconds) if seconds > 0 else self.queue.get_nowait()
            while True:
                if pending is None:
                    self._closing = True
                else:
                    self._waiting.append(pending)
                pending = self.queue.get_nowait()
        except Empty:
            pass

    def _idle_seconds(self) -> float:
        """How long there is nothing to do if nothing comes."""
        if self._maintenance is not None or self._closing:
            return 0.0
        until = min(self._next_maintenance, monotonic() + self._keeper.tick)
        return (min(until, self._retry_at) if self._waiting else until) - monotonic()

    def _finish(self, batch: Sequence[Pending], outcomes: Sequence[Outcome | None]) -> None:
        """Tells what became of a batch; what the disk did not take of subscriptions is kept to be tried again."""
        told: list[tuple[Pending, Outcome]] = []
        kept: list[Pending] = []
        for pending, outcome in zip(batch, outcomes, strict=True):
            if outcome is None:  # a checkpoint has begun
                continue
            if isinstance(outcome, DiskUnavailableError) and pending.done is None and not self._closing:
                kept.append(pending)  # nobody would send it again
                continue
            if pending.done is None and isinstance(outcome, WriteReport):
                self._unheard.add(outcome)
            told.append((pending, outcome))
        if kept:
            self._waiting.extendleft(reversed(kept))
            self._retry_at = monotonic() + SUBSCRIPTION_RETRY_SECONDS  # maintenance may make room meanwhile
        if told:
            self._tell(told)
        self._last_groups = (len(batch), self._last_groups[0])
        self._last_written = monotonic()
        self._unheard.log_if_due(monotonic())

    # --- maintenance

    def _maintain(self) -> None:
        """Does a slice of maintenance, if any is due."""
        if self._maintenance is None and monotonic() >= self._next_maintenance:
            self._placer.forget_decoders()
            self._unheard.log_if_due(monotonic())
            self._maintenance = self._keeper.maintain(self._kept_from(self._placer.oldest(self._clock())))
        if self._maintenance is not None and run_slice(self._maintenance):
            self._maintenance = None
            self._finish_checkpoints()
            pause = CHECKPOINT_INTERVAL_SECONDS if self.checkpoints else MAINTENANCE_INTERVAL_SECONDS
            self._next_maintenance = monotonic() + pause

    def _begin_checkpoint(self, pending: PendingCheckpoint) -> None:
        self.checkpoints.append((self._keeper.begin_checkpoint(), pending))
        self._next_maintenance = 0.0

    def _finish_checkpoints(self) -> None:
        """Tells those who wait for checkpoints that they are done, or cannot be."""
        left: list[tuple[int, PendingCheckpoint]] = []
        for begun, pending in self.checkpoints:
            try:
                if pending.done.done() or self._keeper.is_checkpointed(begun):  # or nobody waits any more
                    self._tell([(pending, 0)])
                else:
                    left.append((begun, pending))
            except DiskUnavailableError as error:
                self._tell([(pending, error)])
        self.checkpoints = left

    # --- writing

    def _write(self, batch: Sequence[Pending]) -> list[Outcome | None]:
        """Stores a batch; what was asked for first is done first.

        Returns:
            What became of each part; None: it is going on.
        """
        now = self._clock()
        outcomes: list[Outcome | None] = []
        group = _Group(now)
        for position, pending in enumerate(batch):
            try:
                if isinstance(pending, PendingCall):
                    self._put(group, outcomes)
                    outcomes.append(pending.work())
                    continue
                if isinstance(pending, PendingCheckpoint):
                    self._put(group, outcomes)
                    self._begin_checkpoint(pending)
                    outcomes.append(None)
                    continue
                self._placer.define(pending.batch)
                known = self._known(pending.id, group, outcomes)
                if known is not None:
                    outcomes.append(replace(known, already_stored=True))
                    continue
                decoded = self._placer.decode(pending.batch, now)
                outcomes.append(decoded.report)
                group.add(position, decoded, pending.id)
            except (DiskUnavailableError, RequestError) as error:
                outcomes.append(error)
            except Exception as error:  # a defect, or no memory: it costs this part, and no other
                logger.exception("a batch of %d bytes could not be written", pending.size)
                outcomes.append(error)
        self._put(group, outcomes)
        return outcomes

    def _known(self, write_id: WriteId | None, group: "_Group", outcomes: list[Outcome | None]) -> WriteReport | None:
        """What became of a write if it is stored already; None: it is its turn to be stored.

        Raises:
            SequenceGapError: It is not its turn.
        """
        if write_id is None:
            return None
        last = group.last_number(write_id)
        if last is not None and write_id.number <= last:
            self._put(group, outcomes)  # only then is it known whether the one that came first is stored
            last = None
        if last is None:
            known = self._keeper.known_writes.last(write_id.kind, write_id.name)
            last = 0 if known is None else known.id.number
            if known is not None and write_id.number <= last:
                return known.report if write_id.number == last else WriteReport()
        if write_id.number > last + 1:
            raise SequenceGapError(write_id.number, last)
        return None

    def _put(self, group: "_Group", outcomes: list[Outcome | None]) -> None:
        """Stores what was decoded, all of it together; afterwards nothing is left in the group."""
        placements, positions = self._place(group, outcomes)
        writes = group.known_writes(outcomes)
        group.clear()
        if not placements and not writes:
            return
        try:
            self._keeper.put(placements, list(writes.values()))
        except Exception as error:
            if not isinstance(error, DiskUnavailableError):
                logger.exception("%d batches could not be written", len(positions))
            for position in positions | writes.keys():
                outcomes[position] = error
            return
        if placements:
            try:
                self._watches.publish(placements)
            except Exception:  # the samples are stored, whatever those who watch make of them
                logger.exception("samples could not be shown to those who watch")

    def _place(self, group: "_Group", outcomes: list[Outcome | None]) -> tuple[list[Placement], set[int]]:
        """Finds places for the samples of a group; returns these, and the positions of batches that have some."""
        if not group.decoded:
            return [], set()
        try:
            placed, counts = self._placer.place(list(group.decoded.values()), group.now)
        except Exception:  # a defect, or no memory
            logger.exception("%d batches could not be written together", len(group.decoded))
            return self._place_one_by_one(group, outcomes)
        positions = {position for position, count in zip(group.decoded, counts, strict=True) if count}
        return [placed] if positions else [], positions

    def _place_one_by_one(self, group: "_Group", outcomes: list[Outcome | None]) -> tuple[list[Placement], set[int]]:
        """The same, where one of the batches cannot be placed: it costs no other, but those of its name behind it."""
        placements: list[Placement] = []
        positions: set[int] = set()
        failed: dict[tuple[NameKind, str], WriteId] = {}
        for position in sorted(group.decoded.keys() | group.ids.keys()):
            write_id, decoded = group.ids.get(position), group.decoded.get(position)
            if write_id is not None and (first := failed.get((write_id.kind, write_id.name))) is not None:
                outcomes[position] = SequenceGapError(write_id.number, first.number - 1)
                continue
            if decoded is None:
                continue
            try:
                placed, [count] = self._placer.place([decoded], group.now)
            except Exception as error:
                logger.exception("a batch of %d samples could not be written", len(decoded.series))
                outcomes[position] = error
                if write_id is not None:
                    failed[write_id.kind, write_id.name] = write_id
                continue
            if count:
                placements.append(placed)
                positions.add(position)
        return placements, positions


class _Group:
    """Batches that are decoded, to be stored together.

    Attributes:
        now: Seconds since the epoch, for all of them.
        decoded: Samples of each batch that has some, by its position.
        ids: What batches are told from others by, by their position.
    """

    def __init__(self, now: float) -> None:
        self.now: Final = now
        self.decoded: dict[int, Decoded] = {}
        self.ids: dict[int, WriteId] = {}
        self._last: dict[tuple[NameKind, str], int] = {}

    def add(self, position: int, decoded: Decoded, write_id: WriteId | None) -> None:
        if len(decoded.series):
            self.decoded[position] = decoded
        if write_id is not None:
            self.ids[position] = write_id
            self._last[write_id.kind, write_id.name] = write_id.number

    def last_number(self, write_id: WriteId) -> int | None:
        """The last number of a name in this group."""
        return self._last.get((write_id.kind, write_id.name))

    def known_writes(self, outcomes: Sequence[Outcome | None]) -> dict[int, KnownWrite]:
        """What batches will be known by, by their position; those that failed will not be."""
        writes: dict[int, KnownWrite] = {}
        for position, write_id in self.ids.items():
            report = outcomes[position]
            if isinstance(report, WriteReport):
                # Not all of the explanations: there may be many writes to remember, and each may have been all wrong.
                writes[position] = KnownWrite(write_id, replace(report, first_rejected=report.first_rejected[:1]))
        return writes

    def clear(self) -> None:
        self.decoded.clear()
        self.ids.clear()
        self._last.clear()


def run_slice(work: Iterator[None]) -> bool:
    """Works for a while; whether it came to the end."""
    until = perf_counter() + MAINTENANCE_SLICE_SECONDS
    return all(perf_counter() < until for _ in work)
