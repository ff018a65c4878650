"""Times the REST queries a monitoring front end makes, against a server that `load` has filled."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection

from benchmarks.load import cpu_seconds

JOB_METRICS = [
    "flops_any",
    "mem_bw",
    "ipc",
    "clock",
    "cpu_power",
    "acc_utilization",
    "acc_power",
    "cpu_user",
    "ib_recv",
    "ib_xmit",
]
JOB_HOSTS = 16
THREADS = 64
REPETITIONS_MAX = 300


@dataclass(frozen=True, slots=True)
class QueryTime:
    """How long one query takes."""

    name: str
    median_ms: float
    p99_ms: float
    cpu_ms: float
    """Of the server process, per query."""
    values: int
    response_bytes: int


def cases(hosts: int, start: int, end: int) -> Iterator[tuple[str, dict[str, object]]]:
    """Name and body of each query."""
    names = [f"n{number:04d}" for number in range(hosts)]
    threads = [str(thread) for thread in range(THREADS)]
    job = [{"metric": metric, "host": host} for host in names[:JOB_HOSTS] for metric in JOB_METRICS]
    span = {"cluster": "bench", "from": start, "to": end}
    of_threads = {"metric": "flops_any", "host": names[0], "type": "hwthread", "type-ids": threads}
    yield "one_series", span | {"queries": [{"metric": "cpu_user", "host": names[0]}]}
    yield "one_host_64_threads", span | {"queries": [of_threads]}
    yield "job_16x10", span | {"queries": job}
    yield "job_16x10_res600", span | {"queries": [query | {"resolution": 600} for query in job]}
    yield "all_nodes_stats", span | {"for-all-nodes": JOB_METRICS, "with-data": False}
    yield "all_nodes_5min", span | {"from": end - 300, "for-all-nodes": JOB_METRICS}


def time_queries(port: int, pid: int, *, hosts: int, steps: int, seconds: float = 3) -> list[QueryTime]:
    """Repeats each query for some seconds.

    Raises:
        AssertionError: A query did not find what `load` wrote.
    """
    end = int(time.time()) + 60
    connection = HTTPConnection("127.0.0.1", port)
    results = []
    for name, body in cases(hosts, end - steps * 60 - 7200, end):
        text, took, before, begin = json.dumps(body), [], cpu_seconds(pid), time.perf_counter()
        while not took or (time.perf_counter() - begin < seconds and len(took) < REPETITIONS_MAX):
            sent = time.perf_counter()
            connection.request("GET", "/api/query/", body=text)
            response = connection.getresponse()
            answer = response.read()
            took.append(time.perf_counter() - sent)
            assert response.status == 200, (response.status, answer[:300])
        cpu_ms = (cpu_seconds(pid) - before) / len(took) * 1e3
        took.sort()
        rows = [row for each in json.loads(answer)["results"] for row in each]
        assert not any("error" in row for row in rows), next(row for row in rows if "error" in row)
        values = sum(len(row.get("data") or []) for row in rows)
        median, p99 = took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3
        results.append(QueryTime(name, median, p99, cpu_ms, values, len(answer)))
    connection.close()
    return results
