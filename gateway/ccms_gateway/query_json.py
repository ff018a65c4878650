"""The body of `/api/query`, as clients of the predecessor send it.

`null` means the same as a field that is absent, for every field: cc-backend sends `"queries": null`. Unknown fields are
ignored.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ccms_server.errors import LimitExceededError
from ccms_server.model import QueryRequest, SeriesQuery

QUERIES_MAX: Final = 200_000
"""Queries in one body. Those that name a metric and a host fill the largest body before they are so many."""

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


def _described(description: str) -> Meta:
    return Meta(description=description)


class SeriesQueryBody(msgspec.Struct, rename="kebab", gc=False):
    """One metric of one host, or of parts of it."""

    metric: str | None = None
    host: str | None = None
    type: Annotated[str | None, _described("Kind of component, as `hwthread`; absent: the host itself.")] = None
    type_ids: Annotated[list[str] | None, _described("Which components: one series for each.")] = None
    subtype: Annotated[str | None, _described("Kind of sub-component.")] = None
    subtype_ids: Annotated[list[str] | None, _described("Which of each component.")] = None
    aggreg: Annotated[bool | None, _described("Make one series of all that is selected. Default: false.")] = None
    resolution: Annotated[
        Int64 | None, _described("Seconds between two values, a multiple of the metric's interval; 0: as stored.")
    ] = None
    scale_by: Annotated[float | None, _described("Factor on values and statistics; 0: none.")] = None

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
    from_: Annotated[Int64 | None, _described("Seconds since the epoch.")] = msgspec.field(default=None, name="from")
    to: Annotated[Int64 | None, _described("Seconds since the epoch, exclusive.")] = None
    with_stats: Annotated[bool | None, _described("Answer with average, minimum and maximum. Default: true.")] = None
    with_data: Annotated[bool | None, _described("Answer with values. Default: true.")] = None
    with_padding: Annotated[
        bool | None, _described("Begin the values with null, from `from` to the first sample. Default: true.")
    ] = None
    queries: list[SeriesQueryBody] | None = None
    for_all_nodes: Annotated[
        list[str] | None, _described("Metrics: adds a query for each of them and each host of the cluster.")
    ] = None

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
        msgspec.DecodeError: It is no JSON, or a field has a wrong type; the message names the field.
        UnicodeDecodeError: It is no UTF-8.
        RecursionError: It is nested too deeply.
        LimitExceededError: There are too many queries.
    """
    try:
        decoded = _decoder.decode(body)
    except msgspec.ValidationError:
        decoded = msgspec.convert(_with_integers(msgspec.json.decode(body)), QueryBody)
    return decoded.to_model(resample=resample)


def _with_integers(value: object) -> object:
    """Plain data with integers for all numbers that are whole: `1700000000.0` is one, as JSON Schema has it."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_with_integers(each) for each in value]
    if isinstance(value, dict):
        return {key: _with_integers(each) for key, each in value.items()}
    return value
