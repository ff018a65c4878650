"""Rejected lines of senders that are told nothing: they are logged, together and now and then."""

import logging
from typing import Final

from ccms_server.model import WriteReport

logger = logging.getLogger(__name__)

LOG_INTERVAL_SECONDS: Final = 10.0
"""Rejected lines of subscriptions are logged together, this often."""


class UnheardRejections:
    """What was rejected since it was logged last."""

    def __init__(self) -> None:
        self._since = WriteReport()
        self._next_log = 0.0

    def add(self, report: WriteReport) -> None:
        """Takes what became of a batch of a subscription."""
        if report.rejected:
            self._since.merge(report)

    def log_if_due(self, now: float) -> None:
        """Logs what there is, unless that was done a moment ago.

        Args:
            now: A monotonic time, seconds.
        """
        if not self._since.rejected or now < self._next_log:
            return
        unheard, self._since = self._since, WriteReport()
        self._next_log = now + LOG_INTERVAL_SECONDS
        by_reason = ", ".join(f"{reason.name} {count:,}" for reason, count in sorted(unheard.rejected.items()))
        example = unheard.first_rejected[0]
        logger.warning(
            "%s lines of subscriptions rejected (%s), %s stored; for example line %d of a message: %s",
            f"{unheard.rejected_total:,}",
            by_reason,
            f"{unheard.stored:,}",
            example.index,
            example.message,
        )
