"""Names of the figures that peers have too, or that have relations."""

from typing import Final

HTTP: Final = "HTTP, batches of 426 lines, 4 connections"
HTTP_LARGE: Final = "HTTP, batches of 4,260 lines"
HTTP_FIRST: Final = "HTTP, first cycle of never-seen series"
HTTP_SEALING: Final = "HTTP, two days of samples, sealing included"
NATS: Final = "NATS, batches of 426 lines"
RSS_TOTAL: Final = "RSS, 40 samples a series"
RSS_OVER_IDLE: Final = "RSS over idle, 40 samples a series"
RSS_PER_SAMPLE: Final = "RSS over idle, per sample of two days"


def rest_query(name: str) -> str:
    """What figures of a query over REST begin with."""
    return f"REST query {name}"


def grpc_query(name: str) -> str:
    """What those of the same query over gRPC begin with."""
    return f"gRPC query {name}"


def median(query: str) -> str:
    """Name of the figure for the median of a query."""
    return f"{query}, p50"
