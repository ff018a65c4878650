"""What type checkers make of a program that uses the client; checked by `make lint`, never run."""

from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from ccms_client import (
    AsyncClient,
    BlockingStreamWriter,
    Client,
    HostEntry,
    QueryResult,
    Sample,
    SampleColumn,
    Series,
    SeriesKey,
    SeriesMatcher,
    SeriesPart,
    SeriesQuery,
    StreamWriter,
    WatchedSamples,
    WriteResult,
    queries_of,
)

KEY = SeriesKey("cpu_load", "alex", "n1")
COLUMN = SampleColumn(metric="cpu_load", cluster="alex", host="n1", start=0, values=np.zeros(3))


async def asynchronous(client: AsyncClient) -> None:
    """Every kind of call of the asyncio client."""
    assert_type(await client.write([COLUMN], deadline_seconds=1), WriteResult)
    assert_type(await client.query("alex", 0, datetime.now(UTC), queries_of(["cpu_load"], ["n1"])), QueryResult)
    assert_type(client.stream("alex", 0, 1.5), AsyncGenerator[Series, None])
    async for part in client.stream_parts("alex", 0, 60, [SeriesQuery(metric="cpu_load", host="n1")]):
        assert_type(part, SeriesPart)
        assert_type(part.timestamps, NDArray[np.int64])
    async for host in client.hosts("alex"):
        assert_type(host, HostEntry)
    async with client.writer() as writer:
        assert_type(writer, StreamWriter)
        assert_type(writer.define([KEY]), NDArray[np.uint32])
        await writer.write(KEY, 1_700_000_000, 1.0)
        await writer.write([KEY, KEY], np.arange(2), [1.0, 2.0])
        await writer.write_all([Sample(KEY, 1_700_000_000, 1.0)])
    async with client.watch(SeriesMatcher(metrics=["cpu_*"])) as watch:
        async for samples in watch:
            assert_type(samples, WatchedSamples)
            assert_type(samples.series, list[SeriesKey])


def synchronous(client: Client) -> None:
    """The same calls wait here, with the same arguments."""
    assert_type(client.write([COLUMN], deadline_seconds=1), WriteResult)
    assert_type(client.query("alex", 0, datetime.now(UTC), queries_of(["cpu_load"], ["n1"])), QueryResult)
    assert_type(client.stream("alex", 0, 1.5), Generator[Series, None, None])
    for host in client.hosts("alex", with_samples=True):
        assert_type(host, HostEntry)
    with client.writer(batch_samples=100) as writer:
        assert_type(writer, BlockingStreamWriter)
        assert_type(writer.define([KEY]), NDArray[np.uint32])
        writer.write(KEY, 1_700_000_000, 1.0)
    with client.watch() as watch:
        assert_type(next(watch), WatchedSamples)


def mistaken(client: Client) -> None:
    """What is wrong is noticed: an `ignore` that ignores nothing is an error."""
    client.query("alex")  # type: ignore[call-arg]
    client.query("alex", 0, "now")  # type: ignore[arg-type]
    client.write([COLUMN], deadline=1)  # type: ignore[call-arg]
    Client("localhost:8083", tokens="")  # type: ignore[call-arg]
    for host in client.hosts("alex"):
        host.nmae  # type: ignore[attr-defined]  # noqa: B018
