"""The commands `export` and `import`: samples to files and back."""

from __future__ import annotations

import gzip
import math
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ccms_cli.connecting import connected, options_of
from ccms_cli.exits import Exit, fail, say
from ccms_cli.output import progress
from ccms_cli.parameters import TIMES_HELP, Hosts, expanded, time_parameter
from ccms_cli.writing import GIVE_UP_SECONDS, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    from ccms_cli.stored_series import Samples
    from ccms_client import Client, SeriesEntry, WriteResult

STDIN_OR_STDOUT: Final = Path("-")
EXAMPLES_SHOWN: Final = 3


class FileFormat(StrEnum):
    """What samples are kept in."""

    LP = "lp"
    PARQUET = "parquet"
    LEGACY = "legacy"


Format = Annotated[
    FileFormat | None,
    typer.Option(
        "--format",
        help="lp: line protocol, compressed if the name ends in .gz; parquet; legacy: a folder with checkpoints of the "
        "predecessor. Without, the name decides.",
    ),
]


def export(
    context: typer.Context,
    cluster: Annotated[str, typer.Argument(help="Name of the cluster.")],
    target: Annotated[Path, typer.Argument(help="File, or folder of checkpoints; - is stdout.")],
    hosts: Hosts = None,
    metrics: Annotated[list[str] | None, typer.Option("--metric", "-m", help="Metrics; all without.")] = None,
    start: Annotated[
        float | None,
        typer.Option("--from", parser=time_parameter, metavar="TIME", help=f"Start of the range: {TIMES_HELP}."),
    ] = None,
    end: Annotated[
        float | None, typer.Option("--to", parser=time_parameter, metavar="TIME", help="End of the range, exclusive.")
    ] = None,
    format: Format = None,  # noqa: A002  what it is called
) -> None:
    """Copy samples into files, in full precision.

    All series that are stored are copied, those of components too, and no aggregates. Times are those at which a query
    shows the samples: up to half an interval from when they were taken. Line protocol has a type and an id for each
    component, which are cut out of its name; put together again, they are the same. Checkpoints cover twelve hours of a
    host each, and are loaded by the predecessor.
    """
    from ccms_cli.stored_series import list_series

    form = format or _format_of(target)
    first, last = -math.inf if start is None else start, math.inf if end is None else end
    n_samples = 0
    with connected(context) as client, progress() as bar:
        task = bar.add_task("exporting series", total=None, shown="")

        def written(count: int) -> None:
            nonlocal n_samples
            n_samples += count
            bar.update(task, shown=f"{n_samples:,} samples")

        def counted(entries: Iterator[SeriesEntry]) -> Iterator[SeriesEntry]:
            for entry in entries:
                bar.update(task, advance=1)
                yield entry

        entries = counted(list_series(client, cluster, expanded(hosts, "--host"), metrics or ()))
        with _replacing(target, form) as path:
            _write_files(client, path, form, entries, first, last, written)
            if not n_samples:
                fail(Exit.WRONG, "there are no samples in that selection; `ccms ls --series` lists what there is")
    say(f"{n_samples:,} samples of {cluster} are in {'stdout' if target == STDIN_OR_STDOUT else target}")


def import_(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="File, or folder of checkpoints; - is stdin.")],
    cluster: Annotated[str, typer.Option("--cluster", "-c", help="Cluster of lines without one (lp).")] = "",
    format: Format = None,  # noqa: A002  what it is called
) -> None:
    """Copy samples from files into the server; done when all is durable. Exit code 1 if any sample was rejected.

    Of the predecessor, JSON checkpoints, and the snapshots and the log of release 1.5 are read; a server that is
    started with that folder imports it by itself, and faster. Samples of metrics that are not configured are rejected,
    or ignored if they are line protocol.
    """
    form = format or _format_of(source)
    if form is FileFormat.LP:
        write(context, source, cluster)
        return
    n_samples = 0
    with connected(context) as client, progress() as bar:
        client.status()  # a server that is not there is told of at once
        task = bar.add_task("importing", total=None, shown="")

        def read(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        give_up_seconds = options_of(context).timeout or GIVE_UP_SECONDS
        with client.writer(give_up_seconds=give_up_seconds) as writer:
            for keys, numbers, timestamps, values in _samples_of(source, form, read):
                if len(values):
                    writer.write_numbers(writer.define(keys)[numbers], timestamps, values)
                n_samples += len(values)
                bar.update(task, shown=f"{n_samples:,} samples")
            writer.flush()
            result = writer.result
    _tell(result, n_samples)


def _write_files(
    client: Client,
    target: Path,
    form: FileFormat,
    entries: Iterator[SeriesEntry],
    start: float,
    end: float,
    written: Callable[[int], None],
) -> None:
    from ccms_cli.legacy_documents import write_documents
    from ccms_cli.line_format import lines_of
    from ccms_cli.parquet_format import write_parquet
    from ccms_cli.stored_series import Run, read_series

    def told(runs: Iterator[Run]) -> Iterator[Run]:
        for run in runs:
            written(len(run.values))
            yield run

    match form:
        case FileFormat.LEGACY:
            write_documents(client, target, entries, start, end, written)
        case FileFormat.PARQUET:
            write_parquet(target, read_series(client, entries, start, end), written)
        case FileFormat.LP:
            with _opened(target) as file:
                file.writelines(lines_of(told(read_series(client, entries, start, end))))


def _samples_of(source: Path, form: FileFormat, read: Callable[[int, int], None]) -> Iterator[Samples]:
    from ccms_cli.legacy_files import read_checkpoints
    from ccms_cli.parquet_format import read_parquet

    if form is FileFormat.PARQUET:
        return read_parquet(source, read)
    return read_checkpoints(source, read, say)


def _tell(result: WriteResult, n_samples: int) -> None:
    """Says what became of samples; ends the command with exit code 1 if some were rejected."""
    n_rejected = sum(result.rejected.values())
    typer.echo(f"stored {result.stored:,}, rejected {n_rejected:,} of {n_samples:,}")
    if n_rejected:
        for each in result.first_rejected[:EXAMPLES_SHOWN]:
            say(each.message)
        reasons = ", ".join(f"{reason.lower()} {count:,}" for reason, count in sorted(result.rejected.items()))
        say(f"{n_rejected:,} samples were rejected: {reasons}")
        raise typer.Exit(Exit.WRONG)


def _format_of(path: Path) -> FileFormat:
    """The format that a name stands for."""
    if path.is_dir():
        return FileFormat.LEGACY
    if path.suffix == ".parquet":
        return FileFormat.PARQUET
    if path == STDIN_OR_STDOUT or path.name.removesuffix(".gz").endswith((".lp", ".line", ".txt")):
        return FileFormat.LP
    raise typer.BadParameter(f"the name {path} does not tell a format: say --format lp, parquet or legacy")


@contextmanager
def _replacing(target: Path, form: FileFormat) -> Iterator[Path]:
    """A file beside the target that takes its place if all goes well, and is gone if it does not."""
    if form is FileFormat.LEGACY or target == STDIN_OR_STDOUT or (target.exists() and not target.is_file()):
        yield target
        return
    beside = target.with_name(f".part-{target.name}")
    try:
        yield beside
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, compressed if its name ends in `.gz`; `-` is stdout."""
    if path == STDIN_OR_STDOUT:
        yield sys.stdout.buffer
        return
    with path.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6) as packed:
                yield packed  # type: ignore[misc]  # it is written to like a file
        else:
            yield file


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(export)
    app.command("import")(import_)
