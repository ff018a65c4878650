"""What deploys the server, beside its configuration: the systemd unit and the container file name what exists."""

import json
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ccms_server.__main__ import main
from ccms_server.config import load_config, split_address

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "configs" / "systemd" / "cc-metric-store.service"
CONTAINER = ROOT / "configs" / "container"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROGRAMS = PROJECT["project"]["scripts"]


def unit_settings(key):
    """Values of a key of the unit, in order."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def instructions(name):
    """Arguments of all instructions of a kind in the container file."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (CONTAINER / "Containerfile").read_text(), flags=re.MULTILINE))
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def checked(arguments, config, capsys):
    """The configuration that a command line would run with, were its file another."""
    at = arguments.index("-config") + 1
    assert main([*arguments[:at], str(config), *arguments[at + 1 :], "-check-config"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_unit_starts_the_server_with_flags_it_has(capsys):
    [command] = unit_settings("ExecStart")
    program, *arguments = shlex.split(command)
    assert Path(program).name in PROGRAMS
    assert checked(arguments, ROOT / "configs" / "config.json", capsys)["http-api"]["address"] == "localhost:8082"


def test_the_unit_speaks_the_protocols_of_the_server():
    assert unit_settings("Type") == ["notify"]
    assert unit_settings("ExecReload") == ["/bin/kill -HUP $MAINPID"]
    assert unit_settings("MemoryDenyWriteExecute") == []  # kernels are compiled in memory


def test_the_unit_lets_the_shipped_directories_be_written(capsys):
    [state], [working] = unit_settings("StateDirectory"), unit_settings("WorkingDirectory")
    assert working == f"%S/{state}"
    for path in (ROOT / "configs").glob("*.json"):
        assert not Path(load_config(path).checkpoints.directory).is_absolute()


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    [command] = unit_settings("ExecStart")
    installed = shlex.split(command)[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(installed, sys.executable))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_container_holds_what_the_installation_needs():
    copied = [shlex.split(line) for line in instructions("COPY")]
    sources = {source for *sources, _ in copied for source in sources}
    assert all((ROOT / source).exists() for source in sources)
    assert set(PROJECT["tool"]["setuptools"]["packages"]["find"]["where"]) <= sources
    assert {"pyproject.toml", PROJECT["project"]["readme"], "constraints.txt"} <= sources
    [install] = [line for line in instructions("RUN") if line.startswith("pip install")]
    extra = re.search(r"\.\[(\w+)\]", install)[1]
    assert extra in PROJECT["project"]["optional-dependencies"]


def test_the_container_serves_on_the_ports_it_exposes(tmp_path, capsys):
    [setup] = [line for line in instructions("RUN") if line.startswith("sed ")]
    config = tmp_path / "config.json"
    shutil.copy(ROOT / "configs" / "config.json", config)
    edit = shlex.split(setup.split("&&")[0])
    assert edit[-1] == json.loads(instructions("CMD")[0])[1]
    subprocess.run([*edit[:-1], str(config)], check=True)
    [entry_point], [command] = map(json.loads, instructions("ENTRYPOINT")), map(json.loads, instructions("CMD"))
    assert entry_point[0] in PROGRAMS
    effective = checked([*entry_point[1:], *command], config, capsys)
    addresses = effective["http-api"]["address"], effective["grpc-api"]["address"]
    [exposed] = instructions("EXPOSE")
    assert [split_address(address) for address in addresses] == [("", int(port)) for port in exposed.split()]


def test_the_container_is_not_run_by_root_and_keeps_its_data_on_the_volume():
    [user], [volume] = instructions("USER"), instructions("VOLUME")
    assert user not in ("root", "0")
    assert instructions("WORKDIR")[-1] == volume
    assert [line for line in instructions("ENV") if "CACHE" in line] == [f"XDG_CACHE_HOME={volume}/.cache"]


def test_the_container_asks_for_its_health_where_it_serves():
    [check] = instructions("HEALTHCHECK")
    _, script, address = json.loads(check.partition("CMD ")[2])
    assert (CONTAINER / Path(script).name).exists()
    assert address == load_config(ROOT / "configs" / "config.json").grpc_api.address


@pytest.fixture
def health_server():
    """A gRPC server with nothing but the health service, and its address."""
    servicer = health.HealthServicer()
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("localhost:0")
        server.start()
        yield servicer, f"localhost:{port}"
        server.stop(None).wait()


@pytest.mark.parametrize(("status", "healthy"), [("SERVING", True), ("NOT_SERVING", False)])
def test_health_is_what_the_server_says(status, healthy, health_server):
    servicer, address = health_server
    servicer.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    assert runpy.run_path(str(CONTAINER / "healthcheck.py"))["is_serving"](address) is healthy


def test_a_server_that_does_not_answer_is_not_healthy(capsys):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert runpy.run_path(str(CONTAINER / "healthcheck.py"))["is_serving"](address) is False
    assert capsys.readouterr().err.startswith(f"{address}: ")
