"""Commands for operators: `health`, `free`, `dump`, `status`, `checkpoint`."""

from __future__ import annotations

import json
from typing import Annotated, Final

import typer

from ccms_cli.connecting import connected
from ccms_cli.exits import Exit, fail, say
from ccms_cli.formatting import show_bytes, show_duration
from ccms_cli.output import Format, console, table
from ccms_cli.parameters import Hosts, expanded, level_of, time_parameter
from ccms_cli.times import show_time

ROWS_MAX: Final = 10_000
"""Rows of a table that is laid out as a whole; more are printed as several tables."""


def health(
    context: typer.Context,
    cluster: Annotated[str, typer.Argument(help="Name of the cluster.")],
    hosts: Hosts = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="Metric that should arrive; all there are without."),
    ] = None,
    format: Annotated[Format, typer.Option(help="What to print.")] = Format.TABLE,  # noqa: A002
) -> None:
    """Tell which metrics of hosts arrive; exit code 1 if any host failed."""
    names = expanded(hosts, "--host")
    with connected(context) as client:
        wanted = metrics or [entry.name for entry in client.metrics(cluster)]
        found = client.host_health(cluster, names, wanted)
    if not found:
        fail(Exit.WRONG, f"there are no hosts in {cluster!r}; `ccms ls` lists what there is")
    if format is Format.JSON:
        for host in found:
            typer.echo(
                json.dumps(
                    {
                        "host": host.host,
                        "state": host.state,
                        "known": host.known,
                        "degraded": host.degraded_metrics,
                        "missing": host.missing_metrics,
                        "series": host.series_count,
                        "stale_series": host.stale_series_count,
                    }
                )
            )
    else:
        rows = table("HOST", "STATE", "SERIES", "STALE", "DEGRADED", "MISSING", right=("SERIES", "STALE"))
        for host in found:
            rows.add_row(
                host.host,
                host.state.lower() if host.known else "unknown",
                f"{host.series_count:,}",
                f"{host.stale_series_count:,}",
                ", ".join(host.degraded_metrics),
                ", ".join(host.missing_metrics),
                style={"FAILED": "red", "PARTIAL": "yellow"}.get(host.state),
            )
        console().print(rows)
    failed = sum(host.state == "FAILED" for host in found)
    if failed:
        say(f"{failed:,} of {len(found):,} hosts failed: none of the metrics arrives, or the host is unknown")
        raise typer.Exit(Exit.WRONG)


def free(
    context: typer.Context,
    levels: Annotated[
        list[str], typer.Argument(help="Levels: cluster/host/component, or less of it; / is everything.")
    ],
    before: Annotated[
        float, typer.Option(parser=time_parameter, metavar="TIME", help="Drop what is older: -2d, 2026-03-01, ...")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Drop old samples at some levels and below, for good; samples of that age are refused from then on."""
    paths = [level_of(level) for level in levels]
    shown = ", ".join("/".join(path) or "everything" for path in paths[:5]) + (", ..." if len(paths) > 5 else "")
    if not yes:
        typer.confirm(f"Drop all samples of {shown} before {show_time(before)}?", abort=True, err=True)
    with connected(context) as client:
        n_series = client.free(paths, before)
    typer.echo(f"{n_series:,} series have lost samples before {show_time(before)}")


def dump(
    context: typer.Context,
    level: Annotated[str, typer.Argument(help="cluster/host/component, or less of it.")] = "",
    format: Annotated[Format, typer.Option(help="What to print.")] = Format.TABLE,  # noqa: A002
) -> None:
    """Tell of each series where it begins and ends."""
    with connected(context) as client:
        rows = table("SERIES", "METRIC", "INTERVAL", "SLOTS", "FROM", "TO", right=("INTERVAL", "SLOTS"))
        for extent in client.dump(level_of(level)):
            if format is Format.JSON:
                typer.echo(
                    json.dumps(
                        {
                            "level": extent.key.path,
                            "metric": extent.key.metric,
                            "start": extent.start,
                            "slots": extent.slot_count,
                            "interval": extent.interval,
                        }
                    )
                )
                continue
            rows.add_row(
                "/".join(extent.key.path),
                extent.key.metric,
                f"{extent.interval}s",
                f"{extent.slot_count:,}",
                show_time(extent.start),
                show_time(extent.end),
            )
            if rows.row_count == ROWS_MAX:
                console().print(rows)
                rows = table(*(str(column.header) for column in rows.columns), right=("INTERVAL", "SLOTS"))
        if rows.row_count:
            console().print(rows)


def status(
    context: typer.Context,
    format: Annotated[Format, typer.Option(help="What to print.")] = Format.TABLE,  # noqa: A002
) -> None:
    """Tell how the server is; exit code 1 if its disk is in trouble."""
    from dataclasses import asdict

    with connected(context) as client:
        found = client.status()
    held, came_in, disk = found.holdings, found.ingest, found.disk
    if format is Format.JSON:
        typer.echo(json.dumps(asdict(found)))
    else:
        rows = table("", "")
        rows.show_header = False
        rows.add_row("version", found.version)
        rows.add_row("up", show_duration(found.uptime_seconds))
        rows.add_row("clock", show_time(found.clock))
        rows.add_row("memory", show_bytes(found.resident_bytes) if found.resident_bytes else "unknown")
        rows.add_row("series", f"{held.series_count:,} of at most {held.series_max:,}")
        rows.add_row(
            "samples",
            f"{held.open_sample_count + held.sealed_sample_count:,}: {held.open_sample_count:,} in open windows, "
            f"{held.sealed_sample_count:,} sealed in {show_bytes(held.sealed_bytes)}",
        )
        rejected = ", ".join(f"{reason.lower()} {count:,}" for reason, count in came_in.rejected.items())
        rows.add_row("since start", f"stored {came_in.stored:,}, ignored {came_in.ignored:,}, rejected {rejected or 0}")
        rows.add_row(
            "lost", f"{came_in.dropped_messages:,} messages, {came_in.failed_batches:,} batches of a disk that failed"
        )
        rows.add_row("queued", show_bytes(came_in.queued_bytes))
        rows.add_row("watches", f"{came_in.watch_count:,}, which missed {came_in.missed_samples:,} samples")
        if disk is None:
            rows.add_row("disk", "none: samples are in memory only")
        else:
            rows.add_row("disk", disk.directory)
            rows.add_row("WAL", f"{show_bytes(disk.wal_bytes)} in {disk.wal_segment_count:,} segments")
            rows.add_row("blocks", f"{disk.block_count:,}")
            rows.add_row("damage", f"{disk.damage_count:,} places")
        console().print(rows)
    if disk is not None and disk.troubles:
        for trouble in disk.troubles:
            say(trouble)
        raise typer.Exit(Exit.WRONG)


def checkpoint(context: typer.Context) -> None:
    """Seal all windows and cut the WAL: a faster next start, a smaller backup."""
    with connected(context) as client:
        left = client.checkpoint()
    typer.echo(f"the WAL has {show_bytes(left.wal_bytes)}, there are {left.block_count:,} blocks")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (health, free, dump, status, checkpoint):
        app.command()(command)
