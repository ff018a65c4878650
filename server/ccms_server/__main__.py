"""The command `cc-metric-store`: reads its flags and the configuration, and runs the server until it is told to stop.

Exit codes: 0 after a regular stop, 1 when the server cannot start, 2 for a mistake on the command line.
"""

import argparse
import asyncio
import importlib.util
import logging
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ccms_server import __version__
from ccms_server.config import inactive_features, load_config
from ccms_server.errors import ConfigError, DirectoryError, reason_of
from ccms_server.logs import LEVEL_BY_NAME, configure_logging

logger = logging.getLogger(__name__)

EXIT_CANNOT_START = 1
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server.

    Args:
        arguments: Flags, without the name of the program; None: those of the process.

    Returns:
        Exit code of the process.
    """
    flags = _argument_parser().parse_args(arguments)
    configure_logging(flags.loglevel, with_date=flags.logdate)
    try:
        config = load_config(Path(flags.config))
        for sentence in inactive_features(config):
            logger.warning("%s", sentence)
        # Loading the compiled kernels takes a moment: a mistake in the file is told without it.
        from ccms_server.app import run

        with asyncio.Runner(loop_factory=_event_loop_factory()) as runner:
            runner.run(run(config))
    except (ConfigError, DirectoryError, OSError) as error:
        sys.stderr.write(f"cc-metric-store: {_reason(error)}\n")
        return EXIT_CANNOT_START
    except ExceptionGroup as group:  # what is on disk cannot be read
        unexpected = group.split((DirectoryError, OSError))[1]
        if unexpected is not None:
            raise
        for leaf in _leaves(group):
            sys.stderr.write(f"cc-metric-store: {_reason(leaf)}\n")
        return EXIT_CANNOT_START
    except KeyboardInterrupt:  # before the server has taken over the signal
        return EXIT_INTERRUPTED
    return 0


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cc-metric-store",
        description="Time-series store for the metrics of HPC clusters. Takes samples over HTTP, gRPC and "
        "NATS, and answers queries over HTTP and gRPC, until SIGINT or SIGTERM.",
        epilog="Every flag may be written with one dash or two. Exit codes: 0 after a regular stop, 1 when the server "
        "cannot start, 2 for a mistake on the command line.",
    )
    parser.add_argument(
        "-config", "--config", metavar="FILE", default="./config.json", help="configuration file (default: %(default)s)"
    )
    parser.add_argument(
        "-loglevel",
        "--loglevel",
        choices=LEVEL_BY_NAME,
        default="info",
        help="least grave messages to log (default: %(default)s)",
    )
    parser.add_argument(
        "-logdate",
        "--logdate",
        action="store_true",
        help="put date and time in front of messages; systemd's journal adds its own",
    )
    parser.add_argument(
        "-version",
        "--version",
        action="version",
        version=f"cc-metric-store {__version__} (Python {sys.version.split()[0]})",
        help="print the version and exit",
    )
    return parser


def _reason(error: BaseException) -> str:
    """What went wrong, and which file it was about."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}"
    return reason_of(error)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions that a group stands for."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _event_loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """The faster event loop where it is installed, as it is on every platform it exists for; None: Python's own."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
