"""The command `ls`: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ccms_cli.connecting import connected
from ccms_cli.exits import Exit, fail
from ccms_cli.names import literal_pattern, natural_key
from ccms_cli.output import console, table
from ccms_cli.times import show_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ccms_client import Client, ClusterEntry, ComponentEntry, HostEntry, SampleSpan

_SPAN_COLUMNS = ("SERIES", "FIRST SAMPLE", "LAST SAMPLE")


def ls(
    context: typer.Context,
    cluster: Annotated[str, typer.Argument(help="List its hosts. [default: list clusters]")] = "",
    host: Annotated[str, typer.Argument(help="List its components.")] = "",
    component: Annotated[str, typer.Argument(help="List its sub-components.")] = "",
    long: Annotated[bool, typer.Option("--long", "-l", help="With counts, and the times of samples.")] = False,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="List metrics: of all clusters, a cluster or a host.")
    ] = False,
    series: Annotated[bool, typer.Option("--series", help="List series of that level and below it.")] = False,
) -> None:
    """List clusters, hosts, components, metrics or series, in the order of the numbers in their names."""
    if metrics and series:
        raise typer.BadParameter("there are both --metrics and --series: leave one of them out")
    if metrics and component:
        raise typer.BadParameter("metrics are those of a cluster or host: leave the component out")
    with connected(context) as client:
        if metrics:
            _list_metrics(client, cluster, host, long)
        elif series:
            _list_series(client, (cluster, host, component), long)
        elif host:
            _list_levels(client.components(cluster, host, component, with_samples=long), "COMPONENT", "PARTS", long)
        elif cluster:
            _list_levels(client.hosts(cluster, with_samples=long), "HOST", "COMPONENTS", long)
        else:
            _list_levels(client.clusters(with_samples=long), "CLUSTER", "HOSTS", long)


def _list_levels(
    entries: Iterable[ClusterEntry | HostEntry | ComponentEntry], kind: str, below: str, long: bool
) -> None:
    found = sorted(entries, key=lambda entry: natural_key(entry.name))
    if not long:
        for entry in found:
            typer.echo(entry.name)
        return
    rows = table(kind, below, *_SPAN_COLUMNS, right=(below, "SERIES"))
    for entry in found:
        rows.add_row(entry.name, f"{_count_below(entry):,}", *_span(entry.samples))
    console().print(rows)


def _list_metrics(client: Client, cluster: str, host: str, long: bool) -> None:
    found = sorted(client.metrics(cluster, host), key=lambda metric: natural_key(metric.name))
    if not long:
        for metric in found:
            typer.echo(metric.name)
        return
    spans = _SPAN_COLUMNS if cluster else ()
    rows = table("METRIC", "INTERVAL", "AGGREGATION", "UNIT", *spans, right=("INTERVAL", "SERIES"))
    for metric in found:
        aggregation = "" if metric.aggregation == "NONE" else metric.aggregation.lower()
        rows.add_row(
            metric.name, f"{metric.interval}s", aggregation, metric.unit, *(_span(metric.samples) if cluster else ())
        )
    console().print(rows)


def _list_series(client: Client, path: tuple[str, ...], long: bool) -> None:
    """Lists series as they come: there may be millions."""
    from ccms_client import SeriesMatcher

    cluster, host, component = ([literal_pattern(name)] if name else [] for name in path)
    n_series = 0
    for entry in client.series(SeriesMatcher(clusters=cluster, hosts=host, components=component)):
        n_series += 1
        line = f"{'/'.join(entry.key.path)} {entry.key.metric}"
        typer.echo(
            f"{line}  {entry.interval}s  {show_time(entry.first_sample)}  {show_time(entry.last_sample)}"
            if long
            else line
        )
    if not n_series and path[0]:
        fail(
            Exit.WRONG,
            f"there are no series at {'/'.join(name for name in path if name)}; `ccms ls` lists what there is",
        )


def _count_below(entry: ClusterEntry | HostEntry | ComponentEntry) -> int:
    for name in ("host_count", "component_count", "subcomponent_count"):
        if hasattr(entry, name):
            return int(getattr(entry, name))
    raise TypeError(f"{type(entry).__name__} has no count")


def _span(samples: SampleSpan | None) -> tuple[str, str, str]:
    if samples is None or not samples.series_count:
        return "0", "-", "-"
    return f"{samples.series_count:,}", show_time(samples.first_sample), show_time(samples.last_sample)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(ls)
