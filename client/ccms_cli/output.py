"""Where output goes: results to stdout, everything about them to stderr; colours and bars on terminals only."""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # tables and bars are loaded when one is shown
    from collections.abc import Iterable

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

TABLE_WIDTH_PIPED = 400
"""Columns of a table that is no terminal's: wide enough that nothing is cut off for who reads it line by line."""


class Format(StrEnum):
    """What a result is printed as."""

    TABLE = "table"
    JSON = "json"


@cache
def console() -> Console:
    """Stdout."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else TABLE_WIDTH_PIPED, highlight=False, markup=False, emoji=False)


@cache
def error_console() -> Console:
    """Stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """A table without lines, for people and for `awk`.

    Args:
        columns: Headings.
        right: Those of columns that are flush right: numbers.
    """
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for heading in columns:
        made.add_column(heading, justify="right" if heading in right else "left", no_wrap=True, overflow="ellipsis")
    return made


def progress(*, with_bytes: bool = False) -> Progress:
    """A bar on stderr with a free text, `shown`, behind it; nothing is shown where that is no terminal.

    Args:
        with_bytes: Progress is counted in bytes.
    """
    from rich import progress as bars

    counts: tuple[bars.ProgressColumn, ...] = (
        (bars.DownloadColumn(binary_units=True), bars.TransferSpeedColumn())
        if with_bytes
        else (bars.MofNCompleteColumn(),)
    )
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=24),
        *counts,
        bars.TextColumn("{task.fields[shown]}"),
        bars.TimeElapsedColumn(),
        console=error_console(),
        disable=not sys.stderr.isatty(),
        transient=True,
        redirect_stdout=False,
    )
