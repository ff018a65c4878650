"""What answers look like, and the bodies of requests other than queries.

Answers are encoded by hand, for speed: their types only describe them, in the OpenAPI document.
"""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ccms_gateway.query_json import SeriesQueryBody

Selector = Annotated[
    list[str],
    Meta(
        description="Cluster, host, component and sub-component, or the beginning of these; empty for everything.",
        extra_json_schema={"maxItems": 4},
    ),
]
FreeBody: TypeAlias = Annotated[
    list[Selector] | None,
    Meta(
        description="What to free. A selector that names nothing frees nothing.",
        examples=[[["alpha", "n1"], ["beta"]]],
    ),
]


class HealthBody(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """Hosts of a cluster, and the metrics that should arrive from each."""

    cluster: str | None = None
    nodes: list[str] | None = None
    metric_names: list[str] | None = None


class HostHealthBody(msgspec.Struct, rename="pascal"):
    """How completely one host is monitored."""

    state: Annotated[
        str,
        Meta(
            description="`full`: all metrics arrive; `partial`: some do; `failed`: none does, or the host is unknown.",
            extra_json_schema={"enum": ["full", "partial", "failed"]},
        ),
    ]
    health_metrics: Annotated[
        str,
        Meta(
            description='JSON as text: `{"degraded":[...],"missing":[...]}`, each a list of metrics. Degraded is what '
            "ended more than five intervals ago, for the host or any of its components. Empty for an unknown host."
        ),
    ]


HealthAnswer: TypeAlias = dict[str, HostHealthBody]
NodeHealthAnswer: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": ["Healthy", "Unhealthy"]})]


class SeriesBody(msgspec.Struct):
    """One series, or why it cannot be answered."""

    from_: Annotated[int, Meta(description="Time of the first value that is not padding.")] = msgspec.field(name="from")
    to: Annotated[int, Meta(description="End of the last value's interval.")]
    resolution: Annotated[int, Meta(description="Seconds between two values.")]
    avg: Annotated[float | None, Meta(description="Of all samples in range; null: there is none; 0: not asked for.")]
    min: float | None
    max: float | None
    error: Annotated[str | UnsetType, Meta(description="Why it cannot be answered; the numbers are 0 then.")] = UNSET
    data: Annotated[
        list[float | None] | UnsetType,
        Meta(description="The values, null where there is none, rounded to three decimals; absent if not asked for."),
    ] = UNSET


class QueryAnswer(msgspec.Struct):
    """The series of each query, in order."""

    results: Annotated[
        list[list[SeriesBody]],
        Meta(description="`results[i][j]` is element `type-ids[j]` of query `i`, then of those of `for-all-nodes`."),
    ]
    queries: Annotated[
        list[SeriesQueryBody] | UnsetType,
        Meta(description="The queries that `for-all-nodes` stands for, if there are any."),
    ] = UNSET


class ErrorAnswer(msgspec.Struct):
    """Why a request failed."""

    status: Annotated[str, Meta(description="The status of HTTP in words.", examples=["Bad Request"])]
    error: Annotated[str, Meta(description="What is wrong, and what would be right.")]


class ExtentBody(msgspec.Struct):
    """Where a series begins and ends, in seconds since the epoch."""

    start: int
    len: Annotated[int, Meta(description="Slots from the first sample to the last one.", ge=1)]
    end: int


_OfSubcomponent: TypeAlias = dict[str, list[ExtentBody]]
_OfComponent: TypeAlias = dict[str, list[ExtentBody] | _OfSubcomponent]
_OfHost: TypeAlias = dict[str, list[ExtentBody] | _OfComponent]
_OfCluster: TypeAlias = dict[str, list[ExtentBody] | _OfHost]


class DebugAnswer(msgspec.Struct):
    """What is held: levels hold levels and, as lists, metrics. A name of both is there twice, the metric first."""

    data: dict[str, list[ExtentBody] | _OfCluster]
