"""Batches that are stored together: one record of the log and one sync for all of them.

decode -> place -> make durable, put -> show to those who watch
"""

import logging
from dataclasses import replace

from ccms_server.durability.keeper import Keeper
from ccms_server.durability.known_writes import KnownWrite, NameKind, WriteId
from ccms_server.errors import DiskUnavailableError, SequenceGapError
from ccms_server.ingest.batches import Batch
from ccms_server.ingest.pending import Outcome
from ccms_server.ingest.placing import Decoded, Placer
from ccms_server.model import WriteReport
from ccms_server.store.append import Placement
from ccms_server.watches import Watches

logger = logging.getLogger(__name__)


class WriteGroup:
    """Batches that are decoded, to be stored together. Belongs to the writer's thread.

    Attributes:
        outcomes: What became of each batch, in order; of those that are not `put` yet, what is known so far. Whatever
            else is done in between may be noted there as well.
    """

    def __init__(self, keeper: Keeper, watches: Watches, placer: Placer, now: float) -> None:
        """Makes an empty group.

        Args:
            keeper: What becomes of samples.
            watches: Are told of what is stored.
            placer: Decodes batches and finds places for their samples.
            now: Seconds since the epoch, for all batches.
        """
        self.outcomes: list[Outcome | None] = []
        self._keeper = keeper
        self._watches = watches
        self._placer = placer
        self._now = now
        # Of the batches that are not put yet, by their position in `outcomes`:
        self._decoded: dict[int, Decoded] = {}  # samples of each that has some
        self._ids: dict[int, WriteId] = {}  # what they are told from others by
        self._last: dict[tuple[NameKind, str], int] = {}  # the last number of each name

    def add(self, batch: Batch, write_id: WriteId | None) -> None:
        """Decodes a batch, unless it is known to be stored already, and notes its outcome.

        Args:
            batch: The batch.
            write_id: What it is told from other writes by; None: it is stored whenever it comes.

        Raises:
            DiskUnavailableError: Its outcome is not noted, as with all errors.
            RequestError: Nothing of it can be stored.
        """
        self._placer.define(batch)
        known = self._known(write_id)
        if known is not None:
            self.outcomes.append(replace(known, already_stored=True))
            return
        decoded = self._placer.decode(batch, self._now)
        position = len(self.outcomes)
        self.outcomes.append(decoded.report)
        if len(decoded.series):
            self._decoded[position] = decoded
        if write_id is not None:
            self._ids[position] = write_id
            self._last[write_id.kind, write_id.name] = write_id.number

    def put(self) -> None:
        """Stores what was decoded, all of it together; afterwards the group is empty."""
        placements, positions = self._place()
        writes = self._known_writes()
        self._clear()
        if not placements and not writes:
            return
        try:
            self._keeper.put(placements, list(writes.values()))
        except Exception as error:
            if not isinstance(error, DiskUnavailableError):
                logger.exception("%d batches could not be written", len(positions))
            for position in positions | writes.keys():
                self.outcomes[position] = error
            return
        if placements:
            try:
                self._watches.publish(placements)
            except Exception:  # the samples are stored, whatever those who watch make of them
                logger.exception("samples could not be shown to those who watch")

    def _known(self, write_id: WriteId | None) -> WriteReport | None:
        """What became of a write if it is stored already; None: it is its turn to be stored.

        Raises:
            SequenceGapError: It is not its turn.
        """
        if write_id is None:
            return None
        last = self._last.get((write_id.kind, write_id.name))
        if last is not None and write_id.number <= last:
            self.put()  # only then is it known whether the one that came first is stored
            last = None
        if last is None:
            known = self._keeper.known_writes.last(write_id.kind, write_id.name)
            last = 0 if known is None else known.id.number
            if known is not None and write_id.number <= last:
                return known.report if write_id.number == last else WriteReport()
        if write_id.number > last + 1:
            raise SequenceGapError(write_id.number, last)
        return None

    def _place(self) -> tuple[list[Placement], set[int]]:
        """Finds places for the samples of a group; returns these, and the positions of batches that have some."""
        if not self._decoded:
            return [], set()
        try:
            placed, counts = self._placer.place(list(self._decoded.values()), self._now)
        except Exception:  # a defect, or no memory
            logger.exception("%d batches could not be written together", len(self._decoded))
            return self._place_one_by_one()
        positions = {position for position, count in zip(self._decoded, counts, strict=True) if count}
        return [placed] if positions else [], positions

    def _place_one_by_one(self) -> tuple[list[Placement], set[int]]:
        """The same, where one of the batches cannot be placed: it costs no other, but those of its name behind it."""
        placements: list[Placement] = []
        positions: set[int] = set()
        failed: dict[tuple[NameKind, str], WriteId] = {}
        for position in sorted(self._decoded.keys() | self._ids.keys()):
            write_id, decoded = self._ids.get(position), self._decoded.get(position)
            if write_id is not None and (first := failed.get((write_id.kind, write_id.name))) is not None:
                self.outcomes[position] = SequenceGapError(write_id.number, first.number - 1)
                continue
            if decoded is None:
                continue
            try:
                placed, [count] = self._placer.place([decoded], self._now)
            except Exception as error:
                logger.exception("a batch of %d samples could not be written", len(decoded.series))
                self.outcomes[position] = error
                if write_id is not None:
                    failed[write_id.kind, write_id.name] = write_id
                continue
            if count:
                placements.append(placed)
                positions.add(position)
        return placements, positions

    def _known_writes(self) -> dict[int, KnownWrite]:
        """What batches will be known by, by their position; those that failed will not be."""
        writes: dict[int, KnownWrite] = {}
        for position, write_id in self._ids.items():
            report = self.outcomes[position]
            if isinstance(report, WriteReport):
                # Not all of the explanations: there may be many writes to remember, and each may have been all wrong.
                writes[position] = KnownWrite(write_id, replace(report, first_rejected=report.first_rejected[:1]))
        return writes

    def _clear(self) -> None:
        self._decoded.clear()
        self._ids.clear()
        self._last.clear()
