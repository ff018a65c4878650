"""Numbers that stand for series, as long as a sender is connected."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.errors import InvalidRequestError, RejectReason
from ccms_server.model import SeriesName

NUMBER_LIMIT: Final = 1 << 22
"""Numbers are smaller."""

NUMBERS_AHEAD_MAX: Final = 1 << 16
"""A number may be so much larger than twice as many as are defined: memory is taken for all up to it."""

RETRIED_MAX: Final = 4096
"""Series without a place that are looked up again whenever they are written to; others stay rejected."""

NAME_CHARACTERS_MAX: Final = 1024
"""Longer names are not looked up again."""

_UNDEFINED: Final = -1
_REJECTED: Final = -2
"""This, and what is less by a `RejectReason`."""

Lookup = Callable[[SeriesName], int | tuple[RejectReason, str]]
"""Finds or makes a series: its id, or why it cannot be."""


class NumberedSeries:
    """What the numbers of one sender stand for. Belongs to the writer's thread."""

    def __init__(self) -> None:
        self._ids = np.full(64, _UNDEFINED, np.int32)
        self._n_defined = 0
        self._rejected: dict[int, tuple[SeriesName, str]] = {}

    def define(self, number: int, name: SeriesName, lookup: Lookup) -> None:
        """Lets a number stand for a series.

        Raises:
            InvalidRequestError: The number is too large, or stands for a series already.
        """
        if number >= NUMBER_LIMIT:
            raise InvalidRequestError("new_series.number", f"{number:,} is not below {NUMBER_LIMIT:,}")
        if number > 2 * self._n_defined + NUMBERS_AHEAD_MAX:
            raise InvalidRequestError(
                "new_series.number", f"{number:,} leaves out too many numbers; count up from 0, in any order"
            )
        self._n_defined += 1
        if number >= len(self._ids):
            grown = np.full(min(NUMBER_LIMIT, 2 * max(number, 32)), _UNDEFINED, np.int32)
            grown[: len(self._ids)] = self._ids
            self._ids = grown
        if self._ids[number] != _UNDEFINED:
            raise InvalidRequestError("new_series.number", f"{number:,} stands for a series already")
        self._look_up(number, name, lookup)

    def resolve(self, numbers: NDArray[np.uint32], lookup: Lookup) -> NDArray[np.int32]:
        """The series that numbers stand for.

        Args:
            numbers: uint32 array of shape (n_samples,).
            lookup: Finds series that could not be found before.

        Returns:
            int32 array of shape (n_samples,): ids; where there is none, a negative number, see `rejection_reason`.

        Raises:
            InvalidRequestError: A number stands for nothing.
        """
        try:
            ids: NDArray[np.int32] = self._ids[numbers]
        except IndexError:
            raise self._undefined(int(numbers.max())) from None
        if not len(ids) or ids.min() >= 0:
            return ids
        if (ids == _UNDEFINED).any():
            raise self._undefined(int(numbers[ids == _UNDEFINED][0]))
        for number in np.unique(numbers[ids < 0]).tolist():
            if number in self._rejected:
                self._look_up(number, self._rejected.pop(number)[0], lookup)
        resolved: NDArray[np.int32] = self._ids[numbers]
        return resolved

    def rejection(self, number: int) -> str:
        """Why a number has no series, in words."""
        known = self._rejected.get(number)
        return f"the series that {number:,} stands for was rejected when it was defined" if known is None else known[1]

    def _look_up(self, number: int, name: SeriesName, lookup: Lookup) -> None:
        found = lookup(name)
        if isinstance(found, int):
            self._ids[number] = found
            return
        self._ids[number] = _REJECTED - found[0]
        if len(self._rejected) < RETRIED_MAX and sum(map(len, name)) < NAME_CHARACTERS_MAX:
            self._rejected[number] = name, found[1]

    def _undefined(self, number: int) -> InvalidRequestError:
        return InvalidRequestError(
            "series_numbers", f"{number:,} stands for no series; define it in `new_series` first"
        )


def rejection_reason(found: int) -> RejectReason:
    """The reason that a negative number stands for in what `NumberedSeries.resolve` returned."""
    return RejectReason(_REJECTED - found)
