"""The server does what its OpenAPI document says: schemathesis makes requests of the document, and checks the answers.

All of its checks are on, with data that the document allows and data that it does not. `schemathesis.toml` says where
more statuses are expected than schemathesis would by itself. It runs as a process of its own: its plugin for pytest
would take part in every other test.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from helpers.server import server_inside
from helpers.tokens import SAMPLE_KEY, SAMPLE_TOKEN

from ccms_gateway.operations import OPERATIONS

CONFIG = Path(__file__).with_name("schemathesis.toml")
HELPERS = Path(__file__).parents[1]
METRICS = {"load_one": {"frequency": 60}, "flops_any": {"frequency": 60, "aggregation": "sum"}}
LOCKED = {"jwt-public-key": SAMPLE_KEY, "auth": {"basic": [{"username": "collector", "password": "s3cret"}]}}
EXAMPLE = "load_one,cluster=alpha,hostname=n1,type=node value=1.5 1700000000\n"

# Once samples are freed, older ones are rejected, whatever the document says of lines: so nothing is written there.
FREE, OTHERS = ("--include-path", "/api/free"), ("--exclude-path", "/api/free")


@pytest.mark.parametrize("operations", [FREE, OTHERS], ids=["free", "others"])
@pytest.mark.parametrize("locked", [False, True], ids=["open", "locked"])
async def test_the_server_does_what_the_document_says(tmp_path, operations, locked):
    config = LOCKED if locked else {}
    token = SAMPLE_TOKEN if locked else None
    async with server_inside(token=token, metrics=METRICS, **config) as server:
        assert (await server.rest.write(EXAMPLE)).status == 200
        headers = ("--header", f"Authorization: Bearer {token}") if locked else ()
        status, output = await run_schemathesis(tmp_path, server.rest.base_url, *operations, *headers)
        stored = server.service.counters.stored
    free = sum(operation.path == "/api/free" for operation in OPERATIONS)
    n_operations = free if operations is FREE else len(OPERATIONS) - free - 1  # it leaves the document itself out
    assert status == 0, output
    assert "No issues found" in output
    assert f"Tested: {n_operations}\n" in output
    assert (stored > 10) == (operations is OTHERS)


async def run_schemathesis(directory, base_url, *options):
    """Runs it to the end; returns its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        CONFIG,
        "--no-color",
        "run",
        f"{base_url}/api/openapi.json",
        *("--url", base_url),
        *("--checks", "all"),
        *("--mode", "all"),
        *("--max-examples", "30"),
        *("--request-timeout", "60"),
        *("--suppress-health-check", "too_slow"),  # the machine may be busy with other tests; no check of answers
        "--generation-deterministic",
        "--continue-on-failure",
        *options,
        cwd=directory,  # where it leaves its reports
        env={**os.environ, "PYTHONPATH": str(HELPERS), "SCHEMATHESIS_HOOKS": "helpers.generated_lines"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode()
