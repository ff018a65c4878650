"""What series are called, and how they are selected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ccms.v1 import sample_pb2 as sample_pb


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a host, or a part of such a part."""

    type: str
    """Kind: `socket`, `hwthread`, `accelerator`, ..."""
    id: str = ""
    """Which one of its kind; empty where there is only one."""


class SeriesKey(NamedTuple):
    """The name of a series: a metric at one place of the tree. A tuple, because millions of them are looked up.

    >>> SeriesKey("flops_any", "alex", "n1", "hwthread3").component
    'hwthread3'
    """

    metric: str
    cluster: str
    host: str
    component: str = ""
    """Component of the host, type and id run together (`hwthread3`); empty: the host itself."""
    subcomponent: str = ""
    """Part of the component; empty: none."""

    @property
    def path(self) -> tuple[str, ...]:
        """Cluster, host, and component and sub-component if there are any."""
        return tuple(name for name in self[1:] if name)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesMatcher:
    """Selects series by shell patterns for the names along their path: `*`, `?`, `[a-z]`, `[!a-z]`.

    A series is selected if each of its names matches any of the patterns for that level; a level without patterns
    matches everything.
    """

    clusters: Sequence[str] = ()
    hosts: Sequence[str] = ()
    components: Sequence[str] = ()
    """For type and id run together (`hwthread*`); an empty pattern is for series of the host itself."""
    subcomponents: Sequence[str] = ()
    """An empty pattern is for series that have none."""
    metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        for level in self.__slots__:
            if isinstance(getattr(self, level), str):
                raise TypeError(f"`{level}` is a list of patterns, not a single one: write {level}=[...]")


def key_of_definition(definition: sample_pb.SeriesDefinition) -> SeriesKey:
    """The name of a series that a number is defined to stand for."""
    selector = definition.selector
    return SeriesKey(
        definition.metric,
        selector.cluster,
        selector.host,
        selector.component.type + selector.component.id,
        selector.subcomponent.type + selector.subcomponent.id,
    )


def key_of_path(metric: str, path: Sequence[str]) -> SeriesKey:
    """The name of a series of a level with a host: cluster, host, and what is below it."""
    return SeriesKey(metric, *path)


def definition_of_key(number: int, key: SeriesKey) -> sample_pb.SeriesDefinition:
    """Lets a number stand for a series."""
    return sample_pb.SeriesDefinition(
        number=number,
        metric=key.metric,
        selector=sample_pb.SeriesSelector(
            cluster=key.cluster,
            host=key.host,
            component=sample_pb.Component(type=key.component) if key.component else None,
            subcomponent=sample_pb.Component(type=key.subcomponent) if key.subcomponent else None,
        ),
    )


def matcher_message(matcher: SeriesMatcher | None) -> sample_pb.SeriesMatcher | None:
    """The message that selects series; None: all of them."""
    if matcher is None:
        return None
    return sample_pb.SeriesMatcher(
        clusters=matcher.clusters,
        hosts=matcher.hosts,
        components=matcher.components,
        subcomponents=matcher.subcomponents,
        metrics=matcher.metrics,
    )
