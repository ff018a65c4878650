"""The command line, as a process of its own wherever that is what matters."""

import inspect
import json
import socket
import subprocess
import sys
import time
import types
from importlib.metadata import version
from pathlib import Path

import pytest

from ccms_server.__main__ import main
from ccms_server.config import effective_settings, load_config

CORPUS = Path(__file__).parents[1] / "data" / "config"


def cc_metric_store(*arguments, cwd=None):
    command = [sys.executable, "-m", "ccms_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "metrics": {"cpu_load": {"frequency": 60}},
                "http-api": {"address": "localhost:0"},
                "grpc-api": {"address": "localhost:0"},
                "retention-in-memory": "1h",
            }
        )
    )
    return path


@pytest.fixture
def configs_run(monkeypatch):
    """Stands in for the server; holds the configurations and options it was run with, and what it raises."""
    configs = types.SimpleNamespace(seen=[], options=[], error=None)

    async def run(config, **options):
        configs.seen.append(config)
        configs.options.append(options)
        if configs.error is not None:
            raise configs.error

    app = types.ModuleType("ccms_server.app")
    app.run = run
    monkeypatch.setitem(sys.modules, "ccms_server.app", app)
    return configs


@pytest.fixture
def cleaned_up(monkeypatch):
    """Stands in for the work on checkpoints; holds the configurations it was called with."""
    seen = []
    cleanup = types.ModuleType("ccms_server.legacy.cleanup")
    cleanup.clean_up_checkpoints = lambda config, clock: seen.append((config, clock()))
    monkeypatch.setitem(sys.modules, "ccms_server.legacy.cleanup", cleanup)
    return seen


@pytest.mark.parametrize("flag", ["-version", "--version", "-version=true", "-dev -version=1"])
def test_version_is_printed(flag):
    result = cc_metric_store(*flag.split())
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"cc-metric-store {version('cc-metric-store')} ")


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help_names_every_flag(flag, capsys):
    with pytest.raises(SystemExit) as end:
        main([flag])
    assert end.value.code == 0
    flags = ("config", "loglevel", "logdate", "version", "dev", "gops", "check-config", "cleanup-checkpoints")
    printed = capsys.readouterr().out
    assert all(f" -{name}" in printed for name in flags)
    assert "./config.json" in printed
    assert "info" in printed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-nonsense"], "-nonsense"),
        (["-loglevel", "loud"], "'loud'"),
        (["-config"], "expected one argument"),
        (["config.json"], "config.json"),
        (["-conf", "config.json"], "-conf"),
        (["-d"], "-d"),
        (["-dev=maybe"], "must be `true` or `false`, not 'maybe'"),
        (["-version=false", "-nonsense"], "-nonsense"),
    ],
)
def test_a_mistake_on_the_command_line_exits_with_2(arguments, named, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.startswith("usage: cc-metric-store")
    assert named in errors.splitlines()[-1]


def test_a_missing_file_exits_with_1_and_one_line(tmp_path):
    result = cc_metric_store(cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "cc-metric-store: config.json: cannot be read: No such file or directory\n"


def test_a_mistake_in_the_file_exits_with_1_and_one_line(config_file):
    config_file.write_text(config_file.read_text().replace('"frequency"', '"frequenzy"'))
    result = cc_metric_store("-config", str(config_file))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"cc-metric-store: {config_file}: metrics.cpu_load.frequenzy: unknown key; did you mean `frequency`?\n"
    )


@pytest.mark.parametrize("flag", ["-config", "--config"])
@pytest.mark.parametrize("joined", [True, False])
def test_the_server_runs_with_the_configuration(flag, joined, config_file, configs_run):
    assert main([f"{flag}={config_file}"] if joined else [flag, str(config_file)]) == 0
    assert [config.retention_in_memory for config in configs_run.seen] == [3600]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(98, "cannot listen on localhost:8082: it is in use"), "cannot listen on localhost:8082: it is in use"),
        (
            FileNotFoundError(2, "No such file or directory", "a.creds"),
            "cannot use a.creds: No such file or directory",
        ),
        (OSError("the network is down"), "the network is down"),
    ],
)
def test_an_error_of_the_machine_exits_with_1_and_one_line(error, line, config_file, configs_run, capsys):
    configs_run.error = error
    assert main(["-config", str(config_file)]) == 1
    assert capsys.readouterr().err == f"cc-metric-store: {line}\n"


