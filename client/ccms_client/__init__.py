"""A typed client for the metric store; needs grpcio, protobuf and numpy, and nothing of the server."""

from ccms_client.admin import Checkpoint, HostHealth, SeriesExtent
from ccms_client.catalog import ClusterEntry, ComponentEntry, HostEntry, MetricEntry, SampleSpan, SeriesEntry
from ccms_client.client import AsyncClient
from ccms_client.errors import (
    ClientError,
    DeadlineError,
    FieldViolation,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    SeriesUnansweredError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
    StreamBrokenError,
    TokenFileError,
    UnauthenticatedError,
)
from ccms_client.keys import Component, SeriesKey, SeriesMatcher
from ccms_client.query_result import QueryResult
from ccms_client.samples import BatchResult, Rejection, Sample, SampleColumn, WriteResult
from ccms_client.series import Series, SeriesError, SeriesPart, SeriesQuery, Statistics, queries_of
from ccms_client.server_status import DiskStatus, Holdings, IngestStatus, ServerStatus
from ccms_client.stream_writer import StreamWriter
from ccms_client.sync_client import BlockingStreamWriter, BlockingWatch, Client
from ccms_client.times import Time, Times
from ccms_client.tls import Tls
from ccms_client.watch import Watch, WatchedSamples

__all__ = [
    "AsyncClient",
    "BatchResult",
    "BlockingStreamWriter",
    "BlockingWatch",
    "Checkpoint",
    "Client",
    "ClientError",
    "ClusterEntry",
    "Component",
    "ComponentEntry",
    "DeadlineError",
    "DiskStatus",
    "FieldViolation",
    "Holdings",
    "HostEntry",
    "HostHealth",
    "IngestStatus",
    "InvalidRequestError",
    "MetricEntry",
    "NotFoundError",
    "PermissionDeniedError",
    "QueryResult",
    "Rejection",
    "Sample",
    "SampleColumn",
    "SampleSpan",
    "Series",
    "SeriesEntry",
    "SeriesError",
    "SeriesExtent",
    "SeriesKey",
    "SeriesMatcher",
    "SeriesPart",
    "SeriesQuery",
    "SeriesUnansweredError",
    "ServerBusyError",
    "ServerError",
    "ServerStatus",
    "ServerUnavailableError",
    "Statistics",
    "StreamBrokenError",
    "StreamWriter",
    "Time",
    "Times",
    "Tls",
    "TokenFileError",
    "UnauthenticatedError",
    "Watch",
    "WatchedSamples",
    "WriteResult",
    "queries_of",
]
