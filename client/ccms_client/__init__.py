"""A typed client for the metric store; needs grpcio, protobuf and numpy, and nothing of the server."""

from ccms_client.client import MetricStoreClient
from ccms_client.errors import (
    ClientError,
    DeadlineError,
    InvalidRequestError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from ccms_client.model import (
    Component,
    Rejection,
    SampleColumn,
    Series,
    SeriesError,
    SeriesQuery,
    Statistics,
    WriteResult,
)

__all__ = [
    "ClientError",
    "Component",
    "DeadlineError",
    "InvalidRequestError",
    "MetricStoreClient",
    "Rejection",
    "SampleColumn",
    "Series",
    "SeriesError",
    "SeriesQuery",
    "ServerBusyError",
    "ServerError",
    "ServerUnavailableError",
    "Statistics",
    "WriteResult",
]
