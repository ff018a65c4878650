"""How a command ends: its exit code, and the one line that says what went wrong."""

import zlib
from enum import IntEnum
from typing import NoReturn

import typer


class Exit(IntEnum):
    """Exit codes; `ccms --help` lists them."""

    OK = 0
    WRONG = 1
    """The server answered, but something is wrong: rejected lines, failed hosts, no such series."""
    USAGE = 2
    """The command cannot be done as it was given."""
    UNAVAILABLE = 3
    """The server cannot be reached, or is not ready."""
    REFUSED = 4
    """The token is missing or does not allow it."""
    SERVER = 5
    """The server failed."""
    INTERRUPTED = 130
    """Ctrl-C, as shells have it."""
    PIPE_CLOSED = 141
    """Who read the output has seen enough, as shells have it."""


def say(message: str) -> None:
    """Prints one line for people, on stderr."""
    typer.echo(f"ccms: {message}", err=True)


def fail(code: Exit, message: str) -> NoReturn:
    """Ends the command with a message."""
    say(message)
    raise typer.Exit(code)


def failure(error: Exception, address: str) -> tuple[Exit, str] | None:
    """The exit code and the message for an error; None: it is a defect of this program.

    Args:
        error: What was raised.
        address: Of the server.
    """
    from ccms_client import errors  # what raised it has loaded that already

    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Exit.USAGE, f"{where}{error.strerror or error}"
    if isinstance(error, EOFError | zlib.error):
        return Exit.USAGE, "the compressed input is cut off or damaged; of what came before, not all may be stored"
    if isinstance(error, ValueError):
        return Exit.USAGE, _one_line(str(error))
    if not isinstance(error, errors.ClientError):
        return None
    cause = error.__cause__ if isinstance(error, errors.StreamBrokenError) else error
    message = _one_line(str(error))
    if error.field_violations:
        message += "; " + "; ".join(f"{each.field}: {each.description}" for each in error.field_violations[:3])
    if "limit" in error.metadata:
        message += f" (limit of {error.metadata.get('what', 'the server')}: {error.metadata['limit']})"
    if isinstance(cause, errors.NotFoundError):
        return Exit.WRONG, f"{message}; `ccms ls` lists what there is"
    if isinstance(cause, errors.TokenFileError):
        return Exit.REFUSED, message
    if isinstance(cause, errors.UnauthenticatedError):
        return Exit.REFUSED, f"{message}; give a valid token: --token, --token-file, or CCMS_TOKEN"
    if isinstance(cause, errors.PermissionDeniedError):
        return Exit.REFUSED, f"{message}; another token is needed: --token, --token-file, or CCMS_TOKEN"
    if isinstance(cause, errors.ServerBusyError):
        again = error.retry_after_seconds
        return Exit.UNAVAILABLE, f"{message}; try again {f'in {again:.0f} s' if again else 'later'}"
    if isinstance(cause, errors.DeadlineError):
        return Exit.UNAVAILABLE, f"{address} did not answer in time; --timeout allows more"
    if isinstance(cause, errors.ServerUnavailableError):
        return Exit.UNAVAILABLE, f"{address} cannot be reached: {message}; --server names another one, --tls encrypts"
    if isinstance(cause, errors.InvalidRequestError):
        return Exit.USAGE, message
    return Exit.SERVER, f"{message}; the log of the server says more"


def _one_line(text: str) -> str:
    return " ".join(text.split())
