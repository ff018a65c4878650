"""`ccms.v1.AdminService` over the store of this process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

from ccms.v1.admin_service_pb2 import (
    CheckpointRequest,
    CheckpointResponse,
    DiskStatus,
    DumpRequest,
    DumpResponse,
    FreeRequest,
    FreeResponse,
    GetHostHealthRequest,
    GetHostHealthResponse,
    GetStatusRequest,
    GetStatusResponse,
    Holdings,
    HostHealth,
    IngestStatus,
    LevelPath,
    MonitoringState,
    SeriesExtent,
)
from ccms.v1.admin_service_pb2_grpc import AdminServiceServicer
from ccms_server import model
from ccms_server.errors import InvalidRequestError, LimitExceededError
from ccms_server.freeing import DEPTH_MAX, distinct_levels, free_levels
from ccms_server.rpc.errors import Context
from ccms_server.rpc.write import rejected_counts
from ccms_server.service import MetricService
from ccms_server.status import ServerStatus

HOSTS_MAX: Final = 100_000
"""Hosts in one request, asked for by name or by their cluster."""
HEALTH_BYTES_MAX: Final = 32 << 20
"""Largest answer about hosts, each of which may name every metric."""
HEALTH_BYTES_PER_HOST: Final = 40
HEALTH_BYTES_PER_NAME: Final = 3
"""What they take in the answer beside their names, at most."""

_STATE: Final = {
    model.MonitoringState.FULL: MonitoringState.MONITORING_STATE_FULL,
    model.MonitoringState.PARTIAL: MonitoringState.MONITORING_STATE_PARTIAL,
    model.MonitoringState.FAILED: MonitoringState.MONITORING_STATE_FAILED,
}


class AdminServicer(AdminServiceServicer):
    """Translates between messages and the service; a cancelled call cancels the work it waits for."""

    def __init__(self, service: MetricService) -> None:
        """Makes it.

        Args:
            service: What is administered.
        """
        self._service = service

    async def Free(self, request: FreeRequest, context: Context) -> FreeResponse:  # noqa: N802  name of the contract
        """Drops samples that are older than a time."""
        if not request.levels:
            raise InvalidRequestError("levels", "is required; one empty level stands for everything")
        levels = distinct_levels([level.names for level in request.levels], "levels")
        freed = await free_levels(self._service.free, levels, request.before_seconds)
        return FreeResponse(freed_series=freed)

    async def Dump(  # noqa: N802  name of the contract
        self, request: DumpRequest, context: Context
    ) -> AsyncIterator[DumpResponse]:
        """Streams what is held."""
        if len(request.level.names) > DEPTH_MAX:
            names = len(request.level.names)
            raise InvalidRequestError("level", f"has {names} names: cluster, host, component, sub-component at most")
        async with aclosing(self._service.series_extents(tuple(request.level.names))) as chunks:
            async for extents in chunks:
                yield DumpResponse(series=map(_extent, extents))

    async def GetHostHealth(  # noqa: N802  name of the contract
        self, request: GetHostHealthRequest, context: Context
    ) -> GetHostHealthResponse:
        """Tells which metrics of hosts arrive."""
        if not request.cluster:
            raise InvalidRequestError("cluster", "is required")
        hosts = list(request.hosts) or self._service.store.hosts(request.cluster)
        metrics = list(dict.fromkeys(request.metrics))
        remedy = "ask for fewer at a time"
        if len(hosts) > HOSTS_MAX:
            raise LimitExceededError("hosts in one request", len(hosts), HOSTS_MAX, remedy)
        n_bytes = _health_bytes(hosts, metrics)
        if n_bytes > HEALTH_BYTES_MAX:
            raise LimitExceededError("bytes in the answer, at worst", n_bytes, HEALTH_BYTES_MAX, remedy)
        found = await self._service.host_health(request.cluster, hosts, metrics)
        return await asyncio.to_thread(_health_response, found)  # of 100,000 hosts, it takes 0.2 s

    async def Checkpoint(  # noqa: N802  name of the contract
        self, request: CheckpointRequest, context: Context
    ) -> CheckpointResponse:
        """Puts everything into blocks."""
        disk = await self._service.checkpoint()
        return (
            CheckpointResponse()
            if disk is None
            else CheckpointResponse(wal_bytes=disk.wal_bytes, block_count=disk.blocks)
        )

    async def GetStatus(  # noqa: N802  name of the contract
        self, request: GetStatusRequest, context: Context
    ) -> GetStatusResponse:
        """Tells how the server is."""
        return _status(await self._service.status())


def _extent(extent: model.SeriesExtent) -> SeriesExtent:
    return SeriesExtent(
        level=LevelPath(names=extent.path),
        metric=extent.metric,
        start_seconds=extent.start,
        slot_count=extent.n_slots,
        interval_seconds=extent.interval,
    )


def _health_bytes(hosts: Sequence[str], metrics: Sequence[str]) -> int:
    """Size of an answer in which every host names every metric."""
    per_host = HEALTH_BYTES_PER_HOST + sum(HEALTH_BYTES_PER_NAME + len(metric.encode()) for metric in metrics)
    return len(hosts) * per_host + sum(len(host.encode()) for host in hosts)


def _health_response(found: Sequence[model.HostHealth]) -> GetHostHealthResponse:
    return GetHostHealthResponse(hosts=map(_health, found))


def _health(health: model.HostHealth) -> HostHealth:
    return HostHealth(
        host=health.host,
        state=_STATE[health.state],
        known=health.known,
        degraded_metrics=health.degraded,
        missing_metrics=health.missing,
        series_count=health.n_series,
        stale_series_count=health.n_stale,
    )


def _status(status: ServerStatus) -> GetStatusResponse:
    size, counters, disk = status.size, status.counters, status.disk
    return GetStatusResponse(
        version=status.version,
        uptime_seconds=status.uptime_seconds,
        clock_seconds=status.clock,
        resident_bytes=status.resident_bytes,
        holdings=Holdings(
            series_count=size.series,
            series_max=status.series_max,
            open_sample_count=size.samples_open,
            sealed_sample_count=size.samples_sealed,
            open_tile_count=size.open_tiles,
            sealed_tile_count=size.sealed_tiles,
            sealed_bytes=size.sealed_bytes,
        ),
        ingest=IngestStatus(
            stored=counters.stored,
            ignored=counters.ignored,
            rejected=rejected_counts(counters.rejected),
            dropped_messages=counters.dropped,
            failed_batches=counters.failed,
            queued_bytes=status.queued_bytes,
            watch_count=status.watches,
            missed_samples=status.missed_samples,
        ),
        disk=None
        if disk is None
        else DiskStatus(
            directory=str(disk.directory),
            wal_bytes=disk.wal_bytes,
            wal_segment_count=disk.wal_segments,
            block_count=disk.blocks,
            damage_count=disk.damage,
            troubles=disk.troubles,
        ),
    )
