"""The operations of the REST API: what is routed, who may use it, and what the OpenAPI document says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs

from ccms_gateway import schemas
from ccms_gateway.query_json import QueryBody
from ccms_server.auth import Access

JSON: Final = "application/json"
TEXT: Final = "text/plain"

INT64: Final = {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter in the query string."""

    name: str
    description: str
    schema: Mapping[str, Any]
    required: bool = False
    example: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The body of a request or of an answer."""

    media_type: str
    type: Any
    """What `msgspec` makes a schema of."""
    example: object = None
    required: bool = True
    """Of the body of a request: whether there must be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method of a path. Whoever answers GET answers HEAD, too."""

    method: str
    path: str
    name: str
    access: Access | None
    """What it is about to do; None: anybody may."""
    summary: str
    description: str
    parameters: tuple[Parameter, ...] = ()
    body: Content | None = None
    answers: tuple[Content, ...] = ()
    """What is answered if all goes well, by media type; empty: nothing."""
    failures: Mapping[HTTPStatus, str] = field(default_factory=dict)
    """What else can be answered, beside what can be everywhere."""


_EXAMPLE_QUERY: Final = {
    "cluster": "alpha",
    "from": 1_700_000_000,
    "to": 1_700_003_600,
    "queries": [{"metric": "load_one", "host": "n1"}],
}
_VERSION: Final = Parameter(
    name="version",
    description="`v1`: values as they are stored, whatever `resolution` says; anything else: `v2`.",
    schema={"type": "string", "default": "v2"},
    example="v2",
)
_NOT_READ: Final = {
    HTTPStatus.REQUEST_TIMEOUT: "The body did not come in time.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is larger than the server takes.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body's `Content-Encoding` is unknown; gzip and deflate are not.",
}
_BY_COLONS_OR_JSON: Final = (
    "Cluster, host, component and sub-component, or the beginning of these. With colons between them, or as a JSON "
    'list: `["alpha","n1","accelerator00000000:49:00.0"]`. Absent: everything.'
)

OPERATIONS: Final = (
    Operation(
        method=hdrs.METH_GET,
        path="/api/query",
        name="queryWithGet",
        access=Access.READ,
        summary="Query series",
        description="The same as with POST, and what clients of the predecessor send. Browsers cannot: they send no "
        "body with GET.",
        parameters=(_VERSION,),
        body=Content(media_type=JSON, type=QueryBody, example=_EXAMPLE_QUERY),
        answers=(Content(media_type=JSON, type=schemas.QueryAnswer),),
        failures=_NOT_READ,
    ),
    Operation(
        method=hdrs.METH_POST,
        path="/api/query",
        name="query",
        access=Access.READ,
        summary="Query series",
        description="Answers with one list of series for each query. A series that cannot be answered, because its "
        "host or its metric is unknown for example, is answered with an `error` of its own, in its place. The body is "
        "JSON, whatever `Content-Type` says.",
        parameters=(_VERSION,),
        body=Content(media_type=JSON, type=QueryBody, example=_EXAMPLE_QUERY),
        answers=(Content(media_type=JSON, type=schemas.QueryAnswer),),
        failures=_NOT_READ,
    ),
    Operation(
        method=hdrs.METH_POST,
        path="/api/write",
        name="write",
        access=Access.WRITE,
        summary="Store samples",
        description="Takes InfluxDB line protocol with the tags `cluster`, `hostname`, `type`, `type-id`, `stype` and "
        "`stype-id`, and the field `value`. Lines of metrics that are not configured are ignored. If a line cannot be "
        "stored, the answer is 400 and explains why; all others are stored nevertheless. The body is line protocol, "
        "whatever `Content-Type` says.",
        parameters=(
            Parameter(
                name="cluster",
                description="Cluster of lines without the tag `cluster`.",
                schema={"type": "string"},
                example="alpha",
            ),
        ),
        body=Content(
            media_type=TEXT,
            type=str,
            required=False,
            example="load_one,cluster=alpha,hostname=n1,type=node value=1.5 1700000000\n",
        ),
        failures=_NOT_READ,
    ),
    Operation(
        method=hdrs.METH_POST,
        path="/api/free",
        name="free",
        access=Access.ADMIN,
        summary="Drop old samples",
        description="Drops samples that are older than `to`, at the levels named in the body and below them. Samples "
        "of that age are refused from then on. Answers with the number of series that lost samples.",
        parameters=(
            Parameter(
                name="to", description="Seconds since the epoch.", schema=INT64, required=True, example=1_600_000_000
            ),
        ),
        body=Content(media_type=JSON, type=schemas.FreeBody, example=[["alpha", "n1"]]),
        answers=(Content(media_type=TEXT, type=str, example="buffers freed: 12\n"),),
        failures=_NOT_READ,
    ),
    Operation(
        method=hdrs.METH_GET,
        path="/api/debug",
        name="debug",
        access=Access.ADMIN,
        summary="Dump what is held",
        description="Shows where each series begins and ends. An answer that breaks off ends without the last chunk.",
        parameters=(
            Parameter(name="selector", description=_BY_COLONS_OR_JSON, schema={"type": "string"}, example="alpha:n1"),
        ),
        answers=(Content(media_type=JSON, type=schemas.DebugAnswer),),
    ),
    Operation(
        method=hdrs.METH_GET,
        path="/api/healthcheck",
        name="nodeHealth",
        access=Access.READ,
        summary="Look at one node",
        description="Answers `Healthy`, or `Unhealthy` if five series or more, or all of them, ended more than five "
        "intervals ago. With a body, it is the same as POST; clients of the predecessor send that, browsers cannot.",
        parameters=(
            Parameter(
                name="cluster",
                description="Cluster of the node.",
                schema={"type": "string", "minLength": 1},
                required=True,
                example="alpha",
            ),
            Parameter(
                name="node",
                description="Host.",
                schema={"type": "string", "minLength": 1},
                required=True,
                example="n1",
            ),
        ),
        answers=(Content(media_type=TEXT, type=schemas.NodeHealthAnswer, example="Healthy"),),
        failures=_NOT_READ,
    ),
    Operation(
        method=hdrs.METH_POST,
        path="/api/healthcheck",
        name="health",
        access=Access.READ,
        summary="Look at many nodes",
        description="Tells for each node which of the metrics arrive.",
        body=Content(
            media_type=JSON,
            type=schemas.HealthBody,
            example={"cluster": "alpha", "nodes": ["n1"], "metric-names": ["load_one"]},
        ),
        answers=(Content(media_type=JSON, type=schemas.HealthAnswer),),
        failures=_NOT_READ,
    ),
    Operation(
        method=hdrs.METH_GET,
        path="/api/openapi.json",
        name="openapi",
        access=None,
        summary="Describe the API",
        description="This document.",
        answers=(Content(media_type=JSON, type=dict[str, Any]),),
    ),
)
