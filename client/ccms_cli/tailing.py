"""The command `tail`: samples as they are stored."""

from __future__ import annotations

import csv
import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ccms_cli.connecting import connected
from ccms_cli.exits import say
from ccms_cli.times import show_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ccms_client import Sample


class TailFormat(StrEnum):
    """What samples are printed as."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


def tail(
    context: typer.Context,
    clusters: Annotated[list[str] | None, typer.Option("--cluster", "-c", metavar="PATTERN")] = None,
    hosts: Annotated[list[str] | None, typer.Option("--host", "-H", metavar="PATTERN")] = None,
    components: Annotated[
        list[str] | None,
        typer.Option("--component", "-C", metavar="PATTERN", help="Type and id: 'hwthread*'; '' is the host itself."),
    ] = None,
    metrics: Annotated[list[str] | None, typer.Option("--metric", "-m", metavar="PATTERN")] = None,
    format: Annotated[TailFormat, typer.Option(help="What to print.")] = TailFormat.TEXT,  # noqa: A002
) -> None:
    """Print samples as they are stored, until Ctrl-C. Patterns are those of a shell: *, ?, [a-z]."""
    from ccms_client import SeriesMatcher

    matcher = SeriesMatcher(
        clusters=clusters or [], hosts=hosts or [], components=components or [], metrics=metrics or []
    )
    with connected(context) as client, client.watch(matcher) as watch:
        if sys.stderr.isatty():
            say("waiting for samples; Ctrl-C ends it")
        if format is TailFormat.CSV:
            csv.writer(sys.stdout).writerow(("time", "metric", "cluster", "host", "component", "subcomponent", "value"))
            sys.stdout.flush()
        for samples in watch:
            if samples.missed:
                say(f"{samples.missed:,} samples were not shown: they came faster than they were read")
            _print(samples, format)
            sys.stdout.flush()


def _print(samples: Iterable[Sample], form: TailFormat) -> None:
    rows = csv.writer(sys.stdout)
    for (metric, cluster, host, component, subcomponent), timestamp, value in samples:
        if form is TailFormat.CSV:
            rows.writerow((timestamp, metric, cluster, host, component, subcomponent, value))
        elif form is TailFormat.JSON:
            typer.echo(
                json.dumps(
                    {
                        "time": timestamp,
                        "metric": metric,
                        "cluster": cluster,
                        "host": host,
                        "component": component,
                        "subcomponent": subcomponent,
                        "value": value,
                    }
                )
            )
        else:
            path = "/".join(name for name in (cluster, host, component, subcomponent) if name)
            typer.echo(f"{show_time(timestamp)}  {path}  {metric}  {value:g}")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(tail)
