"""Write requests as the messages they arrive in."""

import pytest

from ccms.v1.metric_store_service_pb2 import WriteRequest
from ccms.v1.sample_pb2 import Component, RegularTimes, SampleColumn, SeriesSelector
from ccms_server.errors import InvalidRequestError
from ccms_server.rpc.write import read_columns


def request(**components):
    selector = SeriesSelector(cluster="c", host="h", **components)
    column = SampleColumn(metric="load", selector=selector, regular_times=RegularTimes(start_seconds=60), values=[1.0])
    return WriteRequest(columns=[column])


@pytest.mark.parametrize(
    ("components", "names"),
    [
        ({}, ("", "")),
        ({"component": Component(type="node", id="0")}, ("", "")),
        ({"component": Component(type="socket", id="0")}, ("socket0", "")),
        (
            {"component": Component(type="socket", id="0"), "subcomponent": Component(type="node", id="7")},
            ("socket0", "node7"),
        ),
    ],
)
def test_only_a_component_can_be_the_host_itself(components, names):
    [column] = read_columns(request(**components).columns)
    assert (column.series.component, column.series.subcomponent) == names


@pytest.mark.parametrize("component", [Component(), Component(type="node")])
def test_a_subcomponent_needs_a_component(component):
    with pytest.raises(InvalidRequestError, match=r"subcomponent: needs a `component`"):
        read_columns(request(component=component, subcomponent=Component(type="node", id="7")).columns)
