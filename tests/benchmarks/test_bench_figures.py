"""How figures stand beside their targets and peers."""

import json

import pytest
from benchmarks import names, recorded_peers
from benchmarks.calibration import Calibration
from benchmarks.figures import (
    Figure,
    Findings,
    SeriesCost,
    at_least,
    at_most,
    document,
    milliseconds,
    rate,
    table,
)

SLOW = Calibration(line_rate=0.5, json_rate=2.1)
"""A machine of half the speed that the targets are meant for, as to JSON."""


@pytest.mark.parametrize(
    ("figure", "is_met"),
    [
        (rate("lines", 1.0, SLOW, at_least(2)), True),
        (rate("lines", 0.9, SLOW, at_least(2)), False),
        (rate("lines", 0.9, SLOW, at_least(2, of_calibrated=False)), False),
        (milliseconds("query", 2.0, SLOW, at_most(1)), True),
        (milliseconds("query", 2.1, SLOW, at_most(1)), False),
        (Figure("RSS", 150, "MB", at_most(150)), True),
        (Figure("RSS", 151, "MB", at_most(150)), False),
        (Figure("RSS", 151, "MB"), None),
    ],
)
def test_targets_are_of_what_can_be_compared_between_machines(figure, is_met):
    assert figure.meets_target is is_met


def test_the_best_peer_is_the_fastest_or_the_smallest():
    fastest, lines = recorded_peers.best(names.HTTP, larger_is_better=True)
    smallest, megabytes = recorded_peers.best(names.RSS_TOTAL, larger_is_better=False)
    assert (fastest.name, lines) == (recorded_peers.GO_2024, 0.57)
    assert (smallest.name, megabytes) == (recorded_peers.VICTORIA_METRICS, 167)
    assert recorded_peers.best("nobody measured this", larger_is_better=True) is None


def test_a_table_has_a_column_for_a_running_peer_only_if_there_is_one():
    ours = [rate(names.HTTP, 1.5, SLOW, at_least(1.75)), Figure("RSS, idle", 1234.5, "MB", at_most(150))]
    alone = table(Findings(ours))
    beside = table(Findings(ours, [rate(names.HTTP, 0.25, SLOW)], notes=["no NATS"]))

    assert alone.splitlines()[0].endswith("| best peer, recorded |")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in beside.splitlines()[:-1]]
    assert cells[0] == [
        *("figure", "value", "unit", "calibration", "per calibration", "target"),
        *("best peer, recorded", "PEER, in turns"),
    ]
    assert cells[2] == [
        *(names.HTTP, "1.5", "M lines/CPU-s", "0.50", "3", ">= 1.75 met"),
        *("0.57 (Go, Oct 2024)", "0.25 (0.5)"),
    ]
    assert cells[3] == ["RSS, idle", "1,234", "MB", "", "", "<= 150 MISSED", "", ""]
    assert beside.splitlines()[-1] == "Note: no NATS"


def test_a_document_says_all_that_a_table_does():
    findings = Findings(
        [rate(names.HTTP, 1.5, SLOW, at_least(1.75))],
        [rate(names.HTTP, 0.25, SLOW)],
        [SeriesCost(series=426, lines_per_batch=426, cpu_ns_per_line=500.0, line_rate=1.5)],
        ["no NATS"],
    )
    assert json.loads(json.dumps(document(findings))) == {
        "figures": [
            {
                "name": names.HTTP,
                "value": 1.5,
                "unit": "M lines/CPU-s",
                "calibration": 0.5,
                "calibrated": 3.0,
                "target": {"at_least": 1.75, "of": "calibrated", "is_met": True},
                "recorded_peer": {"name": recorded_peers.GO_2024, "date": "2026-11", "value": 0.57},
                "peer": {"value": 0.25, "calibrated": 0.5},
            }
        ],
        "series_costs": [{"series": 426, "lines_per_batch": 426, "cpu_ns_per_line": 500.0, "line_rate": 1.5}],
        "notes": ["no NATS"],
    }
