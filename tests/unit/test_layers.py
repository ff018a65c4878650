"""Imports point one way: gateway, rpc, NATS -> service -> ingest, query -> store <- durability; the rest is unknown."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imports(folder):
    """Modules that the files of a folder import, with the file's name."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {(path.name, alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((path.name, node.module))
    assert found
    return found


@pytest.mark.parametrize(
    ("folder", "unknown"),
    [
        ("server/ccms_server/store", ["asyncio", "google", "grpc", "aiohttp", "nats", "time", "datetime", "socket"]),
        ("server/ccms_server/store", ["ccms_server.ingest", "ccms_server.service", "ccms_server.config", "ccms."]),
        ("server/ccms_server/durability", ["asyncio", "grpc", "google", "aiohttp", "nats", "ccms.", "ccms_server.rpc"]),
        ("server/ccms_server/durability", ["ccms_server.service", "ccms_server.ingest", "ccms_server.legacy"]),
        ("server/ccms_server/store", ["ccms_server.durability", "os", "pathlib"]),
        ("server/ccms_server/legacy", ["asyncio", "grpc", "google", "aiohttp", "nats", "ccms.", "ccms_server.rpc"]),
        ("server/ccms_server/legacy", ["ccms_server.service", "ccms_server.ingest"]),
        ("server/ccms_server/ingest", ["grpc", "google", "aiohttp", "ccms.", "ccms_server.rpc", "ccms_server.service"]),
        ("server/ccms_server/rpc", ["aiohttp", "nats", "ccms_server.store", "ccms_gateway"]),
        ("gateway/ccms_gateway", ["grpc", "nats", "ccms_server.store", "ccms_server.service", "ccms_server.ingest"]),
        ("client/ccms_client", ["ccms_server", "ccms_gateway", "ccms_cli.", "aiohttp", "nats", "numba", "typer"]),
        ("client/ccms_cli", ["ccms_gateway", "ccms.", "aiohttp", "nats", "numba", "grpc"]),
    ],
)
def test_a_layer_does_not_know(folder, unknown):
    known = [(file, module) for file, module in imports(folder) if f"{module}.".startswith(tuple(unknown))]
    assert known == []


def test_the_command_line_knows_of_the_server_only_how_to_read_the_files_of_the_predecessor():
    known = {(file, module) for file, module in imports("client/ccms_cli") if module.startswith("ccms_server")}
    assert {file for file, _ in known} == {"legacy_files.py"}
    assert all(module.startswith("ccms_server.legacy.") for _, module in known)
