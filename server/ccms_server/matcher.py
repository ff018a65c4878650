"""Which series a request is about: patterns for the names along their path.

A pattern is for names that are there. Series that have no component, because they are the host's own, or none below it,
are selected by the empty pattern alone, or by leaving that level's patterns out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import translate
from typing import Final, NamedTuple

from ccms_server.errors import InvalidRequestError, LimitExceededError
from ccms_server.extents import FoundSeries, is_served
from ccms_server.model import SeriesName
from ccms_server.store.registry import HOST_DEPTH
from ccms_server.store.store import Store
from ccms_server.store.tree import Level

PATTERNS_MAX: Final = 1024
"""Patterns in one matcher."""
WILDCARD_CHARACTERS_MAX: Final = 16_384
"""Characters of all patterns with wildcards: what is compiled, in some 50 ms. Names without any are only looked up."""
STEPS_AT_ONCE: Final = 2048
"""Levels that are visited or passed over, and series that are found, in one go, in some milliseconds."""

_WILDCARD: Final = re.compile(r"[*?\[]")
_VERDICTS_MAX: Final = 4096
"""Names whose verdict is remembered; those of components and metrics are the same at every host."""


class SeriesMatcher:
    """Patterns for each level, and for the metric; a series is selected if all its names match."""

    def __init__(self, levels: Sequence["_Patterns"], metrics: "_Patterns") -> None:
        """See `compile`.

        Args:
            levels: For cluster, host, component and sub-component.
            metrics: For the metric.
        """
        self._levels = levels
        self._metrics = metrics

    @classmethod
    def compile(
        cls,
        *,
        clusters: Sequence[str] = (),
        hosts: Sequence[str] = (),
        components: Sequence[str] = (),
        subcomponents: Sequence[str] = (),
        metrics: Sequence[str] = (),
    ) -> "SeriesMatcher":
        """Makes a matcher of shell patterns: `*`, `?`, `[a-z]` and `[!a-z]`; case matters.

        Args:
            clusters: Patterns, one of which the name has to match; empty: any name does.
            hosts: The same.
            components: The same; an empty pattern stands for series of the host itself, no patterns for these as well.
            subcomponents: The same; an empty pattern stands for series that have none, no patterns for these as well.
            metrics: The same as for clusters.

        Raises:
            InvalidRequestError: A pattern is empty where every series has a name.
            LimitExceededError: There are too many patterns, or they are too long.
        """
        named = {"clusters": clusters, "hosts": hosts, "metrics": metrics}
        for field, patterns in named.items():
            if "" in patterns:
                where = f"matcher.{field}[{list(patterns).index('')}]"
                raise InvalidRequestError(where, "must not be empty; leave out all patterns of this level for any name")
        patterns = [*clusters, *hosts, *components, *subcomponents, *metrics]
        _check_limit("patterns in one matcher", len(patterns), PATTERNS_MAX)
        n_characters = sum(len(pattern) for pattern in patterns if _WILDCARD.search(pattern))
        _check_limit("characters of patterns with wildcards", n_characters, WILDCARD_CHARACTERS_MAX)
        return cls([_Patterns(each) for each in (clusters, hosts, components, subcomponents)], _Patterns(metrics))

    def matches(self, path: Sequence[str], metric: str) -> bool:
        """Whether a series is selected.

        Args:
            path: Cluster, host, and optionally component and sub-component.
            metric: Name of its metric.
        """
        names = (*path, *[""] * (len(self._levels) - len(path)))
        return self._metrics.match(metric) and all(map(_Patterns.match, self._levels, names))

    def matches_metric(self, metric: str) -> bool:
        """Whether series of a metric may be selected."""
        return self._metrics.match(metric)

    def has_own_series(self, depth: int) -> bool:
        """Whether series at a level itself may be selected.

        Args:
            depth: Names in the path of the level.
        """
        return depth >= HOST_DEPTH and all(patterns.match("") for patterns in self._levels[depth:])

    def children(self, children: Mapping[str, Level], depth: int, after: str) -> Iterator[tuple[str, Level | None]]:
        """The levels below one that lead to series that may be selected, in order of names.

        Args:
            children: Levels below, by name.
            depth: Names in the path of the level they are below of.
            after: The first name that is wanted; empty: all are.

        Returns:
            Names, and what is there; None: it leads to nothing that is selected.
        """
        if depth == len(self._levels):
            return
        patterns = self._levels[depth]
        exact = patterns.exact_names
        # One step for all names, as the writer adds some meanwhile.
        names = list(children) if exact is None else [name for name in exact if name in children]
        for name in sorted(name for name in names if name >= after):
            yield name, children[name] if patterns.match(name) else None


class _Patterns:
    """Patterns for the names of one level."""

    def __init__(self, patterns: Sequence[str]) -> None:
        wildcards = [pattern for pattern in patterns if _WILDCARD.search(pattern)]
        self._any = not patterns
        self._exact = frozenset(patterns).difference(wildcards)
        self._regex = re.compile("|".join(map(translate, wildcards))) if wildcards else None
        self._verdicts: dict[str, bool] = {}

    @property
    def exact_names(self) -> frozenset[str] | None:
        """The only names that match; None: they cannot be told one by one."""
        return None if self._any or self._regex is not None else self._exact

    def match(self, name: str) -> bool:
        """Whether a name matches; empty: there is none."""
        if self._any or name in self._exact:
            return True
        if self._regex is None or not name:
            return False
        verdict = self._verdicts.get(name)
        if verdict is None:
            verdict = self._regex.match(name) is not None
            if len(self._verdicts) < _VERDICTS_MAX:
                self._verdicts[name] = verdict
        return verdict


def _check_limit(what: str, asked: int, limit: int) -> None:
    if asked > limit:
        raise LimitExceededError(what, asked, limit, "use fewer patterns, with more wildcards or shorter")


# --- walking the tree


def matching_chunks(
    store: Store, matcher: SeriesMatcher, after: SeriesName | None = None
) -> Iterator[list[FoundSeries]]:
    """The series that are selected, some at a time, those of retired metrics excepted.

    Meant for any thread, while the writer goes on: a series that appears during the walk may or may not be in it.

    Args:
        store: The store.
        matcher: Selects them.
        after: The last series that is not wanted any more; None: the first one that is selected comes first.

    Returns:
        Chunks, each made in some milliseconds; some may be empty. In the order of cluster, host, component,
        sub-component and metric: series of a level itself come before those below it.
    """
    chunk: list[FoundSeries] = []
    n_steps = 0
    for visit in _visits(matcher, store.tree.root, (), after):
        n_steps += 1
        if visit is not None:
            chunk += _own_series(store, matcher, visit)
        if n_steps + len(chunk) >= STEPS_AT_ONCE:
            yield chunk
            chunk, n_steps = [], 0
    yield chunk


class _Visit(NamedTuple):
    """A level whose own series may be selected."""

    path: tuple[str, ...]
    level: Level
    after_metric: str
    """Only series of metrics behind this one; empty: of all."""


def _visits(
    matcher: SeriesMatcher, level: Level, path: tuple[str, ...], after: SeriesName | None
) -> Iterator[_Visit | None]:
    """Levels from one on that may have series that are selected, depth first; None for those that were passed over.

    Args:
        matcher: Selects the series.
        level: Where to begin.
        path: Of the level.
        after: A series at the level or below it, where to go on; None: at the beginning.
    """
    depth = len(path)
    resumed = after.path if after is not None else ()
    if matcher.has_own_series(depth) and len(resumed) in (0, depth):
        yield _Visit(path, level, after.metric if after is not None else "")
    first = resumed[depth] if depth < len(resumed) else ""
    for name, child in matcher.children(level.children, depth, first):
        if child is None:
            yield None
        else:
            yield from _visits(matcher, child, (*path, name), after if name == first else None)


def _own_series(store: Store, matcher: SeriesMatcher, visit: _Visit) -> Iterator[FoundSeries]:
    """The series of a level itself that are selected, by name of their metric."""
    named = [(store.tables[metric_id].metric.name, metric_id) for metric_id in list(visit.level.series)]
    for name, metric_id in sorted(named):
        if name > visit.after_metric and matcher.matches_metric(name) and is_served(store, metric_id):
            yield FoundSeries(visit.path, metric_id, visit.level.series[metric_id])
