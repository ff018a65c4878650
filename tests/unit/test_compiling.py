"""Processes that compile: these ones only say so."""

import asyncio
import logging
import os
import sys
from pathlib import Path

import pytest
from helpers.waiting import eventually

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


async def test_every_kernel_is_counted_once(module, caplog):
    source = "import sys; print('compiled both'); print('compiled', sys.argv[1])"
    name = module("parts_of_kernels", source)
    await compile_in_processes([[name, "one"], [name, "other"]])
    assert caplog.messages[-1] == "compiled 3 of 7 kernels"
    assert "failed" not in caplog.text


async def test_they_run_at_the_same_time(module, tmp_path, caplog):
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
    await compile_in_processes([[name, "a", "b"], [name, "b", "a"]])
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise MemoryError('none left')", "MemoryError: none left"),
        ("import os; os._exit(3)", "it ended with 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it ended with -9"),
    ],
)
async def test_one_that_fails_is_told_of(module, caplog, source, why):
    await compile_in_processes([[module("fails_to_compile", source)]])
    (message,) = caplog.messages
    assert message == f"compiling in another process failed, which makes the start slower: {why}"


async def test_a_python_that_is_not_there_is_told_of(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    await compile_in_processes([["any"]])
    assert "No such file or directory" in caplog.messages[0]


async def test_modules_in_the_current_directory_are_not_run(monkeypatch, tmp_path, caplog):
    (tmp_path / "lies_around.py").touch()
    monkeypatch.chdir(tmp_path)
    await compile_in_processes([["lies_around"]])
    assert "No module named lies_around" in caplog.messages[0]


async def test_where_nothing_is_kept_nothing_is_run(monkeypatch, caplog):
    monkeypatch.setattr(compiling, "IS_KEPT", False)
    await compile_in_processes([["no_such_module"]])
    assert caplog.messages == []


HANGS = """
import os, sys, time
from pathlib import Path
from ccms_server.compiling import compiling_for_parent
with compiling_for_parent():
    Path(sys.argv[1]).with_suffix(".new").write_text(str(os.getpid()))
    Path(sys.argv[1]).with_suffix(".new").rename(sys.argv[1])
    time.sleep(600)
"""


def has_ended(pid):
    """Whether a process is gone, or would be if the one that inherited it took notice."""
    try:
        status = (Path("/proc") / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(") ")[2].startswith("Z")


async def pid_in(path):
    await eventually(path.exists, "a process that has begun to work")
    return int(path.read_text())


async def test_none_is_left_when_it_is_given_up(module, tmp_path, caplog):
    paths = [tmp_path / "one", tmp_path / "other"]
    name = module("hangs", HANGS)
    compiling_ = asyncio.create_task(compile_in_processes([[name, str(path)] for path in paths]))
    pids = [await pid_in(path) for path in paths]
    compiling_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await compiling_
    assert all(map(has_ended, pids))
    assert caplog.messages == []


async def test_one_that_hangs_is_given_up(module, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(compiling, "SECONDS_MAX", 0.1)
    name = module("hangs_for_ever", "import time; time.sleep(600)")
    await compile_in_processes([[name]])
    (message,) = caplog.messages
    assert message.endswith("makes the start slower: it took longer than 0.1 s")


PARENT = """
import asyncio, sys
from ccms_server import compiling
compiling.IS_KEPT = True
asyncio.run(compiling.compile_in_processes([sys.argv[1:]]))
"""


async def test_one_whose_parent_is_killed_ends(module, tmp_path):
    path = tmp_path / "pid"
    command = [sys.executable, "-c", PARENT, module("hangs_alone", HANGS), str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = await asyncio.create_subprocess_exec(*command, env=environment)
    pid = await pid_in(path)
    parent.kill()
    await parent.wait()
    await eventually(lambda: has_ended(pid), "the end of a process without a parent")
