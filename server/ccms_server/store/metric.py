"""What is known of a metric before its first sample."""

from dataclasses import dataclass
from enum import StrEnum


class Aggregation(StrEnum):
    """How one series is made of the series of a level's children."""

    SUM = "sum"
    AVG = "avg"


@dataclass(frozen=True, slots=True)
class Metric:
    """A configured metric."""

    name: str
    interval: int
    """Spacing of its samples, in seconds, >= 1."""
    aggregation: Aggregation | None = None
    """None: series of this metric cannot be aggregated."""
    unit: str = ""
    """Unit of its values, for those who show them; empty: none is known."""
