"""Live tail: samples of chosen series, told to those who watch as soon as they are stored.

The writer's thread publishes what it has put into the store; every watch picks its series and keeps their samples until
its client takes them. What a slow client does not take in time is counted, and dropped: nobody waits for it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccms_server.errors import LimitExceededError
from ccms_server.matcher import SeriesMatcher
from ccms_server.model import SeriesName
from ccms_server.store.append import Placement
from ccms_server.store.registry import NewSeries
from ccms_server.store.store import Store

logger = logging.getLogger(__name__)

SAMPLES_KEPT_MAX: Final = 1 << 18
"""Samples that a watch keeps until they are taken, 20 bytes each."""

PIECE_SAMPLES: Final = 32
"""What samples that are stored together count for at least: that is what their arrays take beside them."""

_NOT_WATCHED: Final = -1


class WatchedSamples(NamedTuple):
    """Samples that were stored, in order: arrays of shape (n_samples,)."""

    numbers: NDArray[np.int32]
    """Number of each sample's series, see `Watch.names`."""
    timestamps: NDArray[np.int64]
    """Times of the slots, seconds since the epoch."""
    values: NDArray[np.float64]

    def some(self, chosen: slice) -> "WatchedSamples":
        """Some of the samples."""
        return WatchedSamples(self.numbers[chosen], self.timestamps[chosen], self.values[chosen])


class Watch:
    """The samples of some series, from when it was opened on.

    Attributes:
        names: What the series are called, by their number in this watch.
    """

    def __init__(self, matcher: SeriesMatcher, series_max: int, wake: Callable[[], None]) -> None:
        """Watches nothing yet.

        Args:
            matcher: Selects the series.
            series_max: Series it may come to.
            wake: Is called on the writer's thread when there is something to take.
        """
        self.names: list[SeriesName] = []
        self._matcher = matcher
        self._series_max = series_max
        self._wake = wake
        self._lock = Lock()  # of everything below: the writer adds, a client takes
        self._numbers = np.full(1024, _NOT_WATCHED, np.int32)  # by series id
        self._kept: list[WatchedSamples] = []
        self._n_kept = 0
        self._missed = 0
        self._failure: LimitExceededError | None = None

    def add(self, series: int, metric: str, path: Sequence[str]) -> None:
        """Watches a series as well, if it is selected and not watched yet."""
        if not self._matcher.matches(path, metric):
            return
        with self._lock:
            if series >= len(self._numbers):
                grown = np.full(2 * series, _NOT_WATCHED, np.int32)
                grown[: len(self._numbers)] = self._numbers
                self._numbers = grown
            if self._numbers[series] != _NOT_WATCHED:
                return
            if len(self.names) == self._series_max:
                remedy = "narrow the selection"
                self._failure = LimitExceededError(
                    "series in one watch", self._series_max + 1, self._series_max, remedy
                )
                self._wake()
                return
            self._numbers[series] = len(self.names)
            self.names.append(SeriesName(metric, *path))

    def publish(self, placed: Placement, intervals: NDArray[np.int64]) -> int:
        """Keeps the samples of its series until they are taken.

        Args:
            placed: Samples that were stored.
            intervals: int64 array of shape (n_samples,): interval of each, seconds.

        Returns:
            Samples that it could not keep.
        """
        with self._lock:
            known = placed.series < len(self._numbers)
            numbers = self._numbers[np.where(known, placed.series, 0)]
            chosen = np.flatnonzero(known & (numbers != _NOT_WATCHED))
            if not len(chosen):
                return 0
            n_taken = max(0, min(len(chosen), SAMPLES_KEPT_MAX - self._n_kept))
            n_missed = len(chosen) - n_taken
            self._missed += n_missed
            chosen = chosen[:n_taken]
            if n_taken:
                times = placed.phases[chosen] + placed.slots[chosen] * intervals[chosen]
                self._kept.append(WatchedSamples(numbers[chosen], times, placed.values[chosen]))
                self._n_kept += max(n_taken, PIECE_SAMPLES)
        self._wake()
        return n_missed

    def check(self) -> None:
        """Finds out whether the watch can go on.

        Raises:
            LimitExceededError: More series were selected than may be watched.
        """
        if self._failure is not None:
            raise self._failure

    def take(self) -> tuple[WatchedSamples | None, int]:
        """All samples since the last call, and how many were missed behind them; None: there are none.

        Raises:
            LimitExceededError: See `check`.
        """
        self.check()
        with self._lock:
            kept, self._kept, self._n_kept = self._kept, [], 0
            missed, self._missed = self._missed, 0
        if not kept:
            return None, missed
        return kept[0] if len(kept) == 1 else WatchedSamples(*map(np.concatenate, zip(*kept, strict=True))), missed


class Watches:
    """All watches that are open.

    Attributes:
        missed: Samples that slow clients have missed since the start.
    """

    def __init__(self, store: Store) -> None:
        """Watches a store.

        Args:
            store: The store; it is told to say which series are registered.
        """
        self.missed = 0
        self._store = store
        self._watches: tuple[Watch, ...] = ()  # replaced as a whole: the writer reads it at any time
        store.on_registered.append(self._on_registered)

    @property
    def count(self) -> int:
        """Watches that are open."""
        return len(self._watches)

    @contextmanager
    def opened(self, matcher: SeriesMatcher, series_max: int, arrived: asyncio.Event) -> Iterator[Watch]:
        """A watch of series that are registered from now on; those that are there already are `add`ed by the caller.

        Args:
            matcher: Selects the series.
            series_max: Series it may come to.
            arrived: Is set on the running event loop when there is something to take.
        """
        loop = asyncio.get_running_loop()
        watch = Watch(matcher, series_max, lambda: _wake(loop, arrived))
        self._watches = (*self._watches, watch)
        try:
            yield watch
        finally:
            self._watches = tuple(other for other in self._watches if other is not watch)

    # --- on the writer's thread

    def publish(self, placements: Sequence[Placement]) -> None:
        """Tells of samples that were stored."""
        watches = self._watches
        if not watches:
            return
        placed = placements[0] if len(placements) == 1 else Placement.joined(placements)
        intervals = self._store.intervals_of(placed.series)
        for watch in watches:
            self.missed += watch.publish(placed, intervals)

    def _on_registered(self, new: NewSeries) -> None:
        for watch in self._watches:
            for series, (metric_id, path) in enumerate(zip(new.metric_ids.tolist(), new.paths, strict=True), new.first):
                try:
                    watch.add(series, self._store.tables[metric_id].metric.name, path)
                except Exception:  # others are watched, and others have to know of it, all the same
                    logger.exception("a series could not be shown to those who watch")


def _wake(loop: asyncio.AbstractEventLoop, arrived: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop was closed: nobody waits
        loop.call_soon_threadsafe(arrived.set)
