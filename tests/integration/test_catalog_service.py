"""`CatalogService` over real sockets, through the client and page by page."""

import pytest
from grpc import StatusCode, aio
from helpers.server import server_inside

from ccms.v1 import catalog_service_pb2 as catalog_pb
from ccms.v1.catalog_service_pb2_grpc import CatalogServiceStub
from ccms.v1.sample_pb2 import SeriesMatcher as MatcherMessage
from ccms_client import NotFoundError, SeriesMatcher

START = 1_700_000_040
METRICS = {
    "load": {"frequency": 60},
    "flops": {"frequency": 10, "aggregation": "sum", "unit": "F/s"},
    "clock": {"frequency": 60, "aggregation": "avg", "unit": "Hz"},
}
LINES = "".join(
    f"{metric},cluster={cluster},hostname={host}{place} value=1 {START + 60 * minute}\n"
    for cluster, host, metric, place, minutes in (
        ("beta", "x1", "load", "", (0,)),
        ("alpha", "n2", "load", "", (1, 9)),
        ("alpha", "n1", "flops", ",type=socket,type-id=1", (2,)),
        ("alpha", "n1", "flops", ",type=socket,type-id=0", (3,)),
        ("alpha", "n1", "clock", ",type=socket,type-id=0,stype=core,stype-id=4", (4,)),
    )
    for minute in minutes
)


@pytest.fixture
async def server():
    async with server_inside(metrics=METRICS) as running:
        assert not (await running.grpc.write_lines(LINES.encode())).rejected
        yield running


@pytest.fixture
async def stub(server):
    async with aio.insecure_channel(server.grpc_address) as channel:
        yield CatalogServiceStub(channel)


async def listed(entries):
    return [entry async for entry in entries]


def span(entry):
    return entry.samples and (
        entry.samples.series_count,
        entry.samples.first_sample - START,
        entry.samples.last_sample - START,
    )


async def test_levels_come_in_order_of_names_with_what_lies_below_them(server):
    clusters = await listed(server.grpc.clusters(with_samples=True))
    assert [(each.name, each.host_count, span(each)) for each in clusters] == [
        ("alpha", 2, (4, 60, 540)),
        ("beta", 1, (1, 0, 0)),
    ]
    hosts = await listed(server.grpc.hosts("alpha", with_samples=True))
    assert [(each.name, each.component_count, span(each)) for each in hosts] == [
        ("n1", 2, (3, 120, 240)),
        ("n2", 0, (1, 60, 540)),
    ]
    assert [span(each) for each in await listed(server.grpc.hosts("alpha"))] == [None, None]
    sockets = await listed(server.grpc.components("alpha", "n1"))
    assert [(each.name, each.subcomponent_count) for each in sockets] == [("socket0", 1), ("socket1", 0)]
    assert [each.name for each in await listed(server.grpc.components("alpha", "n1", "socket0"))] == ["core4"]


async def test_metrics_are_those_configured_or_those_of_a_cluster_or_host(server):
    configured = await listed(server.grpc.metrics())
    assert [(each.name, each.interval, each.aggregation, each.unit, each.samples) for each in configured] == [
        ("clock", 60, "AVG", "Hz", None),
        ("flops", 10, "SUM", "F/s", None),
        ("load", 60, "NONE", "", None),
    ]
    assert [(each.name, span(each)) for each in await listed(server.grpc.metrics("alpha"))] == [
        ("clock", (1, 240, 240)),
        ("flops", (2, 120, 180)),
        ("load", (1, 60, 540)),
    ]
    assert [each.name for each in await listed(server.grpc.metrics("alpha", "n2"))] == ["load"]


async def test_series_are_selected_by_patterns(server):
    found = await listed(server.grpc.series(SeriesMatcher(clusters=["alpha"], components=["socket*"])))
    assert [(each.key.component, each.key.subcomponent, each.key.metric, each.interval) for each in found] == [
        ("socket0", "", "flops", 10),
        ("socket0", "core4", "clock", 60),
        ("socket1", "", "flops", 10),
    ]
    [load] = await listed(server.grpc.series(SeriesMatcher(hosts=["n?"], metrics=["load"])))
    assert (load.first_sample, load.last_sample) == (START + 60, START + 540)
    assert len(await listed(server.grpc.series())) == 5


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_pages_put_together_are_the_whole_list(stub, size):
    names, token = [], ""
    while True:
        page = await stub.ListSeries(catalog_pb.ListSeriesRequest(page_size=size, page_token=token))
        assert len(page.series) <= size
        names += [(each.cluster, each.host, each.component, each.subcomponent, each.metric) for each in page.series]
        token = page.next_page_token
        if not token:
            break
        assert len(page.series) == size
    assert names == sorted(names)
    assert len(names) == 5


async def test_what_does_not_exist_is_not_found(server):
    for entries in (
        server.grpc.hosts("gamma"),
        server.grpc.components("alpha", "n3"),
        server.grpc.components("alpha", "n1", "socket7"),
        server.grpc.metrics("gamma"),
        server.grpc.metrics("alpha", "n3"),
    ):
        with pytest.raises(NotFoundError, match="nothing of that name") as raised:
            await listed(entries)
        assert raised.value.reason == "NOT_FOUND"
    assert await listed(server.grpc.series(SeriesMatcher(clusters=["gamma"]))) == []


async def test_a_name_that_is_far_too_long_is_told_in_part(stub):
    for name in ("x" * 1_000_000, "ü" * 100_000):
        with pytest.raises(aio.AioRpcError) as raised:
            await stub.ListHosts(catalog_pb.ListHostsRequest(cluster=name))
        assert raised.value.code() is StatusCode.NOT_FOUND
        assert raised.value.details().endswith(f"{name[:10]} ...")
        assert len(raised.value.details().encode()) <= 1024


async def refused(call):
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is StatusCode.INVALID_ARGUMENT
    return raised.value.details()


async def test_a_token_belongs_to_its_request(stub):
    first = await stub.ListHosts(catalog_pb.ListHostsRequest(cluster="alpha", page_size=1))
    token = first.next_page_token
    again = await stub.ListHosts(catalog_pb.ListHostsRequest(cluster="alpha", page_size=5, page_token=token))
    assert [host.name for host in again.hosts] == ["n2"]
    for request in (
        catalog_pb.ListHostsRequest(cluster="beta", page_token=token),
        catalog_pb.ListHostsRequest(cluster="alpha", with_samples=True, page_token=token),
        catalog_pb.ListHostsRequest(cluster="alpha", page_token="nonsense"),
        catalog_pb.ListHostsRequest(cluster="alpha", page_token=token[1:]),
    ):
        assert (await refused(stub.ListHosts(request))).startswith("page_token: ")
    assert "page_token" in await refused(stub.ListSeries(catalog_pb.ListSeriesRequest(page_token=token)))


async def test_requests_that_break_a_rule_name_the_field(stub):
    assert (await refused(stub.ListHosts(catalog_pb.ListHostsRequest()))).startswith("cluster: ")
    assert (await refused(stub.ListComponents(catalog_pb.ListComponentsRequest(cluster="c")))).startswith("host: ")
    assert (await refused(stub.ListMetrics(catalog_pb.ListMetricsRequest(host="n1")))).startswith("cluster: ")
    assert (await refused(stub.ListClusters(catalog_pb.ListClustersRequest(page_size=1001)))).startswith("page_size: ")
    many = MatcherMessage(hosts=[f"n{number}" for number in range(1025)])
    assert "1,025 exceed the limit of 1,024" in await refused(
        stub.ListSeries(catalog_pb.ListSeriesRequest(matcher=many))
    )
