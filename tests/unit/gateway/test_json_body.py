"""Decoding bodies: where it happens, and what its errors become."""

import threading

import msgspec
import pytest

from ccms_gateway.json_body import INLINE_BYTES_MAX, decode_body
from ccms_server.errors import InvalidRequestError, LimitExceededError

SIZES = pytest.mark.parametrize("size", [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 1 << 20])


@SIZES
async def test_long_bodies_are_decoded_on_a_thread(size):
    thread, decoded = await decode_body(lambda body: (threading.current_thread(), body), bytes(size))
    assert decoded == bytes(size)
    assert (thread is threading.current_thread()) == (size <= INLINE_BYTES_MAX)


@SIZES
@pytest.mark.parametrize(
    "error",
    [
        msgspec.DecodeError("why"),
        msgspec.ValidationError("why"),
        RecursionError("why"),
        UnicodeDecodeError("utf-8", b"", 0, 1, "why"),
    ],
)
async def test_what_is_wrong_with_a_body_is_told(size, error):
    with pytest.raises(InvalidRequestError, match=r"body.*why"):
        await decode_body(raising(error), bytes(size))


@SIZES
@pytest.mark.parametrize("error", [LimitExceededError("names", 2, 1, "send fewer"), KeyError("a defect")])
async def test_other_errors_are_passed_on(size, error):
    with pytest.raises(type(error)) as raised:
        await decode_body(raising(error), bytes(size))
    assert raised.value is error


def raising(error):
    def decode(body):
        raise error

    return decode
