"""Warming up leaves nothing to compile: a request would wait for it, and a user without rights could not keep it."""

import asyncio
import json
import sys
from pathlib import Path

from helpers.waiting import DEADLINE_SECONDS


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
