"""Parts of series become series, or an error when they do not fit together."""

import numpy as np
import pytest

from ccms.v1.metric_store_service_pb2 import QueryResponse, SeriesError, SeriesHeader
from ccms_client import ServerError
from ccms_client.messages import assemble, parts_of_series


def part(offset, values, value_count=None, **header):
    return QueryResponse(
        header=SeriesHeader(value_count=value_count, **header) if value_count is not None else None,
        offset=offset,
        values=values,
    )


async def assembled(*parts):
    async def stream():
        for each in parts:
            yield each

    return [series async for series in assemble(parts_of_series(stream()))]


async def test_parts_are_put_together():
    first, second = await assembled(part(0, [1.0, 2.0], 3), part(2, [3.0]), part(0, [], 0, metric="other"))
    np.testing.assert_array_equal(first.values, [1.0, 2.0, 3.0])
    assert (second.metric, second.values.size) == ("other", 0)


async def test_series_do_not_share_their_values():
    first, second = await assembled(part(0, [1.0], 1), part(0, [2.0], 1))
    first.values[0] = 5.0
    assert second.values.tolist() == [2.0]


@pytest.mark.parametrize(
    "parts",
    [
        [part(0, [1.0])],
        [part(1, [1.0], 2)],
        [part(0, [1.0], 3), part(2, [3.0])],
        [part(0, [1.0, 2.0], 1)],
        [part(0, [1.0], 2)],
        [part(0, [1.0], 2), part(0, [1.0], 1)],
        [part(0, [1.0], 1), part(1, [2.0])],
    ],
)
async def test_parts_that_do_not_fit_together_are_an_error(parts):
    with pytest.raises(ServerError):
        await assembled(*parts)


async def test_a_reason_that_a_newer_server_gives_is_kept_as_its_number():
    [series] = await assembled(part(0, [], 0, error=SeriesError(reason=999, message="new")))
    assert (series.error.reason, series.error.message) == ("999", "new")
