"""Warming up leaves nothing to compile: a request would wait for it, and a user without rights could not keep it."""

import asyncio
import json
import os
import pwd
import signal
import sys
from pathlib import Path

import pytest
from helpers.launch import launched
from helpers.server import server_process
from helpers.waiting import DEADLINE_SECONDS

FIRST_START_SECONDS = 3 * DEADLINE_SECONDS
COMPILER_BYTES = 50 << 20
"""Less than the compiler takes for the work of a first start."""


async def test_after_warming_up_nothing_is_compiled(tmp_path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helpers.kernel_use", str(tmp_path)),
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(2 * DEADLINE_SECONDS):
        printed, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(printed) == {}


async def test_only_the_first_start_compiles_and_says_so(tmp_path):
    options = {"environment": {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}, "start_seconds": FIRST_START_SECONDS}
    async with server_process(tmp_path, **options) as first:
        told = "".join(first.log)
        assert "compiling, which only the first start has to do" in told
        assert "compiled within" in told
        assert "failed" not in told
        first_bytes = first.anonymous_bytes()
    async with server_process(tmp_path, **options) as second:
        assert "compil" not in "".join(second.log)
        assert first_bytes < second.anonymous_bytes() + COMPILER_BYTES


async def test_a_server_starts_without_room_for_machine_code(tmp_path):
    """Files cannot grow to the size of a kernel, as on a full disk."""
    folder = tmp_path / "kernels"
    soft_limit = ("prlimit", "--fsize=2000", "--")
    async with launched(tmp_path, prefix=soft_limit, environment={"NUMBA_CACHE_DIR": str(folder)}) as server:
        assert await server.until_logged("machine code cannot be kept.*: File too large", seconds=FIRST_START_SECONDS)
        assert await server.until_logged("serving REST", seconds=FIRST_START_SECONDS)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
async def test_damaged_machine_code_is_made_anew(tmp_path, suffix):
    options = {"environment": {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}, "start_seconds": FIRST_START_SECONDS}
    async with server_process(tmp_path, **options):
        pass
    for path in (tmp_path / "kernels").rglob(f"*.{suffix}"):
        path.write_bytes(b"")
    async with server_process(tmp_path, **options) as server:
        assert "the machine code on disk cannot be used" in "".join(server.log)
    async with server_process(tmp_path, **options) as server:
        assert "compil" not in "".join(server.log)


@pytest.mark.parametrize("section", [{}, {"user": pwd.getpwuid(os.getuid()).pw_name}])
async def test_a_first_start_ends_when_it_is_told_to(tmp_path, section):
    async with launched(tmp_path, environment={"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}, **section) as server:
        assert await server.until_logged("there is no machine code")
        server.process.send_signal(signal.SIGTERM)
        assert await server.end() == 0
        assert "compiled within" not in server.text
        assert "failed" not in server.text
