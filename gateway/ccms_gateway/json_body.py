"""Decoding the JSON bodies of requests."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from ccms_server.errors import InvalidRequestError

INLINE_BYTES_MAX: Final = 2 << 10
"""Bodies up to this size are decoded on the event loop, in a millisecond even if they are queries as short as `{}`,
which cost the most for their size. Handing a body to a thread takes a tenth of that.
"""

_T = TypeVar("_T")


async def decode_body(decode: Callable[[bytes], _T], body: bytes) -> _T:
    """Decodes a body, a long one on a thread.

    Args:
        decode: Turns a body into what is asked for, with everything that takes longer for a longer body. Raises what
            `msgspec` raises, or errors of its own, which are passed on.
        body: JSON.

    Raises:
        InvalidRequestError: It is no JSON, or a field has a wrong type; the message names the field.
    """
    try:
        if len(body) <= INLINE_BYTES_MAX:
            return decode(body)
        return await asyncio.to_thread(decode, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # the first covers wrong types as well
        raise InvalidRequestError("body", str(error)) from None
