"""Decoding the JSON bodies of requests."""

import asyncio
from typing import Final, TypeVar

import msgspec

from ccms_server.errors import InvalidRequestError

INLINE_BYTES_MAX: Final = 16 << 10
"""Bodies up to this size are decoded on the event loop, in a millisecond."""

_T = TypeVar("_T")


async def decode_body(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """Decodes a body, a long one on a thread.

    Raises:
        InvalidRequestError: It is no JSON, or a field has a wrong type; the message names the field.
    """
    try:
        if len(body) <= INLINE_BYTES_MAX:
            return decoder.decode(body)
        return await asyncio.to_thread(decoder.decode, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # the first covers wrong types as well
        raise InvalidRequestError("body", str(error)) from None
