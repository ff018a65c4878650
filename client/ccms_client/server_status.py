"""How a server is. The fields are those of the contract, which describes them as well."""

from collections.abc import Sequence
from dataclasses import dataclass

from ccms.v1 import admin_service_pb2 as admin_pb
from ccms.v1.sample_pb2 import RejectReason
from ccms_client.enums import enum_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What the store holds."""

    series_count: int
    """Series there have been."""
    series_max: int
    """Series there may be."""
    open_sample_count: int
    """Samples in windows that are being written."""
    sealed_sample_count: int
    """Samples in sealed windows, in memory or in blocks."""
    open_tile_count: int
    """Tiles that are being written, 256 slots of 64 series each."""
    sealed_tile_count: int
    """Compressed tiles."""
    sealed_bytes: int
    """Size of the compressed tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestStatus:
    """What came in since the start."""

    stored: int
    """Samples stored."""
    ignored: int
    """Lines of metrics that are not configured, and NaN values."""
    rejected: dict[str, int]
    """Samples not stored, by reason; see `Rejection.reason`."""
    dropped_messages: int
    """Messages of subscriptions that were lost because the server was behind."""
    failed_batches: int
    """Batches that were lost because the server or its disk failed."""
    queued_bytes: int
    """Size of the batches that wait to be written."""
    watch_count: int
    """Watches that are open."""
    missed_samples: int
    """Samples that open and closed watches have missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskStatus:
    """What is on disk."""

    directory: str
    wal_bytes: int
    """Size of the WAL."""
    wal_segment_count: int
    """Number of its segments."""
    block_count: int
    """Number of block files."""
    damage_count: int
    """Damaged places that were found since the start."""
    troubles: Sequence[str]
    """What the disk refuses at the moment, and why: one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """How a server is."""

    version: str
    """Its release."""
    uptime_seconds: float
    """Time since the start of the process."""
    clock: int
    """Its clock, in seconds since the epoch."""
    resident_bytes: int
    """Resident memory of the process; 0 if it cannot be told."""
    holdings: Holdings
    ingest: IngestStatus
    disk: DiskStatus | None
    """None: the server keeps samples in memory only."""


def server_status(response: admin_pb.GetStatusResponse) -> ServerStatus:
    """Reads the message."""
    held, came_in, disk = response.holdings, response.ingest, response.disk
    return ServerStatus(
        version=response.version,
        uptime_seconds=response.uptime_seconds,
        clock=response.clock_seconds,
        resident_bytes=response.resident_bytes,
        holdings=Holdings(
            series_count=held.series_count,
            series_max=held.series_max,
            open_sample_count=held.open_sample_count,
            sealed_sample_count=held.sealed_sample_count,
            open_tile_count=held.open_tile_count,
            sealed_tile_count=held.sealed_tile_count,
            sealed_bytes=held.sealed_bytes,
        ),
        ingest=IngestStatus(
            stored=came_in.stored,
            ignored=came_in.ignored,
            rejected={
                enum_name(RejectReason, counted.reason, "REJECT_REASON_"): counted.count for counted in came_in.rejected
            },
            dropped_messages=came_in.dropped_messages,
            failed_batches=came_in.failed_batches,
            queued_bytes=came_in.queued_bytes,
            watch_count=came_in.watch_count,
            missed_samples=came_in.missed_samples,
        ),
        disk=DiskStatus(
            directory=disk.directory,
            wal_bytes=disk.wal_bytes,
            wal_segment_count=disk.wal_segment_count,
            block_count=disk.block_count,
            damage_count=disk.damage_count,
            troubles=list(disk.troubles),
        )
        if response.HasField("disk")
        else None,
    )
