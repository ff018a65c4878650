"""Calls for operators: what is held, how server and hosts are, and what is to be dropped."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ccms.v1 import admin_service_pb2 as admin_pb
from ccms_client.connection import Connection
from ccms_client.enums import enum_name
from ccms_client.keys import SeriesKey
from ccms_client.server_status import ServerStatus, server_status
from ccms_client.times import Time, whole_seconds


@dataclass(frozen=True, slots=True)
class SeriesExtent:
    """Where a series begins and ends."""

    key: SeriesKey
    start: int
    """Time at which the slot of the first sample begins, in seconds since the epoch."""
    slot_count: int
    """Slots from the first sample to the last one."""
    interval: int
    """Length of a slot, in seconds."""

    @property
    def end(self) -> int:
        """Time at which the slot of the last sample ends, in seconds since the epoch."""
        return self.start + self.slot_count * self.interval


@dataclass(frozen=True, slots=True)
class HostHealth:
    """Which metrics of a host arrive."""

    host: str
    state: str
    """`FULL`, `PARTIAL` or `FAILED`: whether all metrics asked for arrive, some, or none."""
    known: bool
    """Whether the host ever sent a sample; False: nothing else is meaningful."""
    degraded_metrics: list[str]
    """Metrics asked for of which at least one series ended more than five intervals ago."""
    missing_metrics: list[str]
    """Metrics asked for without any series."""
    series_count: int
    """Series of all metrics."""
    stale_series_count: int
    """Those of them that ended more than five intervals ago."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint left."""

    wal_bytes: int
    """Size of the WAL now."""
    block_count: int
    """Number of block files now."""


class AdminCalls:
    """Calls for operators."""

    _connection: Connection

    async def free(
        self, levels: Iterable[Sequence[str]], before: Time, *, deadline_seconds: float | None = None
    ) -> int:
        """Drops samples that are older than a time; samples of that age are refused from then on.

        Args:
            levels: Where, and below: each is cluster, host, component and sub-component, or the beginning of these. An
                empty one stands for everything; those that do not exist are passed over.
            before: Samples before this time are dropped: seconds since the epoch, or a datetime with a time zone.
            deadline_seconds: Time for the call; None: that of the client.

        Returns:
            Number of series that lost samples.

        Raises:
            PermissionDeniedError: An administrator's token is needed.
            ClientError: Nothing was dropped, or it is not known.

        >>> await client.free([["alex", "n1"], ["alex", "n2"]], before=1600000000)
        0
        """
        request = admin_pb.FreeRequest(levels=[_level(level) for level in levels], before_seconds=whole_seconds(before))
        response = await self._connection.call(self._connection.admin.Free, request, deadline_seconds)
        return response.freed_series

    async def dump(
        self, level: Sequence[str] = (), *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[SeriesExtent, None]:
        """Tells of each series where it begins and ends; see `free` for levels.

        Raises:
            NotFoundError: There is no such level.
            PermissionDeniedError: An administrator's token is needed.
            ClientError: It cannot be told.

        >>> async for extent in client.dump(["emmy", "e0102"]):
        ...     if extent.key.metric == "rapl_power":
        ...         print(extent.interval, extent.slot_count)
        60 1441
        """
        request = admin_pb.DumpRequest(level=_level(level) if level else None)
        responses = self._connection.stream(self._connection.admin.Dump, request, deadline_seconds)
        async with aclosing(responses):
            async for response in responses:
                for found in response.series:
                    key = SeriesKey(found.metric, *found.level.names)
                    yield SeriesExtent(key, found.start_seconds, found.slot_count, found.interval_seconds)

    async def host_health(
        self,
        cluster: str,
        hosts: Sequence[str] = (),
        metrics: Sequence[str] = (),
        *,
        deadline_seconds: float | None = None,
    ) -> list[HostHealth]:
        """Tells which of some metrics arrive.

        Args:
            cluster: Name of the cluster.
            hosts: Its hosts; empty: all.
            metrics: What should arrive; empty: only whether a host is known, and the numbers of its series, are told.
            deadline_seconds: Time for the call; None: that of the client.

        Returns:
            An entry for each host, in the order asked for.

        Raises:
            ClientError: It cannot be told.

        >>> [health] = await client.host_health("emmy", ["e9999"], ["rapl_power"])
        >>> health.known, health.state
        (False, 'FAILED')
        """
        for name, given in (("hosts", hosts), ("metrics", metrics)):
            if isinstance(given, str):
                raise TypeError(f"`{name}` is a list of names, not a single one: write [{given!r}]")
        request = admin_pb.GetHostHealthRequest(cluster=cluster, hosts=hosts, metrics=metrics)
        response = await self._connection.call(self._connection.admin.GetHostHealth, request, deadline_seconds)
        return [
            HostHealth(
                found.host,
                enum_name(admin_pb.MonitoringState, found.state, "MONITORING_STATE_"),
                found.known,
                list(found.degraded_metrics),
                list(found.missing_metrics),
                found.series_count,
                found.stale_series_count,
            )
            for found in response.hosts
        ]

    async def checkpoint(self, *, deadline_seconds: float | None = None) -> Checkpoint:
        """Has all that is stored now put into blocks, and the WAL cut: a faster start, a smaller backup.

        Raises:
            PermissionDeniedError: An administrator's token is needed.
            ClientError: It did not work, or it is not known.
        """
        response = await self._connection.call(
            self._connection.admin.Checkpoint, admin_pb.CheckpointRequest(), deadline_seconds
        )
        return Checkpoint(response.wal_bytes, response.block_count)

    async def status(self, *, deadline_seconds: float | None = None) -> ServerStatus:
        """Tells how the server is: what it holds, what came in, and what troubles it.

        Raises:
            ClientError: It cannot be told.

        >>> status = await client.status()
        >>> status.holdings.series_count > 0, status.disk
        (True, None)
        """
        response = await self._connection.call(
            self._connection.admin.GetStatus, admin_pb.GetStatusRequest(), deadline_seconds
        )
        return server_status(response)


def _level(names: Sequence[str]) -> admin_pb.LevelPath:
    if isinstance(names, str):
        raise TypeError(f"a level is a list of names, not a single one: write [{names!r}]")
    return admin_pb.LevelPath(names=names)
