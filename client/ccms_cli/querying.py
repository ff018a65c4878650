"""The command `query`: series as a table, CSV, JSON or plot."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import sys
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from ccms_cli.connecting import connected
from ccms_cli.exits import Exit, fail, say
from ccms_cli.formatting import show_value, sparkline
from ccms_cli.names import expand, natural_key
from ccms_cli.output import console, table
from ccms_cli.parameters import From, Hosts, To, expanded, seconds_parameter
from ccms_cli.times import show_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ccms_client import Client, Series, SeriesPart, SeriesQuery

_Answer = TypeVar("_Answer", bound="Series | SeriesPart")

QUERIES_PER_CALL: Final = 1000
"""Series queries that are sent at a time."""
ERRORS_SHOWN: Final = 5
PLOTTED_MAX: Final = 24
"""Series of a plot; more cannot be told apart."""
_SPARKLINE_WIDTH: Final = 24


class QueryFormat(StrEnum):
    """What series are printed as."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PLOT = "plot"


def query(
    context: typer.Context,
    cluster: Annotated[str, typer.Argument(help="Name of the cluster.")],
    metrics: Annotated[list[str], typer.Argument(help="Names of metrics.")],
    hosts: Hosts = None,
    all_hosts: Annotated[bool, typer.Option("--all-hosts", "-a", help="All hosts of the cluster.")] = False,
    type: Annotated[  # noqa: A002  the word of the contract
        str,
        typer.Option("--type", "-t", metavar="TYPE", help="Components: hwthread, socket, ...; not the host itself."),
    ] = "",
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="IDS", help="Which of them: 0-63, 0,2; may be repeated.")
    ] = None,
    aggregate: Annotated[bool, typer.Option("--aggregate", help="Make one series of these components.")] = False,
    start: From = "-1h",  # type: ignore[assignment]  # typer parses defaults as well
    end: To = "now",  # type: ignore[assignment]
    resolution: Annotated[
        int,
        typer.Option(parser=seconds_parameter, metavar="DURATION", help="Downsample: 10m, 1h. [default: as stored]"),
    ] = 0,
    format: Annotated[QueryFormat, typer.Option("--format", "-f", help="What to print.")] = QueryFormat.TABLE,  # noqa: A002
    no_values: Annotated[bool, typer.Option("--no-values", help="Statistics only: table and JSON.")] = False,
) -> None:
    """Read series of a cluster.

    CSV has the columns time (seconds since the epoch), metric, host, component, subcomponent and value, a line for each
    sample. JSON has a line for each series. Both are written as they come, in little memory however much it is.
    """
    names = expanded(hosts, "--host")
    type_ids = _expand_ids(ids)
    if bool(names) == all_hosts:
        raise typer.BadParameter("name hosts with --host, or ask for --all-hosts: one of the two")
    if bool(type) != bool(type_ids):
        raise typer.BadParameter("--type and --id belong together: `--type hwthread --id 0-63`")
    if no_values and format in (QueryFormat.CSV, QueryFormat.PLOT):
        raise typer.BadParameter(f"{format} is made of values", param_hint="--no-values")
    if end <= start:
        raise typer.BadParameter(f"the range ends ({show_time(end)}) before it begins ({show_time(start)})")
    from ccms_client import queries_of

    with connected(context) as client:
        if all_hosts:
            names = sorted((host.name for host in client.hosts(cluster)), key=natural_key)
        asked = queries_of(metrics, names, type=type, type_ids=type_ids, aggregate=aggregate, resolution=resolution)
        errors = _Errors(is_silent_about_missing=all_hosts)
        if format in (QueryFormat.CSV, QueryFormat.JSON):
            parts = errors.without(_parts(client, cluster, start, end, asked, with_values=not no_values))
            (_print_csv if format is QueryFormat.CSV else _print_json)(parts)
        else:
            series = errors.without(_series(client, cluster, start, end, asked, with_values=not no_values))
            units = {metric.name: metric.unit for metric in client.metrics()}
            if format is QueryFormat.TABLE:
                _print_table(series, units)
            else:
                _print_plots(series, units, start, end)
    errors.tell()


class _Errors:
    """Keeps what could not be answered apart from what was."""

    def __init__(self, *, is_silent_about_missing: bool) -> None:
        self._is_silent_about_missing = is_silent_about_missing
        self._n_answered = 0
        self._n_missing = 0
        self._messages: list[str] = []
        self._count = 0

    def without(self, answers: Iterable[_Answer]) -> Iterator[_Answer]:
        """Answers that are none are taken out, and noted."""
        for answer in answers:
            if answer.error is None:
                self._n_answered += 1
                yield answer
            elif answer.error.reason == "NOT_FOUND" and self._is_silent_about_missing:
                self._n_missing += 1
            else:
                self._count += 1
                if len(self._messages) < ERRORS_SHOWN:
                    self._messages.append(answer.error.message)

    def tell(self) -> None:
        """Ends the command with exit code 1 if something is wrong."""
        sys.stdout.flush()  # so that the errors come behind the answers
        for message in self._messages:
            say(message)
        if self._count > len(self._messages):
            say(f"... and {self._count - len(self._messages):,} more series without an answer")
        if not self._n_answered and not self._count:
            fail(Exit.WRONG, "no host has samples of that; `ccms ls --metrics CLUSTER` lists what there is")
        if self._count:
            raise typer.Exit(Exit.WRONG)


