"""Pages of lists: how many entries a request wants, and behind which one.

A token names the last entry of the page before, and carries a fingerprint of the request it belongs to: what a list is
made of may change between two pages, what was asked for may not.
"""

import base64
from binascii import Error as Base64Error
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from ccms.v1.catalog_service_pb2 import (
    ListClustersRequest,
    ListComponentsRequest,
    ListHostsRequest,
    ListMetricsRequest,
    ListSeriesRequest,
)
from ccms_server.errors import InvalidRequestError

ListRequest = ListClustersRequest | ListHostsRequest | ListComponentsRequest | ListMetricsRequest | ListSeriesRequest

PAGE_SIZE: Final = 100
"""Entries of a page whose size is not said."""
PAGE_SIZE_MAX: Final = 1000

_FINGERPRINT_BYTES: Final = 8
_SEPARATOR: Final = "\x1f"
"""Between names, which hold no control characters."""


@dataclass(frozen=True, slots=True)
class PageWanted:
    """Which part of a list is wanted."""

    size: int
    """Entries at most, >= 1."""
    after: tuple[str, ...]
    """Names of the last entry of the page before; empty: the list is to begin."""


def read_page(request: ListRequest, n_names: int) -> PageWanted:
    """The page that a request asks for.

    Args:
        request: The request.
        n_names: Names that make up an entry.

    Raises:
        InvalidRequestError: The page is too large, or the token belongs to another request.
    """
    if request.page_size > PAGE_SIZE_MAX:
        raise InvalidRequestError("page_size", f"is {request.page_size:,}, must be at most {PAGE_SIZE_MAX:,}")
    size = request.page_size or PAGE_SIZE
    if not request.page_token:
        return PageWanted(size, ())
    after = _names_in(request.page_token, _fingerprint(request))
    if after is None or len(after) != n_names:
        raise InvalidRequestError(
            "page_token",
            "is none that a request like this one was answered with; leave it out to begin again, and change nothing "
            "else between two pages but their size",
        )
    return PageWanted(size, after)


def page_token(request: ListRequest, last: Sequence[str]) -> str:
    """What the next page is asked for with.

    Args:
        request: The request that is answered.
        last: Names of the last entry of the answer.
    """
    return base64.urlsafe_b64encode(_fingerprint(request) + _SEPARATOR.join(last).encode()).decode()


def _names_in(token: str, fingerprint: bytes) -> tuple[str, ...] | None:
    """The names in a token; None: it is no token of the request with this fingerprint."""
    try:
        content = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        names = content[_FINGERPRINT_BYTES:].decode()
    except (Base64Error, UnicodeDecodeError):
        return None
    return tuple(names.split(_SEPARATOR)) if content[:_FINGERPRINT_BYTES] == fingerprint else None


def _fingerprint(request: ListRequest) -> bytes:
    """Of the kind of request, and of all it asks for but the page."""
    asked = type(request)()
    asked.CopyFrom(request)  # type: ignore[arg-type]  # of the same type
    asked.ClearField("page_size")
    asked.ClearField("page_token")
    content = type(request).DESCRIPTOR.full_name.encode() + asked.SerializeToString(deterministic=True)
    return blake2b(content, digest_size=_FINGERPRINT_BYTES).digest()
