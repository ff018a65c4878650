"""The plot of what a line costs by the number of series, as SVG. Nothing in it changes but what was measured."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from benchmarks.figures import SeriesCost
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

COLOURS = ("#2a6f97", "#d1603d")
TEXT, GRID = "#333333", "#dddddd"
STYLE = {
    "svg.fonttype": "none",  # text stays text: small files, and small differences between them
    "svg.hashsalt": "cost by series",  # else identifiers are random
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}


def write_plot(path: Path, costs: Sequence[SeriesCost]) -> None:
    """Draws a curve for each size of batches.

    Args:
        path: Of the SVG file.
        costs: At least one.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for lines_per_batch, colour in zip(sorted({each.lines_per_batch for each in costs}), COLOURS, strict=False):
            curve = sorted(
                (each.series, each.cpu_ns_per_line) for each in costs if each.lines_per_batch == lines_per_batch
            )
            series, ns = zip(*curve, strict=True)
            axes.plot(series, ns, color=colour, marker="o", linewidth=2, clip_on=False)
            axes.annotate(
                f"batches of {lines_per_batch:,} lines",
                (series[0], ns[0]),
                xytext=(0, 10),
                textcoords="offset points",
                color=colour,
            )
        axes.set(
            title="What a line costs, by the number of series",
            xlabel="series in the server",
            ylabel="CPU time of the server per line (ns)",
            xscale="log",
            ylim=(0, 1.25 * max(each.cpu_ns_per_line for each in costs)),
        )
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(_count))
        axes.grid(axis="y", color=GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _count(value: float, _position: int) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k"
