"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from ccms_cli.names import expand
from ccms_cli.times import parse_duration, parse_time


def time_parameter(text: str | float) -> float:
    """Reads a time for typer, which also passes what was read already."""
    try:
        return parse_time(text) if isinstance(text, str) else text
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def duration_parameter(text: str | float) -> float:
    """Reads a length of time for typer, which also passes what was read already."""
    try:
        return parse_duration(text) if isinstance(text, str) else text
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def seconds_parameter(text: str | int) -> int:
    """Reads whole seconds, given as such or as a length of time; typer also passes what was read already."""
    return int(text) if isinstance(text, int) or text.isdecimal() else int(duration_parameter(text))


def expanded(names: list[str] | None, option: str) -> list[str]:
    """Names from ranges of them; see `expand`."""
    try:
        return expand(names or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def level_of(text: str) -> tuple[str, ...]:
    """A level from its path, `cluster/host/component`; an empty text is the whole tree."""
    names = tuple(text.strip("/").split("/")) if text.strip("/") else ()
    if len(names) > 4 or not all(names):
        raise typer.BadParameter(f"{text!r} is no level: write cluster/host/component/sub-component, or less of it")
    return names


TIMES_HELP = "now, -90m, -2d, seconds since the epoch, or 2026-03-01T12:00"

From = Annotated[
    float, typer.Option("--from", parser=time_parameter, metavar="TIME", help=f"Start of the range: {TIMES_HELP}.")
]
To = Annotated[float, typer.Option("--to", parser=time_parameter, metavar="TIME", help="End of the range.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", "-H", metavar="HOSTS", help="Hosts: n1, n[1-3,7], e[0101-0108]; may be repeated."),
]
Cluster = Annotated[str, typer.Option("--cluster", "-c", help="Name of the cluster.")]
Lines = Annotated[Path | None, typer.Argument(metavar="[FILE|-]", help="File, which may end in .gz; - is stdin.")]
