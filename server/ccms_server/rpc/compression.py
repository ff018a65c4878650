"""Compression of a call's responses, if its metadata ask for it.

Compressed requests are understood in any case. Responses are not compressed by themselves: within a cluster, the time
it takes is worth more than the bytes.
"""

from collections.abc import Mapping
from typing import Final

from grpc import Compression

from ccms_server.errors import InvalidRequestError

COMPRESSION_KEY: Final = "ccms-response-compression"
"""Metadata of a call that wants its responses compressed."""
COMPRESSION_BY_NAME: Final = {
    "gzip": Compression.Gzip,
    "deflate": Compression.Deflate,
    "identity": Compression.NoCompression,
}


def response_compression(metadata: Mapping[str, str | bytes]) -> Compression | None:
    """What the metadata of a call ask for; None: nothing.

    Raises:
        InvalidRequestError: It is not known.
    """
    name = metadata.get(COMPRESSION_KEY)
    if name is None:
        return None
    compression = COMPRESSION_BY_NAME.get(str(name))
    if compression is None:
        known = ", ".join(COMPRESSION_BY_NAME)
        raise InvalidRequestError(COMPRESSION_KEY, f"{str(name)[:40]!r} is no compression of responses: {known} are")
    return compression
