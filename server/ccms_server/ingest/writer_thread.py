"""The writer's thread: takes what waits, stores it, and maintains the store in between.

    queue -> take all -> decode, place, make durable, put -> tell -> a slice of maintenance -> ...

It takes all that waits, in order, and works on it in one go, so groups grow by themselves under load; a group shares
one record of the log, and one sync. Where senders wait for answers before they send again, those of two groups would
take turns for ever: then a group is waited for a moment, until all of them can be in it.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter, sleep
from typing import Final

from ccms_server.durability.keeper import Keeper
from ccms_server.errors import DiskUnavailableError, RequestError
from ccms_server.ingest.pending import Outcome, Pending, PendingCall, PendingCheckpoint, PendingWrite
from ccms_server.ingest.placing import Placer
from ccms_server.ingest.unheard import UnheardRejections
from ccms_server.ingest.write_group import WriteGroup
from ccms_server.model import WriteReport
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
        group = WriteGroup(self._keeper, self._watches, self._placer, self._clock())
        for pending in batch:
            try:
                if isinstance(pending, PendingWrite):
                    group.add(pending.batch, pending.id)
                    continue
                group.put()
                if isinstance(pending, PendingCall):
                    group.outcomes.append(pending.work())
                else:
                    self._begin_checkpoint(pending)
                    group.outcomes.append(None)
            except (DiskUnavailableError, RequestError) as error:
                group.outcomes.append(error)
            except Exception as error:  # a defect, or no memory: it costs this part, and no other
                logger.exception("a batch of %d bytes could not be written", pending.size)
                group.outcomes.append(error)
        group.put()
        return group.outcomes


def run_slice(work: Iterator[None]) -> bool:
    """Works for a while; whether it came to the end."""
    until = perf_counter() + MAINTENANCE_SLICE_SECONDS
    return all(perf_counter() < until for _ in work)
