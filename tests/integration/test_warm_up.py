"""Warming up leaves nothing to compile: a request would wait for it, and a user without rights could not keep it."""

import asyncio
import json
import sys
from pathlib import Path

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
        first_bytes = first.resident_bytes()
    async with server_process(tmp_path, **options) as second:
        assert "compil" not in "".join(second.log)
        assert first_bytes < second.resident_bytes() + COMPILER_BYTES
