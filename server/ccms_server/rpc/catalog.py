"""`ccms.v1.CatalogService` over the store of this process."""

from typing import Final

from ccms.v1.catalog_service_pb2 import (
    Aggregation,
    ClusterEntry,
    ComponentEntry,
    HostEntry,
    ListClustersRequest,
    ListClustersResponse,
    ListComponentsRequest,
    ListComponentsResponse,
    ListHostsRequest,
    ListHostsResponse,
    ListMetricsRequest,
    ListMetricsResponse,
    ListSeriesRequest,
    ListSeriesResponse,
    MetricEntry,
    SampleSpan,
    SeriesEntry,
)
from ccms.v1.catalog_service_pb2_grpc import CatalogServiceServicer
from ccms_server import catalog
from ccms_server.catalog import LevelEntry, Page
from ccms_server.errors import InvalidRequestError
from ccms_server.model import SeriesName
from ccms_server.rpc.errors import Context
from ccms_server.rpc.matcher import read_matcher
from ccms_server.rpc.paging import page_token, read_page
from ccms_server.service import MetricService

_AGGREGATION: Final = {
    None: Aggregation.AGGREGATION_NONE,
    "sum": Aggregation.AGGREGATION_SUM,
    "avg": Aggregation.AGGREGATION_AVG,
}


class CatalogServicer(CatalogServiceServicer):
    """Translates between messages and the service; a cancelled call cancels the work it waits for."""

    def __init__(self, service: MetricService) -> None:
        """Makes it.

        Args:
            service: Knows what there is.
        """
        self._service = service

    async def ListClusters(  # noqa: N802  name of the contract
        self, request: ListClustersRequest, context: Context
    ) -> ListClustersResponse:
        """Lists clusters."""
        page = await self._levels(request, ())
        return ListClustersResponse(
            clusters=[
                ClusterEntry(name=entry.name, host_count=entry.n_children, samples=_span(entry.samples))
                for entry in page.entries
            ],
            next_page_token=_token_behind(request, page),
        )

    async def ListHosts(  # noqa: N802  name of the contract
        self, request: ListHostsRequest, context: Context
    ) -> ListHostsResponse:
        """Lists the hosts of a cluster."""
        _require("cluster", request.cluster)
        page = await self._levels(request, (request.cluster,))
        return ListHostsResponse(
            hosts=[
                HostEntry(name=entry.name, component_count=entry.n_children, samples=_span(entry.samples))
                for entry in page.entries
            ],
            next_page_token=_token_behind(request, page),
        )

    async def ListComponents(  # noqa: N802  name of the contract
        self, request: ListComponentsRequest, context: Context
    ) -> ListComponentsResponse:
        """Lists the components of a host, or the sub-components of a component."""
        _require("cluster", request.cluster)
        _require("host", request.host)
        component = (request.component,) if request.component else ()
        page = await self._levels(request, (request.cluster, request.host, *component))
        return ListComponentsResponse(
            components=[
                ComponentEntry(name=entry.name, subcomponent_count=entry.n_children, samples=_span(entry.samples))
                for entry in page.entries
            ],
            next_page_token=_token_behind(request, page),
        )

    async def ListMetrics(  # noqa: N802  name of the contract
        self, request: ListMetricsRequest, context: Context
    ) -> ListMetricsResponse:
        """Lists the metrics that are configured, or those of a cluster or host."""
        if request.host:
            _require("cluster", request.cluster)
        wanted = read_page(request, 1)
        path = tuple(name for name in (request.cluster, request.host) if name)
        page = await self._service.list_metrics(path, _name(wanted.after), wanted.size)
        return ListMetricsResponse(
            metrics=[
                MetricEntry(
                    name=entry.metric.name,
                    interval_seconds=entry.metric.interval,
                    aggregation=_AGGREGATION[entry.metric.aggregation],
                    unit=entry.metric.unit,
                    samples=_span(entry.samples),
                )
                for entry in page.entries
            ],
            next_page_token=page_token(request, [page.entries[-1].metric.name]) if page.has_more else "",
        )

    async def ListSeries(  # noqa: N802  name of the contract
        self, request: ListSeriesRequest, context: Context
    ) -> ListSeriesResponse:
        """Lists series that have samples."""
        wanted = read_page(request, len(SeriesName._fields))
        after = SeriesName(*wanted.after) if wanted.after else None
        page = await self._service.list_series(read_matcher(request.matcher), after, wanted.size)
        return ListSeriesResponse(
            series=[
                SeriesEntry(
                    cluster=entry.name.cluster,
                    host=entry.name.host,
                    component=entry.name.component,
                    subcomponent=entry.name.subcomponent,
                    metric=entry.name.metric,
                    interval_seconds=entry.interval,
                    first_sample_seconds=entry.first,
                    last_sample_seconds=entry.last,
                )
                for entry in page.entries
            ],
            next_page_token=page_token(request, page.entries[-1].name) if page.has_more else "",
        )

    async def _levels(
        self, request: ListClustersRequest | ListHostsRequest | ListComponentsRequest, path: tuple[str, ...]
    ) -> Page[LevelEntry]:
        """The page of levels below one that a request asks for."""
        wanted = read_page(request, 1)
        return await self._service.list_levels(
            path, _name(wanted.after), wanted.size, with_samples=request.with_samples
        )


def _token_behind(
    request: ListClustersRequest | ListHostsRequest | ListComponentsRequest, page: Page[LevelEntry]
) -> str:
    return page_token(request, [page.entries[-1].name]) if page.has_more else ""


def _name(after: tuple[str, ...]) -> str:
    """The only name of an entry; empty for none."""
    return after[0] if after else ""


def _span(samples: catalog.SampleSpan | None) -> SampleSpan | None:
    if samples is None:
        return None
    return SampleSpan(
        series_count=samples.n_series, first_sample_seconds=samples.first, last_sample_seconds=samples.last
    )


def _require(field: str, value: str) -> None:
    if not value:
        raise InvalidRequestError(field, "is required")
