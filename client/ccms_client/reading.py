"""Calls that answer queries, and the live tail."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from ccms_client.connection import Connection
from ccms_client.keys import SeriesMatcher
from ccms_client.messages import assemble, parts_of_series, query_request
from ccms_client.query_result import QueryResult
from ccms_client.series import Series, SeriesPart, SeriesQuery
from ccms_client.times import Time
from ccms_client.watch import Watch


class ReadingCalls:
    """Calls that read samples."""

    _connection: Connection

    async def query(
        self,
        cluster: str,
        start: Time,
        end: Time,
        queries: Sequence[SeriesQuery] = (),
        *,
        all_hosts_metrics: Sequence[str] = (),
        with_values: bool = True,
        with_statistics: bool = True,
        deadline_seconds: float | None = None,
    ) -> QueryResult:
        """Reads series of one cluster, all into memory; see `stream` for the arguments and errors.

        >>> from ccms_client import queries_of
        >>> result = await client.query("emmy", 1608923076, 1608926676, queries_of(["rapl_power"], ["e0102"]))
        >>> result
        <QueryResult: 1 series, 60 values, 0 errors>
        >>> result[0].values[:3]
        array([150.17, 224.15, 225.8 ])
        """
        series = self.stream(
            cluster,
            start,
            end,
            queries,
            all_hosts_metrics=all_hosts_metrics,
            with_values=with_values,
            with_statistics=with_statistics,
            deadline_seconds=deadline_seconds,
        )
        return QueryResult([each async for each in series])

    async def stream(
        self,
        cluster: str,
        start: Time,
        end: Time,
        queries: Sequence[SeriesQuery] = (),
        *,
        all_hosts_metrics: Sequence[str] = (),
        with_values: bool = True,
        with_statistics: bool = True,
        deadline_seconds: float | None = None,
    ) -> AsyncGenerator[Series, None]:
        """Reads series of one cluster, one after another, in the order asked for.

        Args:
            cluster: Name of the cluster.
            start: Start of the range, inclusive: seconds since the epoch, or a datetime with a time zone.
            end: End of the range, exclusive.
            queries: The series asked for; `queries_of` makes them for many hosts and metrics.
            all_hosts_metrics: Metrics to read of every host of the cluster, behind `queries`.
            with_values: False: headers only.
            with_statistics: False: no statistics.
            deadline_seconds: Time for the call; None: that of the client.

        Yields:
            The series; one that cannot be answered has an `error`.

        Raises:
            ClientError: The request as a whole cannot be answered.
            ValueError: A datetime has no time zone.

        >>> async for series in client.stream("emmy", 1608923076, 1608926676, all_hosts_metrics=["rapl_power"]):
        ...     if series.statistics.max > 254:
        ...         print(series.host, series.statistics.max)
        e0433 254.32
        e0501 257.42
        """
        parts = self.stream_parts(
            cluster,
            start,
            end,
            queries,
            all_hosts_metrics=all_hosts_metrics,
            with_values=with_values,
            with_statistics=with_statistics,
            deadline_seconds=deadline_seconds,
        )
        async with aclosing(parts), aclosing(assemble(parts)) as assembled:
            async for series in assembled:
                yield series

    async def stream_parts(
        self,
        cluster: str,
        start: Time,
        end: Time,
        queries: Sequence[SeriesQuery] = (),
        *,
        all_hosts_metrics: Sequence[str] = (),
        with_values: bool = True,
        with_statistics: bool = True,
        deadline_seconds: float | None = None,
    ) -> AsyncGenerator[SeriesPart, None]:
        """Reads series part by part, in little memory however long they are; see `stream` for arguments and errors.

        Yields:
            Parts of at most 65,536 values. Those of a series follow each other, and the first has the offset 0.

        >>> async for part in client.stream_parts("emmy", 1608923076, 1609009476, all_hosts_metrics=["rapl_power"]):
        ...     if part.host == "e0102":
        ...         print(part.offset, part.values.size, part.value_count)
        0 1440 1440
        """
        request = query_request(
            cluster,
            start,
            end,
            queries,
            all_hosts_metrics=all_hosts_metrics,
            with_values=with_values,
            with_statistics=with_statistics,
        )
        responses = self._connection.stream(self._connection.store.Query, request, deadline_seconds)
        async with aclosing(responses), aclosing(parts_of_series(responses)) as parts:
            async for part in parts:
                yield part

    def watch(self, matcher: SeriesMatcher | None = None) -> Watch:
        """Follows samples as they are stored.

        Args:
            matcher: Series to watch, also those that appear later; None: all.

        Returns:
            An async context manager, which is entered when the watch has begun: what is stored from then on is seen. In
            it, iterate over the `WatchedSamples`. It ends with an error when the connection is lost.

        >>> from ccms_client import SeriesMatcher
        >>> async with client.watch(SeriesMatcher(metrics=["cpu_load"])) as watch:
        ...     result = await client.write_lines(b"cpu_load,cluster=alex,hostname=n3 value=0.5 1700000040")
        ...     samples = await anext(watch)
        >>> samples.series[0].host, samples.timestamps, samples.values
        ('n3', array([1700000040]), array([0.5]))
        """
        return Watch(self._connection, matcher)
