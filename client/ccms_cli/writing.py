"""The command `write`: line protocol from a file or stdin."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ccms_cli.connecting import connected, options_of
from ccms_cli.exits import Exit, say
from ccms_cli.line_batches import line_batches, opened_lines
from ccms_cli.output import progress
from ccms_cli.parameters import Lines

if TYPE_CHECKING:
    from ccms_client import BatchResult, Client, WriteResult

GIVE_UP_SECONDS: Final = 30.0
"""How long the server is waited for when it goes away, unless `--timeout` says otherwise."""
REJECTED_SHOWN: Final = 10


def write(
    context: typer.Context,
    file: Lines = None,
    cluster: Annotated[str, typer.Option("--cluster", "-c", help="Cluster of lines without a `cluster` tag.")] = "",
    batch_lines: Annotated[int, typer.Option(min=1, max=100_000, help="Lines sent at a time.")] = 5000,
) -> None:
    """Write line protocol; exit code 1 if any line was rejected.

    What is read from a pipe is sent as it comes. When the connection is lost, what is not acknowledged is sent again,
    and stored once.
    """
    with connected(context) as client:
        give_up_seconds = options_of(context).timeout or GIVE_UP_SECONDS
        report = write_lines(client, file, cluster, batch_lines, give_up_seconds=give_up_seconds)
    report.tell()


class Report:
    """What became of the lines of a file."""

    def __init__(self) -> None:
        self.result: WriteResult | None = None
        self.unreported = 0
        self.first_rejected: list[str] = []
        self._first_lines: deque[int] = deque()

    def sent(self, first_line: int) -> None:
        """A batch that begins with this line of the file is about to be sent."""
        self._first_lines.append(first_line)

    def acknowledged(self, batch: BatchResult) -> None:
        """The oldest batch that was sent is stored."""
        first_line = self._first_lines.popleft()
        for rejection in batch.result.first_rejected if batch.result else ():
            if len(self.first_rejected) < REJECTED_SHOWN:
                self.first_rejected.append(f"line {first_line + rejection.index - 1:,}: {rejection.message}")

    def tell(self) -> None:
        """Prints it; ends the command with exit code 1 if something was rejected."""
        assert self.result is not None, "all was sent"
        n_rejected = sum(self.result.rejected.values())
        typer.echo(f"stored {self.result.stored:,}, ignored {self.result.ignored:,}, rejected {n_rejected:,}")
        if self.result.ignored:
            say(f"{self.result.ignored:,} lines are of metrics that are not configured; `ccms ls --metrics` lists them")
        if self.unreported:
            say(f"{self.unreported:,} lines are stored, but what became of each was lost with a connection")
        for message in self.first_rejected:
            say(message)
        if n_rejected:
            reasons = ", ".join(f"{reason.lower()} {count:,}" for reason, count in sorted(self.result.rejected.items()))
            say(f"{n_rejected:,} lines were rejected: {reasons}")
            raise typer.Exit(Exit.WRONG)


def write_lines(client: Client, path: Path | None, cluster: str, batch_lines: int, *, give_up_seconds: float) -> Report:
    """Sends a file.

    Args:
        client: The client.
        path: The file; None or `-`: stdin.
        cluster: Of lines without one.
        batch_lines: Lines of a batch.
        give_up_seconds: How long to wait for a server that is gone.
    """
    report = Report()
    client.status()  # a server that is not there is told of at once
    with (
        opened_lines(path) as (file, bytes_read, size),
        progress(with_bytes=True) as bar,
        client.writer(give_up_seconds=give_up_seconds, on_acknowledged=report.acknowledged) as writer,
    ):
        task = bar.add_task("writing", total=size, shown="")
        n_bytes = 0
        for first_line, payload in line_batches(file, batch_lines):
            report.sent(first_line)
            writer.write_lines(payload, cluster)
            n_bytes += len(payload)
            done = n_bytes if size is None else bytes_read()
            bar.update(task, completed=done, shown=f"{writer.result.stored:,} stored")
        writer.flush()
        report.result, report.unreported = writer.result, writer.unreported_samples
    return report


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(write)