def test_a_taken_port_exits_with_1_and_names_the_address(config_file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config_file.write_text(config_file.read_text().replace("localhost:0", address, 1))
        result = cc_metric_store("-config", str(config_file))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("cc-metric-store: ")
    assert address in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_defect_keeps_its_traceback(config_file, configs_run):
    configs_run.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main(["-config", str(config_file)])


@pytest.mark.parametrize(
    ("flags", "dev"),
    [
        ([], False),
        (["-dev"], True),
        (["--dev"], True),
        (["-dev=true"], True),
        (["-dev=T"], True),
        (["-dev=1"], True),
        (["-dev=false"], False),
        (["-dev", "-dev=0"], False),
    ],
)
def test_the_server_is_told_of_the_page_and_of_its_file(flags, dev, config_file, configs_run):
    assert main([*flags, "-config", str(config_file)]) == 0
    [options] = configs_run.options
    assert (options["dev"], options["config_path"]) == (dev, config_file)


def test_the_server_takes_what_it_is_told():
    from ccms_server.app import run

    parameters = inspect.signature(run).parameters
    assert {"config", "dev", "config_path", "started"} <= set(parameters)


def test_gops_is_said_to_mean_nothing(config_file, configs_run, capsys):
    assert main(["-gops", "-config", str(config_file)]) == 0
    assert len(configs_run.seen) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == "warn ccms_server.__main__: `-gops` is ignored: it is for programs written in Go, and this is none"


def test_what_is_asked_for_in_vain_is_warned_of(config_file, configs_run, capsys):
    config = json.loads(config_file.read_text()) | {"debug": {"gops": True}}
    config_file.write_text(json.dumps(config))
    assert main(["-config", str(config_file), "-loglevel", "warn"]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warn ccms_server.__main__: `debug.gops` is set")


@pytest.mark.parametrize("name", ["predecessor-2024.good.json", "predecessor-1.5.good.json"])
def test_a_configuration_is_checked_and_printed(name):
    result = cc_metric_store("-check-config", "-config", str(CORPUS / name))
    assert result.returncode == 0
    printed = json.loads(result.stdout)
    assert printed == effective_settings(load_config(CORPUS / name))
    assert "swordfish" not in result.stdout
    [line] = result.stderr.splitlines()
    assert "debug.gops` is set, but " in line


def test_a_mistake_is_told_rather_than_printed(config_file, configs_run, capsys):
    config_file.write_text("{}")
    assert main(["-check-config", "-config", str(config_file)]) == 1
    out, errors = capsys.readouterr()
    assert (out, errors) == ("", f"cc-metric-store: {config_file}: metrics: is required\n")
    assert configs_run.seen == []


def test_a_configuration_that_is_checked_is_not_run(config_file, configs_run, cleaned_up):
    assert main(["-check-config", "-cleanup-checkpoints", "-config", str(config_file)]) == 0
    assert configs_run.seen == cleaned_up == []


def test_checkpoints_are_cleaned_up_and_nothing_is_run(config_file, configs_run, cleaned_up):
    before = time.time()
    assert main(["-cleanup-checkpoints", "-config", str(config_file)]) == 0
    [(config, now)] = cleaned_up
    assert config == load_config(config_file)
    assert before <= now <= time.time()
    assert configs_run.seen == []


@pytest.mark.parametrize(("name", "value"), [("platform", "darwin"), ("byteorder", "big")])
def test_a_machine_that_cannot_run_the_server_is_told_so(monkeypatch, config_file, configs_run, capsys, name, value):
    monkeypatch.setattr(sys, name, value)
    assert main(["-config", str(config_file)]) == 1
    assert capsys.readouterr().err.endswith("cc-metric-store: the server needs Linux on a little-endian processor\n")
    assert configs_run.seen == []
