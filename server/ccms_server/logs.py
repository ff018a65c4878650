"""Logging to stderr, with the level names of the predecessor's `-loglevel`."""

import logging
from typing import Final

LEVEL_BY_NAME: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "err": logging.ERROR,
    "crit": logging.CRITICAL,
}
_NAME_BY_LEVEL: Final = {level: name for name, level in LEVEL_BY_NAME.items()}
_OWN_PACKAGES: Final = ("ccms_server", "ccms_gateway", "ccms_client")


def configure_logging(level_name: str, *, with_date: bool = False) -> None:
    """Sends what this program logs to stderr, a line each: `level logger: message`.

    Args:
        level_name: A key of `LEVEL_BY_NAME`; what is less grave is left out. Libraries are heard from `warn` on:
            their debugging messages would bury ours.
        with_date: Put date and time in front; systemd's journal has its own.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s" if with_date else "%(message)s"))
    level = LEVEL_BY_NAME[level_name]
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    for package in _OWN_PACKAGES:
        logging.getLogger(package).setLevel(level)


class _Formatter(logging.Formatter):
    """Puts the level, by the name users know, and the logger in front of the message."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the base class names it
        record.message = f"{_NAME_BY_LEVEL.get(record.levelno, record.levelname)} {record.name}: {record.message}"
        return super().formatMessage(record)
