"""Uses a server in every way there is, and prints the kernels that were compiled for it after those that a first start
has other processes compile.

python -m helpers.kernel_use DIRECTORY
"""

import asyncio
import json
import sys
from pathlib import Path

from ccms_client import AsyncClient
from ccms_server import jit
from ccms_server.warm_up import PARTS
from helpers.server import server_inside

METRICS = {
    "sum": {"frequency": 10, "aggregation": "sum"},
    "avg": {"frequency": 10, "aggregation": "avg"},
    "node": {"frequency": 60},
}
ORIGIN = 1_700_000_000
STEPS = 300
THREADS = 20


def signatures():
    """What each kernel is compiled for."""
    return {
        (kernel.py_func.__module__, kernel.py_func.__name__): {str(types) for types in kernel.signatures}
        for kernel in jit._kernels
    }


def batch(step):
    """Lines of one cycle: many components, jitter, several units of time, unknown metrics, a new host now and then."""
    time = ORIGIN + 10 * step
    late = time + step % 3
    lines = [
        f"{metric},cluster=c,hostname=h{host},type=hwthread,type-id={thread} value={step * 0.37 + thread} {late}"
        for metric in ("sum", "avg")
        for host in range(3)
        for thread in range(THREADS)
        if (step + thread) % 50
    ]
    lines += [f"node,cluster=c,hostname=h1 value={step}i {time}", f"node,cluster=c,hostname=h2 value=-1e-300 {time}000"]
    lines += [
        f"node,cluster=c,hostname=n{step},type=socket,type-id=0,stype=x,stype-id=1 value=1e20 {time}",
        "other x=1",
    ]
    return "\n".join(lines)


async def use(directory):
    options = {"checkpoints": {"directory": str(directory), "wal-bytes": 1 << 20, "file-format": "json"}}
    for round_ in range(2):  # the second recovers what the first has stored
        async with server_inside(metrics=METRICS, **options) as server:
            for step in range(round_ * STEPS, (round_ + 1) * STEPS):
                assert (await server.rest.write(batch(step))).status == 200
            await ask(server.rest)
            await use_grpc(server.grpc)
            assert (await server.rest.send("POST", f"/api/free?to={ORIGIN + 500}", '[["c","h1"]]')).status == 200
            assert (await server.rest.send("GET", "/api/debug")).status == 200
            server.service.store.seal_all()
            await ask(server.rest)


async def ask(rest):
    queries = [
        {"metric": "sum", "host": "h1"},
        {"metric": "avg", "host": "h1", "resolution": 30},
        {"metric": "sum", "host": "h1", "type": "hwthread", "type-ids": ["0", "1"], "aggreg": True},
        {"metric": "sum", "host": "h1", "type": "hwthread", "type-ids": ["0", "1"]},
        {"metric": "node", "host": "h1", "resolution": 120},
    ]
    body = {"cluster": "c", "from": ORIGIN - 600, "to": ORIGIN + 20_000, "queries": queries}
    for changes in ({}, {"for-all-nodes": list(METRICS)}, {"with-data": False}):
        assert (await rest.query(body | changes)).status == 200


async def use_grpc(grpc: AsyncClient):
    assert (await grpc.write_lines(b"node,cluster=c,hostname=g value=1 1700000000\n")).stored == 1


def main():
    for use_part in PARTS.values():
        use_part()
    before = signatures()
    asyncio.run(use(Path(sys.argv[1])))
    new = {".".join(kernel): sorted(types - before[kernel]) for kernel, types in signatures().items()}
    print(json.dumps({kernel: types for kernel, types in new.items() if types}))  # noqa: T201  what it is for


if __name__ == "__main__":
    main()
