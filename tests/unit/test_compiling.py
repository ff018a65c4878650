"""Processes that compile: these ones only say so."""

import logging

import pytest

from ccms_server import compiling
from ccms_server.compiling import compile_in_processes


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module that a process can run; returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return make


@pytest.fixture(autouse=True)
def _at_once(monkeypatch, caplog):
    monkeypatch.setattr(compiling, "PROGRESS_SECONDS", 0)
    monkeypatch.setattr(compiling, "IS_KEPT", True)
    monkeypatch.setattr(compiling, "number_of_kernels", lambda: 7)
    caplog.set_level(logging.INFO)


def test_every_kernel_is_counted_once(module, caplog):
    source = "import sys; print('compiled both'); print('compiled', sys.argv[1])"
    name = module("parts_of_kernels", source)
    compile_in_processes([[name, "one"], [name, "other"]])
    assert caplog.messages[-1] == "compiled 3 of 7 kernels"
    assert "failed" not in caplog.text


def test_they_run_at_the_same_time(module, tmp_path, caplog):
    waiting = """
import sys, time
from pathlib import Path
mine, other = (Path(__file__).with_name(name) for name in sys.argv[1:])
mine.touch()
for _ in range(1000):
    if other.exists():
        break
    time.sleep(0.02)
else:
    sys.exit("the other one does not run")
"""
    name = module("waits_for_the_other", waiting)
    compile_in_processes([[name, "a", "b"], [name, "b", "a"]])
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise MemoryError('none left')", "MemoryError: none left"),
        ("import os; os._exit(3)", "it ended with 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it ended with -9"),
    ],
)
def test_one_that_fails_is_told_of(module, caplog, source, why):
    compile_in_processes([[module("fails_to_compile", source)]])
    (message,) = caplog.messages
    assert message == f"compiling in another process failed, which makes the start slower: {why}"


def test_a_python_that_is_not_there_is_told_of(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    compile_in_processes([["any"]])
    assert "No such file or directory" in caplog.messages[0]


def test_modules_in_the_current_directory_are_not_run(monkeypatch, tmp_path, caplog):
    (tmp_path / "lies_around.py").touch()
    monkeypatch.chdir(tmp_path)
    compile_in_processes([["lies_around"]])
    assert "No module named lies_around" in caplog.messages[0]


def test_where_nothing_is_kept_nothing_is_run(monkeypatch, caplog):
    monkeypatch.setattr(compiling, "IS_KEPT", False)
    compile_in_processes([["no_such_module"]])
    assert caplog.messages == []
