"""The body of `/api/query`, as clients of the predecessor send it.

`null` means the same as a field that is absent, for every field: cc-backend sends `"queries": null`. Unknown fields are
ignored.
"""

from typing import Annotated, Final

import msgspec

from ccms_server.errors import InvalidRequestError, LimitExceededError
from ccms_server.model import QueryRequest, SeriesQuery

QUERIES_MAX: Final = 200_000
"""Queries in one body. Those that name a metric and a host fill the largest body before they are so many."""

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class SeriesQueryBody(msgspec.Struct, rename="kebab", gc=False):
    """One metric of one host, or of parts of it."""

    metric: str | None = None
    host: str | None = None
    type: str | None = None
    type_ids: list[str] | None = None
    subtype: str | None = None
    subtype_ids: list[str] | None = None
    aggreg: bool | None = None
    resolution: Int64 | None = None
    scale_by: float | None = None

    def to_model(self, *, resample: bool) -> SeriesQuery:
        """The same query in the words of the store."""
        return SeriesQuery(
            metric=self.metric or "",
            host=self.host or "",
            type=self.type or None,
            type_ids=self.type_ids or (),
            subtype=self.subtype or None,
            subtype_ids=self.subtype_ids or (),
            aggregate=self.aggreg or False,
            resolution=(self.resolution or 0) if resample else 0,
            scale_by=self.scale_by or 0.0,
        )


class QueryBody(msgspec.Struct, rename="kebab"):
    """Series of one cluster between two times."""

    cluster: str | None = None
    from_: Int64 | None = msgspec.field(default=None, name="from")
    to: Int64 | None = None
    with_stats: bool | None = None
    with_data: bool | None = None
    with_padding: bool | None = None
    queries: list[SeriesQueryBody] | None = None
    for_all_nodes: list[str] | None = None

    def to_model(self, *, resample: bool) -> QueryRequest:
        """The same request in the words of the store."""
        if len(self.queries or ()) > QUERIES_MAX:
            raise LimitExceededError(
                "queries in one request", len(self.queries or ()), QUERIES_MAX, "ask for fewer at a time"
            )
        return QueryRequest(
            cluster=self.cluster or "",
            start=self.from_ or 0,
            end=self.to or 0,
            queries=[query.to_model(resample=resample) for query in self.queries or ()],
            for_all_hosts=self.for_all_nodes or (),
            with_values=self.with_data is not False,
            with_statistics=self.with_stats is not False,
            with_padding=self.with_padding is not False,
        )


_decoder: Final = msgspec.json.Decoder(QueryBody)


def decode_query(body: bytes, *, resample: bool = True) -> QueryRequest:
    """Reads the body of a query.

    Args:
        body: JSON.
        resample: False: resolutions asked for are ignored, as version 1 of the API does.

    Raises:
        InvalidRequestError: It is no JSON, or a field has a wrong type; the message names the field.
        LimitExceededError: There are too many queries.
    """
    try:
        return _decoder.decode(body).to_model(resample=resample)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # the first covers wrong types as well
        raise InvalidRequestError("body", str(error)) from None
