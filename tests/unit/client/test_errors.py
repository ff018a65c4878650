"""Which exception of the client a failed call becomes, and what it knows."""

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio

from ccms_client import (
    FieldViolation,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
    UnauthenticatedError,
)
from ccms_client.errors import client_error


def failure(details="", code=StatusCode.RESOURCE_EXHAUSTED, **trailing):
    metadata = aio.Metadata(*((name.replace("_", "-"), value) for name, value in trailing.items()))
    return aio.AioRpcError(code, aio.Metadata(), metadata, details)


def status(*details):
    packed = [Any() for _ in details]
    for each, detail in zip(packed, details, strict=True):
        each.Pack(detail)
    return Status(details=packed).SerializeToString()


@pytest.mark.parametrize("direction", ["Sent", "SERVER: Received", "CLIENT: Received"])
def test_a_message_too_large_for_grpc_has_to_be_mended(direction):
    error = client_error(failure(f"{direction} message larger than max (200 vs. 100)"))
    assert type(error) is InvalidRequestError


def test_other_exhaustion_is_a_busy_server():
    assert type(client_error(failure("Concurrent RPC limit exceeded!"))) is ServerBusyError


def test_a_connection_that_breaks_off_is_a_server_out_of_reach():
    error = client_error(failure("Internal error from Core", StatusCode.INTERNAL))
    assert type(error) is ServerUnavailableError


@pytest.mark.parametrize(
    ("pushback", "seconds"), [("1500", 1.5), ("-1", None), ("soon", None), ("", None), ("1.5", None)]
)
def test_the_time_to_come_back(pushback, seconds):
    assert client_error(failure(grpc_retry_pushback_ms=pushback)).retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (StatusCode.NOT_FOUND, NotFoundError),
        (StatusCode.UNAUTHENTICATED, UnauthenticatedError),
        (StatusCode.PERMISSION_DENIED, PermissionDeniedError),
        (StatusCode.UNIMPLEMENTED, ServerError),
        (StatusCode.INTERNAL, ServerError),
    ],
)
def test_what_the_caller_can_do_is_told_by_the_class(status, error_class):
    error = client_error(aio.AioRpcError(status, aio.Metadata(), aio.Metadata(), "the reason"))
    assert type(error) is error_class
    assert (str(error), error.code) == (f"{status.name}: the reason", status)
    assert (error.reason, error.metadata, error.field_violations) == ("", {}, [])


def test_details_become_attributes():
    details = status(
        ErrorInfo(reason="LIMIT_EXCEEDED", domain="ccms.v1", metadata={"what": "columns", "limit": "10"}),
        BadRequest(field_violations=[BadRequest.FieldViolation(field="columns[3].times", description="is required")]),
        RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
        Duration(seconds=7),
    )
    error = client_error(failure(grpc_status_details_bin=details))
    assert error.reason == "LIMIT_EXCEEDED"
    assert error.metadata == {"what": "columns", "limit": "10"}
    assert error.field_violations == [FieldViolation("columns[3].times", "is required")]
    assert error.retry_after_seconds == 2.5


def test_details_that_cannot_be_read_do_not_hide_the_error(caplog):
    error = client_error(failure("the reason", grpc_status_details_bin=b"\xff"))
    assert (type(error), str(error)) == (ServerBusyError, "RESOURCE_EXHAUSTED: the reason")
    assert "cannot be read" in caplog.text
