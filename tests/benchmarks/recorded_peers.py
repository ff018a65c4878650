"""What the peers were measured at: this is where a new recording goes.

Rates are per calibration, and times in ms as of a machine that dumps 4.2 M JSON values a second, like the calibrated
values of `figures`. The peers sync nothing (Go) or every few seconds (VictoriaMetrics) at these rates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.names import (
    HTTP,
    HTTP_FIRST,
    HTTP_LARGE,
    HTTP_SEALING,
    NATS,
    RSS_OVER_IDLE,
    RSS_PER_SAMPLE,
    RSS_TOTAL,
    median,
    rest_query,
)

GO_2024: Final = "Go, Oct 2024"
"""cc-metric-store of October 2024."""
GO_1_5: Final = "Go, 1.5.4"
"""cc-metric-store 1.5.4."""
VICTORIA_METRICS: Final = "VictoriaMetrics 1.79"


@dataclass(frozen=True, slots=True)
class Recording:
    """Figures of one peer, measured together."""

    name: str
    """Of the peer."""
    date: str
    line_rate: float
    """M lines/s that the plain loop reached meanwhile."""
    json_rate: float
    """M values/s that were dumped as JSON meanwhile."""
    figures: Mapping[str, float]
    """Comparable values by the names of the figures."""


RECORDINGS: Final = (
    Recording(
        GO_2024,
        "2026-11",
        1.85,
        4.2,
        {
            HTTP: 0.57,
            HTTP_LARGE: 0.60,
            HTTP_SEALING: 0.61,
            NATS: 0.60,
            RSS_TOTAL: 690,
            RSS_OVER_IDLE: 690,  # it has next to nothing when it is idle
            RSS_PER_SAMPLE: 18,
            median(rest_query("one_series")): 0.33,
            median(rest_query("one_host_64_threads")): 11.3,
            median(rest_query("job_16x10")): 62,
            median(rest_query("job_16x10_res600")): 41,
            median(rest_query("all_nodes_stats")): 51,
            median(rest_query("all_nodes_5min")): 1.1,
        },
    ),
    Recording(GO_2024, "2026-11-25", 1.44, 3.86, {HTTP_FIRST: 0.15}),
    Recording(
        GO_1_5,
        "2026-11",
        1.85,
        4.2,
        {HTTP: 0.27, NATS: 0.28, RSS_TOTAL: 429, RSS_OVER_IDLE: 429, RSS_PER_SAMPLE: 11},
    ),
    Recording(VICTORIA_METRICS, "2026-11", 1.85, 4.2, {HTTP: 0.34, RSS_TOTAL: 167}),
    Recording(VICTORIA_METRICS, "2026-11-25", 1.44, 3.86, {HTTP_FIRST: 0.048}),
)


def best(figure: str, *, larger_is_better: bool) -> tuple[Recording, float] | None:
    """The best that a peer reached; None if none was measured."""
    recorded = [(each, each.figures[figure]) for each in RECORDINGS if figure in each.figures]
    if not recorded:
        return None
    choose = max if larger_is_better else min
    return choose(recorded, key=lambda each: each[1])
