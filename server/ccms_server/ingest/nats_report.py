"""What happens on a connection to NATS, counted in full and logged with restraint: servers are tried every second."""

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import nats.errors

from ccms_server.ingest.writer import IngestCounters

logger = logging.getLogger(__name__)

PROBLEMS_LOGGED_MAX: Final = 16
"""Different problems that are logged between two changes of the connection's state."""
LOG_INTERVAL_SECONDS: Final = 10.0
"""Losses are logged together, this often."""

_AUTHORIZATION_PROBLEM: Final = re.compile("authoriz|authentic", re.IGNORECASE)
"""`Authorization Violation`, `User Authentication Expired` and the like."""


@dataclass(slots=True)
class NatsCounters:
    """What happened on one connection since the start."""

    messages: int = 0
    """Messages handed over."""
    payload_bytes: int = 0
    """Their size."""
    dropped: int = 0
    """Messages lost because the writer was behind, or refused by it."""
    connections: int = 0
    """Times a connection was made; each but the first after a loss."""
    errors: int = 0
    """Attempts to connect that failed, and errors while connected; of these there are:"""
    authorization_errors: int = 0
    """Those with which the broker turned us away: a wrong password, or credentials that have expired."""
    permission_errors: int = 0
    """Subscriptions that the broker refused, each time it did."""


class NatsReport:
    """Counts and logs for one connection.

    Attributes:
        counters: What happened so far.
    """

    def __init__(self, name: str, ingest_counters: IngestCounters) -> None:
        """Makes a report of nothing.

        Args:
            name: What the configuration calls the connection: `nats[0]`.
            ingest_counters: Lost messages are counted there as well.
        """
        self.counters = NatsCounters()
        self._name = name
        self._ingest_counters = ingest_counters
        self._problems: set[str] = set()
        """Those logged since the connection was made or lost."""
        self._dropped_logged = 0
        self._next_drop_log = 0.0

    def connected(self, server: str, subjects: Sequence[str]) -> None:
        """A connection was made, to a server given without its credentials."""
        self._problems.clear()
        self.counters.connections += 1
        logger.info(
            "%s: connected to %s, subscribed to %s", self._name, server, ", ".join(subjects) if subjects else "nothing"
        )

    def disconnected(self, retry_seconds: float | None) -> None:
        """It was lost, and will be tried again so often; None: it was given up on purpose."""
        self._problems.clear()
        if retry_seconds is not None:
            logger.warning("%s: connection lost; trying again every %g s", self._name, retry_seconds)

    def refused(self, new_subjects: Sequence[str], retry_seconds: float) -> None:
        """The broker does not permit a subscription; subjects are given, and logged, unless that was known."""
        self.counters.errors += 1
        self.counters.permission_errors += 1
        for subject in dict.fromkeys(new_subjects):
            logger.error(
                "%s: the broker does not permit to subscribe to %s, samples on it are missing; permit it there, "
                "it is tried again every %g s",
                self._name,
                subject,
                retry_seconds,
            )

    def permitted(self, subject: str) -> None:
        """The broker permits a subscription that it refused before."""
        logger.info("%s: subscribed to %s, which was refused before", self._name, subject)

    def problem(self, error: Exception) -> None:
        """Anything else that went wrong; logged once in each state of the connection."""
        words = re.sub("^'(.*)'$", r"\1", str(error).removeprefix("nats: "))
        problem = f"{type(error).__name__}: {words}"
        is_authorization = _AUTHORIZATION_PROBLEM.search(words) is not None
        self.counters.errors += 1
        self.counters.authorization_errors += is_authorization
        if problem in self._problems or len(self._problems) >= PROBLEMS_LOGGED_MAX:
            return
        self._problems.add(problem)
        if is_authorization:
            logger.warning("%s: the broker turns us away, check the credentials: %s", self._name, words)
        elif isinstance(error, nats.errors.Error | OSError):
            logger.warning("%s: %s", self._name, problem)
        else:  # nats-py lets through what it did not expect
            logger.error("%s: the broker cannot be understood: %s", self._name, problem, exc_info=error)

    def defect(self, error: Exception) -> None:
        """A message could not be handed over, and nobody knows why; called while the error is handled."""
        logger.exception("%s: a message could not be handed over: %r", self._name, error)

    def received(self, payload_bytes: int) -> None:
        """A message was handed over."""
        self.counters.messages += 1
        self.counters.payload_bytes += payload_bytes

    def dropped(self, why: str, count: int = 1) -> None:
        """Messages were lost."""
        self.counters.dropped += count
        self._ingest_counters.dropped += count
        now = time.monotonic()
        if now >= self._next_drop_log:
            self._next_drop_log = now + LOG_INTERVAL_SECONDS
            new = self.counters.dropped - self._dropped_logged
            self._dropped_logged = self.counters.dropped
            logger.error("%s: %d messages lost, the last one: %s", self._name, new, why)
