"""A typed client for the metric store; needs grpcio, protobuf and numpy, and nothing of the server."""

from ccms_client.client import AsyncClient
from ccms_client.errors import (
    ClientError,
    DeadlineError,
    InvalidRequestError,
    PermissionDeniedError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
    UnauthenticatedError,
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
from ccms_client.tls import Tls

__all__ = [
    "AsyncClient",
    "ClientError",
    "Component",
    "DeadlineError",
    "InvalidRequestError",
    "PermissionDeniedError",
    "Rejection",
    "SampleColumn",
    "Series",
    "SeriesError",
    "SeriesQuery",
    "ServerBusyError",
    "ServerError",
    "ServerUnavailableError",
    "Statistics",
    "Tls",
    "UnauthenticatedError",
    "WriteResult",
]
