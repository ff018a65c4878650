"""The examples of the client's documentation work as printed, in a session as of `python -m asyncio`."""

import ast
import asyncio
import doctest
import gzip
import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
from helpers.server import server_inside

import ccms_client
from ccms_client import AsyncClient

MEASUREMENTS = Path(__file__).parents[1] / "data" / "emmy-1403244.lp.gz"
METRICS = (
    "cpu_load",
    "clock",
    "flops_any",
    "flops_dp",
    "flops_sp",
    "ipc",
    "mem_bw",
    "mem_used",
    "rapl_power",
)


def examples():
    """All docstrings with examples, module by module."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in pkgutil.iter_modules(ccms_client.__path__, "ccms_client."):
        found = finder.find(importlib.import_module(module.name))
        yield from (each for each in found if each.examples)


def run(examples, loop, names, monkeypatch):
    """Runs examples, whose top level may `await`; returns what went wrong."""

    def compile_awaiting(source, filename, mode, flags, dont_inherit):
        return compile(source, filename, mode, flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit)

    def run_awaiting(code, names):
        result = eval(code, names)
        if inspect.iscoroutine(result):
            asyncio.run_coroutine_threadsafe(result, loop).result(30)

    monkeypatch.setattr(doctest, "compile", compile_awaiting, raising=False)
    monkeypatch.setattr(doctest, "exec", run_awaiting, raising=False)
    written = []
    runner = doctest.DocTestRunner(verbose=False)
    for example in examples:
        example.globs.update(names)
        runner.run(example, out=written.append)
    return "".join(written)


async def test_examples(monkeypatch):
    found = list(examples())
    assert len(found) > 10
    metrics = {metric: {"frequency": 60} for metric in METRICS}
    async with server_inside(metrics=metrics) as server, AsyncClient(server.grpc_address) as client:
        async with client.writer() as writer:
            lines = gzip.decompress(MEASUREMENTS.read_bytes()).splitlines(keepends=True)
            for batch in range(0, len(lines), 10_000):
                await writer.write_lines(b"".join(lines[batch : batch + 10_000]))
        await client.write_lines(b"cpu_load,cluster=alex,hostname=n1 value=1 1700000000")
        names = {"client": client, "address": server.grpc_address, "np": np}
        failures = await asyncio.to_thread(run, found, asyncio.get_running_loop(), names, monkeypatch)
    assert not failures, failures
