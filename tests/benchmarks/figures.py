"""What is measured, and how it stands beside its target and its peers: as a table for people, and as JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import recorded_peers
from benchmarks.calibration import QUIET, Calibration


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that a figure should keep."""

    bound: float
    is_minimum: bool
    of_calibrated: bool
    """Whether it bounds what is calibrated, and not the value as it was measured."""


def at_least(bound: float, *, of_calibrated: bool = True) -> Target:
    """A target that is met by larger figures."""
    return Target(bound, is_minimum=True, of_calibrated=of_calibrated)


def at_most(bound: float, *, of_calibrated: bool = True) -> Target:
    """A target that is met by smaller figures."""
    return Target(bound, is_minimum=False, of_calibrated=of_calibrated)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    """As it was measured."""
    unit: str
    target: Target | None = None
    calibration: float | None = None
    """What a plain loop reached in the same minute, in M lines/s or M values/s; None where time plays no part."""
    calibrated: float | None = None
    """What can be compared between machines, see `rate` and `milliseconds`; None: the value itself can."""
    larger_is_better: bool = False

    @property
    def comparable(self) -> float:
        """The calibrated value, or else the value."""
        return self.value if self.calibrated is None else self.calibrated

    @property
    def meets_target(self) -> bool | None:
        """Whether it meets its target; None if it has none."""
        if self.target is None:
            return None
        value = self.comparable if self.target.of_calibrated else self.value
        return value >= self.target.bound if self.target.is_minimum else value <= self.target.bound


def rate(
    name: str, value: float, calibration: Calibration, target: Target | None = None, *, unit: str = "M lines/CPU-s"
) -> Figure:
    """A rate, in M a second; calibrated: how many in the time that the plain loop takes for one line."""
    per_calibration = value / calibration.line_rate
    return Figure(name, value, unit, target, calibration.line_rate, per_calibration, larger_is_better=True)


def milliseconds(
    name: str, value: float, calibration: Calibration, target: Target | None = None, *, unit: str = "ms"
) -> Figure:
    """A time in ms; calibrated: what it would be on the machine that the peers were measured on."""
    scaled = value * calibration.json_rate / QUIET.json_rate
    return Figure(name, value, unit, target, calibration.json_rate, scaled)


@dataclass(frozen=True, slots=True)
class SeriesCost:
    """What a line costs a server that holds so many series."""

    series: int
    lines_per_batch: int
    cpu_ns_per_line: float
    line_rate: float
    """Calibration of the same minute, in M lines/s."""


@dataclass(slots=True)
class Findings:
    """All that was measured."""

    figures: list[Figure] = field(default_factory=list)
    """Of our server."""
    peer_figures: list[Figure] = field(default_factory=list)
    """Of the peer that was measured in turns with it, under the same names."""
    series_costs: list[SeriesCost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was not measured, and why."""

    def add(self, others: "Findings") -> None:
        """Takes over what another part has found."""
        self.figures += others.figures
        self.peer_figures += others.peer_figures
        self.series_costs += others.series_costs
        self.notes += others.notes


def table(findings: Findings) -> str:
    """The figures as text for people, which is also a Markdown table."""
    of_peer = {each.name: each for each in findings.peer_figures}
    header = ["figure", "value", "unit", "calibration", "per calibration", "target", "best peer, recorded"]
    rows = [header + ["PEER, in turns"] * bool(of_peer)]
    rows += [_row(each) + [_text_of_both(of_peer.get(each.name))] * bool(of_peer) for each in findings.figures]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines + [f"Note: {note}" for note in findings.notes])


def document(findings: Findings) -> dict[str, Any]:
    """The same for programs, to be written as JSON."""
    of_peer = {each.name: each for each in findings.peer_figures}
    return {
        "figures": [_entry(each, of_peer.get(each.name)) for each in findings.figures],
        "series_costs": [asdict(each) for each in findings.series_costs],
        "notes": findings.notes,
    }


def _row(figure: Figure) -> list[str]:
    recorded = recorded_peers.best(figure.name, larger_is_better=figure.larger_is_better)
    return [
        figure.name,
        _number(figure.value),
        figure.unit,
        "" if figure.calibration is None else f"{figure.calibration:.2f}",
        "" if figure.calibrated is None else _number(figure.calibrated),
        _target_text(figure),
        "" if recorded is None else f"{_number(recorded[1])} ({recorded[0].name})",
    ]


def _entry(figure: Figure, of_peer: Figure | None) -> dict[str, Any]:
    target = figure.target
    recorded = recorded_peers.best(figure.name, larger_is_better=figure.larger_is_better)
    return {
        "name": figure.name,
        "value": figure.value,
        "unit": figure.unit,
        "calibration": figure.calibration,
        "calibrated": figure.calibrated,
        "target": target
        and {
            "at_least" if target.is_minimum else "at_most": target.bound,
            "of": "calibrated" if target.of_calibrated and figure.calibrated is not None else "value",
            "is_met": figure.meets_target,
        },
        "recorded_peer": recorded and {"name": recorded[0].name, "date": recorded[0].date, "value": recorded[1]},
        "peer": of_peer and {"value": of_peer.value, "calibrated": of_peer.calibrated},
    }


def _target_text(figure: Figure) -> str:
    if figure.target is None:
        return ""
    sign = ">=" if figure.target.is_minimum else "<="
    return f"{sign} {figure.target.bound:g} {'met' if figure.meets_target else 'MISSED'}"


def _text_of_both(figure: Figure | None) -> str:
    """The value, and what is calibrated if anything is."""
    if figure is None:
        return ""
    return _number(figure.value) + ("" if figure.calibrated is None else f" ({_number(figure.calibrated)})")


def _number(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
