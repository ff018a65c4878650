"""Times the queries a monitoring front end makes, over REST and gRPC, against a server that `load` has filled."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import grpc
from benchmarks.load import cpu_seconds

from ccms.v1.metric_store_service_pb2 import QueryRequest, QueryResponse, SeriesQuery
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub

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
TURN_SECONDS = 0.1
"""How long one protocol is timed before it is the turn of the other one: machines are faster now and slower then."""


@dataclass(frozen=True, slots=True)
class QueryTime:
    """How long one query takes over one protocol."""

    protocol: str
    name: str
    median_ms: float
    p99_ms: float
    cpu_ms: float
    """Of the server process, per query."""
    values: int
    response_bytes: int


def cases(hosts: int, start: int, end: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and body of each query, as REST takes it."""
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


def time_queries(
    port: int, grpc_address: str, pid: int, *, hosts: int, steps: int, seconds: float = 3
) -> list[QueryTime]:
    """Repeats each query for some seconds over each protocol, in turns.

    Over gRPC messages are parsed, over REST the text is left as it is.

    Raises:
        AssertionError: A query did not find what `load` wrote.
    """
    end = int(time.time()) + 60
    results = []
    connection = HTTPConnection("127.0.0.1", port)
    with grpc.insecure_channel(grpc_address) as channel:
        stub = MetricStoreServiceStub(channel)
        for name, body in cases(hosts, end - steps * 60 - 7200, end):
            text, message = json.dumps(body), grpc_request(body)
            rest = _Timed(pid, lambda text=text: _rest_answer(connection, text))
            over_grpc = _Timed(pid, lambda message=message: list(stub.Query(message)))
            begin = time.perf_counter()
            while not over_grpc.took or time.perf_counter() - begin < 2 * seconds:
                rest.take_turn(min(seconds, TURN_SECONDS))
                over_grpc.take_turn(min(seconds, TURN_SECONDS))
            results.append(rest.result("REST", name, *_rest_size(rest.answer)))
            results.append(over_grpc.result("gRPC", name, *_grpc_size(over_grpc.answer)))
    connection.close()
    return results


def grpc_request(body: dict[str, Any]) -> QueryRequest:
    """The same query over gRPC."""
    return QueryRequest(
        cluster=body["cluster"],
        start_seconds=body["from"],
        end_seconds=body["to"],
        queries=[
            SeriesQuery(
                metric=query["metric"],
                host=query["host"],
                type=query.get("type", ""),
                type_ids=query.get("type-ids", ()),
                resolution_seconds=query.get("resolution", 0),
            )
            for query in body.get("queries", ())
        ],
        all_hosts_metrics=body.get("for-all-nodes", ()),
        omit_values=not body.get("with-data", True),
        bundle_parts=True,
    )


@dataclass(slots=True)
class _Timed:
    """A query that is repeated."""

    pid: int
    """The server."""
    ask: Callable[[], Any]
    took: list[float] = field(default_factory=list)
    """Seconds of each repetition."""
    cpu_seconds: float = 0.0
    """Of the server, for all of them."""
    answer: Any = None
    """The last one."""

    def take_turn(self, seconds: float) -> None:
        """Repeats it for some time, at least once."""
        before, begin = cpu_seconds(self.pid), time.perf_counter()
        while True:
            sent = time.perf_counter()
            self.answer = self.ask()
            now = time.perf_counter()
            self.took.append(now - sent)
            if now - begin >= seconds:
                break
        self.cpu_seconds += cpu_seconds(self.pid) - before

    def result(self, protocol: str, name: str, values: int, response_bytes: int) -> QueryTime:
        """What came out."""
        took = sorted(self.took)
        median, p99 = took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3
        return QueryTime(protocol, name, median, p99, self.cpu_seconds / len(took) * 1e3, values, response_bytes)


def _rest_answer(connection: HTTPConnection, text: str) -> bytes:
    connection.request("GET", "/api/query/", body=text)
    response = connection.getresponse()
    answer = response.read()
    assert response.status == 200, (response.status, answer[:300])
    return answer


def _rest_size(answer: bytes) -> tuple[int, int]:
    """Values and bytes of an answer without errors."""
    rows = [row for each in json.loads(answer)["results"] for row in each]
    assert rows
    assert not any("error" in row for row in rows), next(row for row in rows if "error" in row)
    return sum(len(row.get("data") or []) for row in rows), len(answer)


def _grpc_size(answer: list[QueryResponse]) -> tuple[int, int]:
    """The same of an answer over gRPC."""
    parts = [part for message in answer for part in (message, *message.following)]
    assert parts
    assert not any(part.header.HasField("error") for part in parts)
    return sum(len(part.values) for part in parts), sum(message.ByteSize() for message in answer)
