"""Damage to files: reported with file and offset, counted, and otherwise survived."""

import logging
from pathlib import Path
from threading import Lock
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Damage(NamedTuple):
    """Bytes of a file that are not what was written."""

    path: Path
    offset: int
    """Of the first byte that is lost."""
    length: int
    """Bytes that are lost."""
    what: str
    """What they held, as far as it is known."""


class DamageLog:
    """Takes note of damage. Any thread may add to it.

    Attributes:
        count: Damaged places found so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lock = Lock()

    def add(self, damage: Damage) -> None:
        """Counts and logs a damaged place."""
        with self._lock:
            self.count += 1
        logger.warning(
            "%s is damaged at byte %s: %s bytes are set aside (%s)",
            damage.path,
            f"{damage.offset:,}",
            f"{damage.length:,}",
            damage.what,
        )