def _calls(asked: Sequence[SeriesQuery]) -> Iterator[list[SeriesQuery]]:
    rest = iter(asked)
    while batch := list(islice(rest, QUERIES_PER_CALL)):
        yield batch


def _parts(
    client: Client, cluster: str, start: float, end: float, asked: Sequence[SeriesQuery], *, with_values: bool
) -> Iterator[SeriesPart]:
    for queries in _calls(asked):
        yield from client.stream_parts(cluster, start, end, queries, with_values=with_values)


def _series(
    client: Client, cluster: str, start: float, end: float, asked: Sequence[SeriesQuery], *, with_values: bool
) -> Iterator[Series]:
    for queries in _calls(asked):
        yield from client.stream(cluster, start, end, queries, with_values=with_values)


def _print_csv(parts: Iterable[SeriesPart]) -> None:
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(("time", "metric", "host", "component", "subcomponent", "value"))
    for part in parts:
        name = (part.metric, part.host, part.component, part.subcomponent)
        rows.writerows(
            (timestamp, *name, value)
            for timestamp, value in zip(part.timestamps.tolist(), part.values.tolist(), strict=True)
            if not math.isnan(value)
        )


def _print_json(parts: Iterable[SeriesPart]) -> None:
    for part in parts:
        if part.offset == 0:
            sys.stdout.write(json.dumps(_header(part))[:-1])
            sys.stdout.write(', "values": [' if part.value_count else "")
        values = (None if math.isnan(value) else value for value in part.values.tolist())
        sys.stdout.write(", " if part.offset else "")
        sys.stdout.write(json.dumps(list(values))[1:-1])
        if part.offset + part.values.size == part.value_count:
            sys.stdout.write("]}\n" if part.value_count else "}\n")


def _header(part: SeriesPart) -> dict[str, object]:
    found = part.statistics
    statistics = found and {
        name: None if math.isnan(value) else value
        for name, value in (("min", found.min), ("avg", found.avg), ("max", found.max), ("count", found.count))
    }
    return {
        "metric": part.metric,
        "host": part.host,
        "component": part.component,
        "subcomponent": part.subcomponent,
        "start": part.start,
        "end": part.end,
        "interval": part.interval,
        "statistics": statistics,
    }


def _print_table(series: Iterable[Series], units: dict[str, str]) -> None:
    has_units = any(units.values())
    headings = ("SERIES", "METRIC", "MIN", "AVG", "MAX", *(("UNIT",) if has_units else ()), "SAMPLES", "FROM")
    rows = table(*headings, "", right=("MIN", "AVG", "MAX", "SAMPLES"))
    for each in series:
        found = each.statistics
        assert found is not None, "statistics were asked for"
        rows.add_row(
            _place(each),
            each.metric,
            show_value(found.min),
            show_value(found.avg),
            show_value(found.max),
            *((units.get(each.metric, ""),) if has_units else ()),
            f"{found.count:,}",
            show_time(each.start) if found.count else "-",
            sparkline(each.values.tolist(), _SPARKLINE_WIDTH),
        )
    if rows.row_count:
        console().print(rows)


def _print_plots(series: Iterable[Series], units: dict[str, str], start: float, end: float) -> None:
    """A plot for each metric: values of different metrics have nothing in common."""
    from ccms_cli.plotting import Curve, plot

    curves: dict[str, list[Curve]] = {}
    n_series = 0
    for each in series:
        if not each.values.size:
            continue
        n_series += 1
        if n_series > PLOTTED_MAX:
            fail(Exit.USAGE, f"more than {PLOTTED_MAX} series cannot be told apart in a plot: ask for fewer hosts")
        curves.setdefault(each.metric, []).append(Curve(_place(each), each.timestamps, each.values))
    if not curves:
        fail(Exit.WRONG, "there are no samples in that range; --from and --to name another one")
    width, height = shutil.get_terminal_size((100, 24))
    for metric, lines in curves.items():
        title = f"{metric} [{units[metric]}]" if units.get(metric) else metric
        is_coloured = console().is_terminal and not console().no_color
        drawn = plot(
            title, lines, start, end, width=width, height=max(10, min(height - 4, 24)), is_coloured=is_coloured
        )
        typer.echo(drawn, color=is_coloured)


def _place(series: Series) -> str:
    return "/".join(name for name in (series.host, series.component, series.subcomponent) if name)


def _expand_ids(texts: Iterable[str] | None) -> list[str]:
    """Ids from ranges: `0-63`, `0,2`, `[0-3]`; anything else is an id itself."""
    try:
        return expand(f"[{text}]" if re.fullmatch(r"\d[\d,-]*", text) else text for text in texts or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--id") from error


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(query)
