import logging
import re

import pytest

from ccms_server.logs import LEVEL_BY_NAME, configure_logging


@pytest.fixture(autouse=True)
def logging_as_before():
    loggers = [logging.getLogger(name) for name in ("", "ccms_server", "ccms_gateway", "ccms_client")]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.level, logger.handlers = level, handlers


def logged_lines(capsys, logger_name):
    for level in LEVEL_BY_NAME.values():
        logging.getLogger(logger_name).log(level, "%s metrics", 7)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("level_name", LEVEL_BY_NAME)
def test_lines_name_level_and_logger_from_the_chosen_level_on(level_name, capsys):
    configure_logging(level_name)
    names = list(LEVEL_BY_NAME)[list(LEVEL_BY_NAME).index(level_name) :]
    assert logged_lines(capsys, "ccms_server.store") == [f"{name} ccms_server.store: 7 metrics" for name in names]


@pytest.mark.parametrize(("level_name", "first_heard"), [("debug", "warn"), ("info", "warn"), ("err", "err")])
def test_libraries_are_heard_from_warnings_on(level_name, first_heard, capsys):
    configure_logging(level_name)
    assert logged_lines(capsys, "numba")[0] == f"{first_heard} numba: 7 metrics"


def test_date_and_time_come_first_when_asked_for(capsys):
    configure_logging("crit", with_date=True)
    [line] = logged_lines(capsys, "ccms_server")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} crit ccms_server: 7 metrics", line)


def test_tracebacks_follow_their_message(capsys):
    configure_logging("info")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("ccms_server").exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0], lines[-1]) == ("err ccms_server: failed", "ZeroDivisionError")
