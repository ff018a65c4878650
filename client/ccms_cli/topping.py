"""The command `top`: the busiest hosts by a metric."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ccms_cli.connecting import connected
from ccms_cli.exits import Exit, fail
from ccms_cli.formatting import show_duration, show_value, sparkline
from ccms_cli.output import console, table
from ccms_cli.parameters import Cluster, duration_parameter

if TYPE_CHECKING:
    from rich.table import Table

    from ccms_client import Client, MetricEntry

RECENT_INTERVALS: Final = 10
"""Intervals of the metric that are looked back for the latest value."""


@dataclass(frozen=True, slots=True)
class _Host:
    name: str
    latest: float
    age_seconds: float
    recent: list[float]


def top(
    context: typer.Context,
    metric: Annotated[str, typer.Argument(help="Metric to rank by.")],
    cluster: Cluster,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="Hosts to show.")] = 20,
    interval: Annotated[
        float, typer.Option(parser=duration_parameter, metavar="DURATION", help="Time between two looks.")
    ] = "5s",  # type: ignore[assignment]  # typer parses defaults as well
    once: Annotated[bool, typer.Option("--once", help="Print one table, and end.")] = False,
) -> None:
    """Show the hosts with the largest values of a metric, again and again until Ctrl-C."""
    if interval < 0.1:
        raise typer.BadParameter("less than 0.1 s makes the server busy with you alone", param_hint="--interval")
    with connected(context) as client:
        configured = next((entry for entry in client.metrics() if entry.name == metric), None)
        if configured is None:
            fail(Exit.WRONG, f"the metric {metric!r} is not configured; `ccms ls --metrics` lists those that are")
        if once or not console().is_terminal:
            console().print(_look(client, cluster, configured, count))
            return
        from rich.live import Live

        with Live(_look(client, cluster, configured, count), console=console(), auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(_look(client, cluster, configured, count), refresh=True)


def _look(client: Client, cluster: str, metric: MetricEntry, count: int) -> Table:
    """The table of now, by the server's clock."""
    now = client.status().clock
    span = RECENT_INTERVALS * metric.interval
    hosts: list[_Host] = []
    n_silent = 0
    for series in client.stream(cluster, now - span, now + metric.interval, all_hosts_metrics=[metric.name]):
        values = series.values.tolist()
        known = [place for place, value in enumerate(values) if not math.isnan(value)]
        if not known:
            n_silent += 1
            continue
        age = now - (series.start + known[-1] * series.interval)
        hosts.append(_Host(series.host, values[known[-1]], max(age, 0), values))
    if not hosts and not n_silent:
        fail(Exit.WRONG, f"there are no hosts in {cluster!r}; `ccms ls` lists what there is")
    hosts.sort(key=lambda host: (-host.latest, host.name))
    unit = f" [{metric.unit}]" if metric.unit else ""
    rows = table("#", "HOST", f"{metric.name}{unit}".upper(), "AGE", "RECENT", right=("#", "AGE"))
    rows.columns[2].justify = "right"
    for rank, host in enumerate(hosts[:count], 1):
        rows.add_row(
            str(rank),
            host.name,
            show_value(host.latest),
            show_duration(host.age_seconds),
            sparkline(host.recent, RECENT_INTERVALS),
        )
    without = f", {n_silent:,} without a value in the last {show_duration(span)}" if n_silent else ""
    rows.caption = f"{len(hosts):,} hosts of {cluster}{without}"
    rows.caption_justify = "left"
    return rows


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(top)
