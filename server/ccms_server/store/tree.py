"""The tree of levels: cluster / host / component / sub-component, and which series hang where.

One writer changes the tree; readers on other threads walk it at the same time. They only ever copy a dict's values in
one step, and see a level either with or without its newest child.
"""

from collections.abc import Callable, Sequence
from sys import intern

import numpy as np
from numpy.typing import NDArray

SeriesIds = NDArray[np.int32]
NO_SERIES: SeriesIds = np.empty(0, np.int32)
NO_SERIES.flags.writeable = False


class Level:
    """A node of the tree.

    Attributes:
        children: Levels below, by name.
        series: Series of this very level, by metric id.
    """

    __slots__ = ("_groups", "children", "series")

    def __init__(self) -> None:
        self.children: dict[str, Level] = {}
        self.series: dict[int, int] = {}
        self._groups: dict[int, tuple[int, SeriesIds]] | None = None  # most levels are never asked for

    def group(self, metric_id: int, version: int, has_samples: Callable[[int], bool]) -> SeriesIds:
        """The series that make up this level's value of a metric.

        A level's own series wins over those below it. The result is remembered until `version` changes.

        Args:
            metric_id: The metric.
            version: Changes whenever a series gets its first sample or loses its last one.
            has_samples: Whether a series holds any sample; those without do not count.

        Returns:
            int32 array of shape (n_series,), in depth-first order; do not write to it.
        """
        groups = self._groups
        if groups is None:
            groups = self._groups = {}
        known = groups.get(metric_id)
        if known is not None and known[0] == version:
            return known[1]
        found: list[int] = []
        self.collect(metric_id, has_samples, found)
        group = np.array(found, np.int32) if found else NO_SERIES
        groups[metric_id] = (version, group)
        return group

    def collect(self, metric_id: int, has_samples: Callable[[int], bool], found: list[int]) -> None:
        """Adds what `group` returns to `found`."""
        own = self.series.get(metric_id)
        if own is not None and has_samples(own):
            found.append(own)
            return
        for child in list(self.children.values()):
            child.collect(metric_id, has_samples, found)

    def walk(self) -> list["Level"]:
        """This level and all below it, depth first."""
        levels = [self]
        for child in list(self.children.values()):
            levels.extend(child.walk())
        return levels


class Tree:
    """All levels; the root's children are the clusters."""

    def __init__(self) -> None:
        self.root = Level()

    def find(self, path: Sequence[str]) -> Level | None:
        """The level at a path (cluster, host, ...), or None."""
        level: Level | None = self.root
        for name in path:
            if level is None:
                return None
            level = level.children.get(name)
        return level

    def make(self, path: Sequence[str]) -> Level:
        """The level at a path; creates what is missing of it."""
        level = self.root
        for name in path:
            child = level.children.get(name)
            if child is None:
                # Component names repeat on every host: keep one copy of each.
                child = level.children[intern(name)] = Level()
            level = child
        return level

    def names_below(self, path: Sequence[str]) -> list[str]:
        """Names of the children of a level, in order of first appearance; empty if there is no such level."""
        level = self.find(path)
        return [] if level is None else list(level.children)
