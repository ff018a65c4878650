"""The command line, as a process of its own wherever that is what matters."""

import json
import socket
import subprocess
import sys
import types
from importlib.metadata import version

import pytest

from ccms_server.__main__ import main


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
    """Stands in for the server; holds the configurations it was run with, and what it raises."""
    configs = types.SimpleNamespace(seen=[], error=None)

    async def run(config):
        configs.seen.append(config)
        if configs.error is not None:
            raise configs.error

    app = types.ModuleType("ccms_server.app")
    app.run = run
    monkeypatch.setitem(sys.modules, "ccms_server.app", app)
    return configs


@pytest.mark.parametrize("flag", ["-version", "--version"])
def test_version_is_printed(flag):
    result = cc_metric_store(flag)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"cc-metric-store {version('cc-metric-store')} ")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_flag(flag):
    result = cc_metric_store(flag)
    assert result.returncode == 0
    assert all(
        name in result.stdout for name in ("-config", "-loglevel", "-logdate", "-version", "./config.json", "info")
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-nonsense"], "-nonsense"),
        (["-loglevel", "loud"], "'loud'"),
        (["-config"], "expected one argument"),
        (["config.json"], "config.json"),
    ],
)
def test_a_mistake_on_the_command_line_exits_with_2(arguments, named):
    result = cc_metric_store(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: cc-metric-store")
    assert named in result.stderr.splitlines()[-1]


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


def test_a_key_that_is_not_checked_is_warned_of(config_file, configs_run, capsys):
    config = json.loads(config_file.read_text())
    config["jwt-public-key"] = "kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0="
    config_file.write_text(json.dumps(config))
    assert main(["-config", str(config_file), "-loglevel", "warn"]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warn ccms_server.__main__: `jwt-public-key` is set")
    assert line.endswith("requests are NOT authenticated")
