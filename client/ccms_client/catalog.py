"""Calls that list what there is, page by page behind the scenes."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from grpc import aio

from ccms.v1 import catalog_service_pb2 as catalog_pb
from ccms_client.connection import Connection
from ccms_client.enums import enum_name
from ccms_client.keys import SeriesKey, SeriesMatcher, matcher_message

PAGE_SIZE: Final = 1000
"""Entries asked for at a time: the most there can be."""


@dataclass(frozen=True, slots=True)
class SampleSpan:
    """When the samples of one or more series were taken."""

    series_count: int
    """Series that have samples."""
    first_sample: int
    """Time of the first sample of them all, in seconds since the epoch; 0 without series."""
    last_sample: int
    """Time of the last sample of them all, in seconds since the epoch; 0 without series."""


@dataclass(frozen=True, slots=True)
class ClusterEntry:
    """A cluster that ever had a sample."""

    name: str
    host_count: int
    samples: SampleSpan | None
    """Of all that lies below it; None if not asked for."""


@dataclass(frozen=True, slots=True)
class HostEntry:
    """A host that ever had a sample."""

    name: str
    component_count: int
    samples: SampleSpan | None
    """Of all that lies below it; None if not asked for."""


@dataclass(frozen=True, slots=True)
class ComponentEntry:
    """A component, or a sub-component."""

    name: str
    """Type and id run together: `hwthread3`."""
    subcomponent_count: int
    samples: SampleSpan | None
    """Of all that lies below it; None if not asked for."""


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """A metric that is configured."""

    name: str
    interval: int
    """Spacing of its samples, in seconds."""
    aggregation: str
    """`SUM`, `AVG` or `NONE`: how one series is made of several."""
    unit: str
    """Unit of its values, as configured; empty: none is."""
    samples: SampleSpan | None
    """Of its series in the cluster or host that was asked for; None if none was."""


@dataclass(frozen=True, slots=True)
class SeriesEntry:
    """A series that has samples."""

    key: SeriesKey
    interval: int
    """Spacing of its samples, in seconds."""
    first_sample: int
    """Time of its first sample, in seconds since the epoch."""
    last_sample: int
    """Time of its last sample, in seconds since the epoch."""


class CatalogCalls:
    """Calls that list what there is, in the order of names.

    Each entry is asked for with its page, 1,000 at a time; `deadline_seconds` is for a page.
    """

    _connection: Connection

    async def clusters(
        self, *, with_samples: bool = False, deadline_seconds: float | None = None
    ) -> AsyncGenerator[ClusterEntry, None]:
        """Lists the clusters that ever had a sample.

        Args:
            with_samples: Whether to say what samples there are of each.
            deadline_seconds: Time for a page; None: that of the client.

        Raises:
            ClientError: They cannot be listed.

        >>> [cluster.name async for cluster in client.clusters()]
        ['alex', 'emmy']
        """
        request = catalog_pb.ListClustersRequest(page_size=PAGE_SIZE, with_samples=with_samples)
        async for page in self._pages(self._connection.catalog.ListClusters, request, deadline_seconds):
            for entry in page.clusters:
                samples = _span(entry.samples) if entry.HasField("samples") else None
                yield ClusterEntry(entry.name, entry.host_count, samples)

    async def hosts(
        self, cluster: str, *, with_samples: bool = False, deadline_seconds: float | None = None
    ) -> AsyncGenerator[HostEntry, None]:
        """Lists the hosts of a cluster; see `clusters`.

        Raises:
            NotFoundError: There is no such cluster.
            ClientError: They cannot be listed.

        >>> [host.name async for host in client.hosts("emmy")][:3]
        ['e0102', 'e0103', 'e0105']
        """
        request = catalog_pb.ListHostsRequest(cluster=cluster, page_size=PAGE_SIZE, with_samples=with_samples)
        async for page in self._pages(self._connection.catalog.ListHosts, request, deadline_seconds):
            for entry in page.hosts:
                samples = _span(entry.samples) if entry.HasField("samples") else None
                yield HostEntry(entry.name, entry.component_count, samples)

    async def components(
        self,
        cluster: str,
        host: str,
        component: str = "",
        *,
        with_samples: bool = False,
        deadline_seconds: float | None = None,
    ) -> AsyncGenerator[ComponentEntry, None]:
        """Lists the components of a host, or the sub-components of a component (`socket0`); see `clusters`.

        Raises:
            NotFoundError: There is no such host or component.
            ClientError: They cannot be listed.
        """
        request = catalog_pb.ListComponentsRequest(
            cluster=cluster, host=host, component=component, page_size=PAGE_SIZE, with_samples=with_samples
        )
        async for page in self._pages(self._connection.catalog.ListComponents, request, deadline_seconds):
            for entry in page.components:
                samples = _span(entry.samples) if entry.HasField("samples") else None
                yield ComponentEntry(entry.name, entry.subcomponent_count, samples)

    async def metrics(
        self, cluster: str = "", host: str = "", *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[MetricEntry, None]:
        """Lists the metrics that are configured, or those that a cluster or host has samples of; see `clusters`.

        Raises:
            NotFoundError: There is no such cluster or host.
            ClientError: They cannot be listed.

        >>> [metric.name async for metric in client.metrics("emmy", "e0102")][:3]
        ['clock', 'cpu_load', 'flops_any']
        """
        request = catalog_pb.ListMetricsRequest(cluster=cluster, host=host, page_size=PAGE_SIZE)
        async for page in self._pages(self._connection.catalog.ListMetrics, request, deadline_seconds):
            for entry in page.metrics:
                samples = _span(entry.samples) if entry.HasField("samples") else None
                aggregation = enum_name(catalog_pb.Aggregation, entry.aggregation, "AGGREGATION_")
                yield MetricEntry(entry.name, entry.interval_seconds, aggregation, entry.unit, samples)

    async def series(
        self, matcher: SeriesMatcher | None = None, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[SeriesEntry, None]:
        """Lists series that have samples, by cluster, host, component, sub-component and metric; see `clusters`.

        Args:
            matcher: Which ones; None: all.
            deadline_seconds: Time for a page; None: that of the client.

        Raises:
            ClientError: They cannot be listed.

        >>> from ccms_client import SeriesMatcher
        >>> matcher = SeriesMatcher(hosts=["e01*"], metrics=["rapl_power"])
        >>> [entry.key.host async for entry in client.series(matcher)][:2]
        ['e0102', 'e0103']
        """
        request = catalog_pb.ListSeriesRequest(matcher=matcher_message(matcher), page_size=PAGE_SIZE)
        async for page in self._pages(self._connection.catalog.ListSeries, request, deadline_seconds):
            for entry in page.series:
                key = SeriesKey(entry.metric, entry.cluster, entry.host, entry.component, entry.subcomponent)
                yield SeriesEntry(key, entry.interval_seconds, entry.first_sample_seconds, entry.last_sample_seconds)

    async def _pages(
        self,
        method: "aio.UnaryUnaryMultiCallable[_PageRequest, _Page]",
        request: "_PageRequest",
        deadline_seconds: float | None,
    ) -> "AsyncGenerator[_Page, None]":
        while True:
            page = await self._connection.call(method, request, deadline_seconds)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


class _PageRequestLike(Protocol):
    page_token: str


class _PageLike(Protocol):
    @property
    def next_page_token(self) -> str: ...


_PageRequest = TypeVar("_PageRequest", bound=_PageRequestLike)
_Page = TypeVar("_Page", bound=_PageLike)


def _span(samples: catalog_pb.SampleSpan) -> SampleSpan:
    return SampleSpan(samples.series_count, samples.first_sample_seconds, samples.last_sample_seconds)
