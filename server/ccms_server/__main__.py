"""The command `cc-metric-store`: reads its flags and the configuration, and runs the server until it is told to stop.

Exit codes: 0 after a regular stop, 1 when the server cannot start, 2 for a mistake on the command line.
"""

import argparse
import asyncio
import gc
import importlib.util
import json
import logging
import re
import sys
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ccms_server import __version__
from ccms_server.allocator import keep_freed_memory
from ccms_server.config import Config, effective_settings, inactive_features, load_config
from ccms_server.errors import ConfigError, DirectoryError, reason_of
from ccms_server.logs import LEVEL_BY_NAME, configure_logging

logger = logging.getLogger(__name__)

PLATFORM = "the server needs Linux on a little-endian processor"
"""It resizes mappings, and loads words as they lie in memory."""

EXIT_CANNOT_START = 1
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server, or does what else a flag asks for.

    Args:
        arguments: Flags, without the name of the program; None: those of the process.

    Returns:
        Exit code of the process.
    """
    flags = _argument_parser().parse_args(_with_two_dashes(sys.argv[1:] if arguments is None else arguments))
    if flags.version:
        sys.stdout.write(f"cc-metric-store {__version__} (Python {sys.version.split()[0]})\n")
        return 0
    configure_logging(flags.loglevel, with_date=flags.logdate)
    if flags.gops:
        logger.warning("`-gops` is ignored: it is for programs written in Go, and this is none")
    try:
        config = load_config(Path(flags.config))
        for sentence in inactive_features(config):
            logger.warning("%s", sentence)
        _act(config, flags)
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


def _act(config: Config, flags: argparse.Namespace) -> None:
    """Does what the flags ask for. What only some of it needs is loaded then: mistakes are to be told at once."""
    if flags.check_config:
        sys.stdout.write(json.dumps(effective_settings(config), indent=2) + "\n")
    elif flags.cleanup_checkpoints:
        from ccms_server.legacy.cleanup import clean_up_checkpoints

        clean_up_checkpoints(config, time.time)
    elif (sys.platform, sys.byteorder) != ("linux", "little"):
        raise OSError(PLATFORM)
    else:
        from ccms_server.app import run

        keep_freed_memory()
        with asyncio.Runner(loop_factory=_event_loop_factory()) as runner:
            runner.run(run(config, dev=flags.dev, config_path=Path(flags.config), started=_spare_the_collector))


def _spare_the_collector(_: object) -> None:
    """Has the garbage collector pass over what a server that is up goes on using: modules, and the tree it recovered.

    It would go through all of that again and again while the series of new hosts are registered.
    """
    gc.freeze()


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cc-metric-store",
        description="Time-series store for the metrics of HPC clusters. Takes samples over HTTP, gRPC and "
        "NATS, and answers queries over HTTP and gRPC, until SIGINT or SIGTERM.",
        epilog="Every flag may be written with one dash or two, and its value after a space or `=`; `-dev=false` "
        "switches off again. Exit codes: 0 after a regular stop, 1 when the server cannot start, 2 for a mistake on "
        "the command line.",
        add_help=False,
        allow_abbrev=False,
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
    _add_switch(parser, "logdate", "put date and time in front of messages; systemd's journal adds its own")
    _add_switch(parser, "check-config", "print the configuration with all defaults, without its secrets, and exit")
    _add_switch(
        parser,
        "cleanup-checkpoints",
        "remove the predecessor's checkpoints that are imported or past the retention, or archive them, and exit",
    )
    _add_switch(parser, "dev", "serve a page at /swagger/ to try the REST API")
    _add_switch(parser, "gops", "ignored: it is for programs written in Go")
    _add_switch(parser, "version", "print the version and exit")
    parser.add_argument("-h", "--h", "-help", "--help", action="help", help="print this and exit")
    return parser


def _with_two_dashes(arguments: Sequence[str]) -> list[str]:
    """Writes every flag with two dashes: behind one, argparse would take `-d` for `-dev`."""
    return [f"-{argument}" if re.match("-[a-z]", argument) else argument for argument in arguments]


def _add_switch(parser: argparse.ArgumentParser, name: str, meaning: str) -> None:
    """Adds a flag that is set by its mere presence, or has a value behind `=`, as with Go's flags."""
    parser.add_argument(
        f"-{name}",
        f"--{name}",
        nargs="?",
        type=_truth,
        const=True,
        default=False,
        metavar="BOOL",
        help=meaning,
    )


def _truth(text: str) -> bool:
    """Reads what Go takes for a truth value.

    Raises:
        ArgumentTypeError: It is something else.
    """
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise argparse.ArgumentTypeError(f"must be `true` or `false`, not {text!r}")


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
