import logging
import sys

import pytest

from ccms_server.legacy import progress
from ccms_server.legacy.progress import Progress


@pytest.fixture
def notified(monkeypatch):
    states = []
    monkeypatch.setattr(progress, "notify", states.append)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    return states


class Terminal:
    """Somebody who watches."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass


def test_in_a_log_there_is_a_line_now_and_then(notified, caplog):
    caplog.set_level(logging.INFO)
    with Progress(4, 2000) as shown:
        shown.show(0, 0, 0)
        shown.show(3, 1000, 123_456)
    assert "importing: 0 of 4 files, 0 samples, 0 a second\n" in caplog.text
    assert "importing: 3 of 4 files, 123,456 samples" in caplog.text
    assert notified == ["EXTEND_TIMEOUT_USEC=60000000"] * 2


@pytest.mark.usefixtures("notified")
def test_on_a_terminal_there_is_a_bar_and_no_line(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.0)
    with Progress(4, 2000) as shown:
        shown.show(3, 1000, 123_456)
    assert "importing" in terminal.text
    assert "50%" in terminal.text
    assert "3/4 files" in terminal.text
    assert "samples/s" in terminal.text
    assert caplog.text == ""


def test_nothing_is_said_before_it_is_time(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "LOG_SECONDS", 1e6)
    with Progress(4, 2000) as shown:
        shown.show(3, 1000, 5)
    assert caplog.text == ""
