"""Which exception of the client a failed call becomes."""

import pytest
from grpc import StatusCode, aio

from ccms_client import InvalidRequestError, PermissionDeniedError, ServerBusyError, UnauthenticatedError
from ccms_client.errors import client_error


def failure(details="", **trailing):
    metadata = aio.Metadata(*((name.replace("_", "-"), value) for name, value in trailing.items()))
    return aio.AioRpcError(StatusCode.RESOURCE_EXHAUSTED, aio.Metadata(), metadata, details)


@pytest.mark.parametrize("direction", ["Sent", "SERVER: Received", "CLIENT: Received"])
def test_a_message_too_large_for_grpc_has_to_be_mended(direction):
    error = client_error(failure(f"{direction} message larger than max (200 vs. 100)"))
    assert type(error) is InvalidRequestError


def test_other_exhaustion_is_a_busy_server():
    assert type(client_error(failure("Concurrent RPC limit exceeded!"))) is ServerBusyError


@pytest.mark.parametrize(
    ("pushback", "seconds"), [("1500", 1.5), ("-1", None), ("soon", None), ("", None), ("1.5", None)]
)
def test_the_time_to_come_back(pushback, seconds):
    assert client_error(failure(grpc_retry_pushback_ms=pushback)).retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (StatusCode.UNAUTHENTICATED, UnauthenticatedError),
        (StatusCode.PERMISSION_DENIED, PermissionDeniedError),
    ],
)
def test_what_the_caller_can_do_is_told_by_the_class(status, error_class):
    error = client_error(aio.AioRpcError(status, aio.Metadata(), aio.Metadata(), "the reason"))
    assert type(error) is error_class
    assert str(error) == f"{status.name}: the reason"
