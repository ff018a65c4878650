"""The program: options in front of the commands, the commands, and what becomes of errors."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from ccms_cli import benchmarking, listing, operating, querying, tailing, topping, transferring, writing
from ccms_cli.connecting import DEFAULT_SERVER, Options
from ccms_cli.exits import Exit, failure, say

HELP = """Writes samples to a metric store and reads them, over gRPC.

Times are `now`, `-90m`, `-2d`, seconds since the epoch, or ISO 8601 (`2026-03-01T12:00`, in the zone of this machine).
Lists of names may be given as ranges: `n[001-128],login1`.

Exit codes: 0 done; 1 the server answered, but something is wrong (rejected lines, failed hosts, nothing of that name);
2 the command cannot be done as it was given; 3 the server cannot be reached, or is not ready; 4 the token is missing,
or does not allow it; 5 the server failed; 130 Ctrl-C."""


class Program(TyperGroup):
    """All commands; what they raise ends the program with one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  untyped there
        """Runs the command that was given."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, TyperException):
            raise
        except BrokenPipeError:  # who read the output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(Exit.PIPE_CLOSED) from None
        except KeyboardInterrupt:
            raise typer.Exit(Exit.INTERRUPTED) from None
        except Exception as error:
            if _comes_of_ctrl_c(error):
                raise typer.Exit(Exit.INTERRUPTED) from None
            options = ctx.find_object(Options)
            found = failure(error, options.server if options else DEFAULT_SERVER)
            if found is None:
                raise
            code, message = found
            say(message)
            raise typer.Exit(code) from error


app = typer.Typer(
    cls=Program, help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)


def _comes_of_ctrl_c(error: BaseException) -> bool:
    """Whether something went wrong only because Ctrl-C ended it."""
    before = error.__cause__ or error.__context__
    return before is not None and (isinstance(before, KeyboardInterrupt) or _comes_of_ctrl_c(before))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ccms {metadata.version('cc-metric-store')}")
        raise typer.Exit


@app.callback()
def program(
    context: typer.Context,
    server: Annotated[str, typer.Option(envvar="CCMS_SERVER", help="Where the server is: host:port.")] = DEFAULT_SERVER,
    token: Annotated[str | None, typer.Option(envvar="CCMS_TOKEN", help="Token to show.", show_envvar=True)] = None,
    token_file: Annotated[
        Path | None, typer.Option(envvar="CCMS_TOKEN_FILE", help="File with the token, where nobody else sees it.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", envvar="CCMS_TLS", help="Encrypt the connection.")] = False,
    ca: Annotated[Path | None, typer.Option(envvar="CCMS_CA", help="Authorities to trust, PEM; implies --tls.")] = None,
    cert: Annotated[Path | None, typer.Option(envvar="CCMS_CERT", help="Certificate to show, PEM; with --key.")] = None,
    key: Annotated[Path | None, typer.Option(envvar="CCMS_KEY", help="Its key (PEM).")] = None,
    timeout: Annotated[
        float | None, typer.Option(envvar="CCMS_TIMEOUT", help="Seconds for a call; as long as it takes without.")
    ] = None,
    compression: Annotated[bool, typer.Option("--compression", help="Compress both ways, for slow networks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the release, and end.")
    ] = False,
) -> None:
    """Takes the options that all commands share."""
    try:
        context.obj = Options(
            server=server,
            token=token,
            token_file=token_file,
            tls=tls,
            ca=ca,
            certificate=cert,
            key=key,
            timeout=timeout,
            compression=compression,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


for group in (querying, writing, tailing, listing, topping, operating, transferring, benchmarking):
    group.register(app)
