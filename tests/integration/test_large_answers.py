"""Answers that are larger than what client and server may take in memory for them, or than anyone wants to have."""

import asyncio
import json
import sys

import numpy as np
import pytest
from benchmarks.process import cpu_seconds
from grpc import aio
from helpers.server import server_process

from ccms.v1 import metric_store_service_pb2 as service_pb
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms_client import SampleColumn, SeriesQuery

START = 1_700_000_000 // 60 * 60
HOSTS, SAMPLES = 200, 2880
END = START + 60 * SAMPLES
GROWTH_BYTES_MAX = 16 << 20
CPU_SECONDS_MAX = 0.1
"""What a server may still do for a call that was cancelled."""

READ_IN_PROCESS = """
import asyncio, json, re, sys
from pathlib import Path
from ccms_client import AsyncClient, queries_of

def memory(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

async def main():
    async with AsyncClient(sys.argv[1]) as client:
        start, end = int(sys.argv[2]), int(sys.argv[3])
        async for _ in client.stream("alex", start, end, queries_of(["load"], ["n0"])):
            pass
        Path("/proc/self/clear_refs").write_text("5")
        before, n_series, n_values = memory("VmRSS"), 0, 0
        async for series in client.stream("alex", start, end, all_hosts_metrics=["load"]):
            n_series, n_values = n_series + 1, n_values + series.values.size
        print(json.dumps({"series": n_series, "values": n_values, "growth": memory("VmHWM") - before}))

asyncio.run(main())
"""


@pytest.fixture
async def server(tmp_path):
    """A server with 200 series of two days."""
    limits = {"query-points": 2**31 - 1, "query-series": 200_000}
    async with server_process(tmp_path, metrics={"load": {"frequency": 60}}, limits=limits) as running:
        random = np.random.default_rng(1)
        values = random.random((HOSTS, SAMPLES)).round(3)
        columns = [
            SampleColumn(metric="load", cluster="alex", host=f"n{host}", start=START, values=values[host])
            for host in range(HOSTS)
        ]
        assert (await running.grpc.write(columns)).stored == HOSTS * SAMPLES
        await running.grpc.checkpoint()
        await running.grpc.query("alex", START, END, [SeriesQuery(metric="load", host="n0")])
        yield running


async def test_an_answer_is_streamed_in_little_memory_on_both_sides(server):
    server.forget_resident_peak()
    before = server.resident_bytes()
    command = (sys.executable, "-c", READ_IN_PROCESS, server.grpc_address, str(START), str(END))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    told = json.loads(out)
    assert (told["series"], told["values"]) == (HOSTS, HOSTS * SAMPLES)
    assert told["growth"] < GROWTH_BYTES_MAX
    assert server.resident_peak_bytes() - before < GROWTH_BYTES_MAX


def everything_many_times(times):
    queries = [service_pb.SeriesQuery(metric="load", host=f"n{host}") for host in range(HOSTS)] * times
    return service_pb.QueryRequest(cluster="alex", start_seconds=START, end_seconds=END, queries=queries)


async def idle_cpu_seconds(server):
    """CPU time of the server once it does nothing any more."""
    last = -1.0
    while (now := cpu_seconds(server.process.pid)) > last:
        last = now
        await asyncio.sleep(0.1)
    return now


@pytest.mark.parametrize("with_values", [True, False])
async def test_a_call_that_is_cancelled_costs_the_server_nothing_more(server, with_values):
    request = everything_many_times(100)
    request.omit_values = not with_values
    async with aio.insecure_channel(server.grpc_address) as channel:
        call = MetricStoreServiceStub(channel).Query(request)
        await call.read()
        call.cancel()
        before = cpu_seconds(server.process.pid)
        assert await idle_cpu_seconds(server) - before <= CPU_SECONDS_MAX


async def test_a_deadline_ends_the_work_as_well(server):
    async with aio.insecure_channel(server.grpc_address) as channel:
        call = MetricStoreServiceStub(channel).Query(everything_many_times(100), timeout=0.3)
        with pytest.raises(aio.AioRpcError):
            async for _ in call:
                pass
        before = cpu_seconds(server.process.pid)
        assert await idle_cpu_seconds(server) - before <= CPU_SECONDS_MAX


async def test_answers_that_are_not_read_stall_neither_writers_nor_readers(server):
    async with aio.insecure_channel(server.grpc_address) as channel:
        stub = MetricStoreServiceStub(channel)
        stalled = [stub.Query(everything_many_times(20)) for _ in range(8)]
        for call in stalled:
            await call.read()
        server.forget_resident_peak()
        before = server.resident_bytes()
        async with asyncio.timeout(30):
            for value in range(20):
                lines = f"load,cluster=alex,hostname=new value={value} {START + 60 * value}\n"
                assert (await server.grpc.write_lines(lines.encode())).stored == 1
                [series] = await server.grpc.query("alex", START, END, [SeriesQuery(metric="load", host="new")])
                assert series.values[-1] == value
            assert len(await server.grpc.query("alex", START, END, all_hosts_metrics=["load"])) == HOSTS + 1
        assert server.resident_peak_bytes() - before < 8 * GROWTH_BYTES_MAX
        for call in stalled:
            call.cancel()
