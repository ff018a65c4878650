"""Series drawn with characters, by plotext 6."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import plotext
from numpy.typing import NDArray

_COLORS: Final = ("blue+", "orange+", "green+", "red+", "magenta+", "cyan+")
_TICK_SECONDS: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200)
_TICK_DAYS: Final = (1, 2, 7, 14, 30, 90, 365)
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Curve:
    """A series to draw."""

    label: str
    timestamps: NDArray[np.int64]
    """int64 array of shape (n_values,), seconds since the epoch."""
    values: NDArray[np.float64]
    """float64 array of shape (n_values,); where it is NaN, the line has a gap."""


def plot(
    title: str, curves: Sequence[Curve], start: float, end: float, *, width: int, height: int, is_coloured: bool
) -> str:
    """Draws curves over time.

    Args:
        title: Above them.
        curves: At least one.
        start: Where the axis of time begins at the latest, seconds since the epoch.
        end: Where it ends at the earliest.
        width: Of the whole, in characters.
        height: Without the legend, in lines.
        is_coloured: Whether there are codes for colours in it; without, curves have letters.

    Returns:
        The lines.
    """
    figure = plotext.figure
    figure.clear()
    plotext.terminal.limit(False, False)
    figure.theme("simple" if is_coloured else "colorless")
    figure.canvas("default")
    figure.plot_size(width, height)
    figure.title(title)
    figure.legend(False)  # it would hide what is behind it
    legend: list[str] = []
    for number, curve in enumerate(curves):
        symbol = "braille" if is_coloured or len(curves) == 1 else chr(ord("a") + number)
        marker = plotext.marker(symbol, _COLORS[number % len(_COLORS)] if is_coloured else None)
        for times, values in _pieces(*_thinned(curve.timestamps, curve.values, 2 * width)):
            signal = figure.signal(times.tolist(), values.tolist(), marker=marker)
            figure.draw(signal.lines() if len(times) > 1 else signal)
        sample = "⣀⠤⠒" if symbol == "braille" else symbol
        colored = plotext.colorize(sample, _COLORS[number % len(_COLORS)]).string() if is_coloured else sample
        legend.append(f"{colored} {curve.label}")
    ticks = _ticks(start, end, max(2, width // 14))
    figure.ruler("x").lim(start, end)
    figure.ruler("x").ticks([place for place, _ in ticks], [label for _, label in ticks])
    drawn = figure.build().string(colorless=not is_coloured).rstrip("\n")
    return f"{drawn}\n{_in_lines(legend, [curve.label for curve in curves], width)}"


def _thinned(
    timestamps: NDArray[np.int64], values: NDArray[np.float64], n_parts: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The smallest and the largest value of each part of a long series: what its picture is made of."""
    if len(values) <= 2 * n_parts:
        return timestamps, values
    chosen: list[int] = []
    for part in np.array_split(np.arange(len(values)), n_parts):
        if np.isnan(values[part]).all():
            chosen.append(int(part[0]))
        else:
            extremes = {int(part[np.nanargmin(values[part])]), int(part[np.nanargmax(values[part])])}
            chosen += sorted(extremes)
    return timestamps[chosen], values[chosen]


def _pieces(
    timestamps: NDArray[np.int64], values: NDArray[np.float64]
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The runs between gaps."""
    known = np.flatnonzero(~np.isnan(values))
    runs = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)
    return [(timestamps[run], values[run]) for run in runs if len(run)]


def _ticks(start: float, end: float, n_max: int) -> list[tuple[int, str]]:
    """Times to write below the plot: round ones in the zone of this machine."""
    steps = [*_TICK_SECONDS, *(days * _DAY for days in _TICK_DAYS)]
    step = next((step for step in steps if (end - start) / step <= n_max), steps[-1])
    offset = datetime.fromtimestamp(start).astimezone().utcoffset()
    shift = int(offset.total_seconds()) if offset else 0
    form = "%Y-%m-%d" if step >= _DAY else "%H:%M" if step >= 60 else "%H:%M:%S"
    if step < _DAY < end - start:
        form = "%m-%d %H:%M"
    first = -(-(int(start) + shift) // step) * step - shift
    return [(at, datetime.fromtimestamp(at).strftime(form)) for at in range(first, int(end) + 1, step)]


def _in_lines(texts: Sequence[str], visible: Sequence[str], width: int) -> str:
    """Legend entries side by side, as many as fit."""
    lines, used = [""], 0
    for text, seen in zip(texts, visible, strict=True):
        length = len(seen) + 6
        if used and used + length > width:
            lines.append("")
            used = 0
        lines[-1] += text + "  "
        used += length
    return "\n".join(line.rstrip() for line in lines)
