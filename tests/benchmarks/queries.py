"""Times the queries a monitoring front end makes, over REST and gRPC, against servers that `load` has filled."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any, Protocol

import grpc
from benchmarks.calibration import Calibration, calibrate
from benchmarks.measured_server import MeasuredServer
from benchmarks.payloads import HWTHREADS, INTERVAL_SECONDS, host_name
from benchmarks.process import cpu_seconds

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
MARGIN_SECONDS = 7200
"""How much longer than the samples a query asks for."""
TURN_SECONDS = 0.1
"""How long one asker is timed before it is the turn of the next one: machines are faster now and slower then."""

Body = dict[str, Any]
"""A query, as REST takes it."""


class QueryFailedError(Exception):
    """A server did not answer a query, or did not find what was written."""


@dataclass(frozen=True, slots=True)
class QueryTime:
    """How long one query takes one asker."""

    median_ms: float
    p99_ms: float
    cpu_ms: float
    """Of the server process, per query."""
    values: int
    response_bytes: int
    calibration: Calibration
    """Of the same minute."""


class Asker(Protocol):
    """Asks one server over one protocol."""

    pid: int
    """The server."""

    def query(self, body: Body) -> Callable[[], Any]:
        """What asks the query: encoding it is not part of what is timed."""

    def size(self, answer: Any) -> tuple[int, int]:
        """Values and bytes of an answer.

        Raises:
            QueryFailedError: It has errors, or nothing.
        """


def cases(cluster: str, hosts: int, start: int, end: int) -> dict[str, Body]:
    """The queries by name."""
    names = [host_name(number) for number in range(hosts)]
    threads = [str(thread) for thread in range(HWTHREADS)]
    job = [{"metric": metric, "host": host} for host in names[:JOB_HOSTS] for metric in JOB_METRICS]
    span = {"cluster": cluster, "from": start, "to": end}
    of_threads = {"metric": "flops_any", "host": names[0], "type": "hwthread", "type-ids": threads}
    return {
        "one_series": span | {"queries": [{"metric": "cpu_user", "host": names[0]}]},
        "one_host_64_threads": span | {"queries": [of_threads]},
        "job_16x10": span | {"queries": job},
        "job_16x10_res600": span | {"queries": [query | {"resolution": 600} for query in job]},
        "all_nodes_stats": span | {"for-all-nodes": JOB_METRICS, "with-data": False},
        "all_nodes_5min": span | {"from": end - 300, "for-all-nodes": JOB_METRICS},
    }


def recent_cases(cluster: str, hosts: int, steps: int) -> dict[str, Body]:
    """The queries about what `load.recent_times` has written, all of it unless they say otherwise."""
    end = int(time.time()) + INTERVAL_SECONDS
    return cases(cluster, hosts, end - steps * INTERVAL_SECONDS - MARGIN_SECONDS, end)


def time_query(bodies: Mapping[Asker, Body], *, seconds: float = 3) -> dict[Asker, QueryTime]:
    """Repeats a query for some seconds with each asker, in turns.

    Over gRPC messages are parsed, over REST the text is left as it is.

    Args:
        bodies: The query of each asker; they differ in the name of the cluster.
        seconds: For each asker.

    Raises:
        QueryFailedError: One of the servers did not find what was written.
    """
    calibration = calibrate()
    timed = {asker: _Timed(asker.pid, asker.query(body)) for asker, body in bodies.items()}
    begin = time.perf_counter()
    while True:
        for each in timed.values():
            each.take_turn(min(seconds, TURN_SECONDS))
        if time.perf_counter() - begin >= len(timed) * seconds:
            break
    return {asker: each.result(calibration, *asker.size(each.answer)) for asker, each in timed.items()}


@contextmanager
def rest_asker(server: MeasuredServer) -> Iterator["RestAsker"]:
    """Asks a server over REST, on one connection."""
    with closing(HTTPConnection(server.host, server.port)) as connection:
        yield RestAsker(server.pid, connection)


@contextmanager
def grpc_asker(server: MeasuredServer) -> Iterator["GrpcAsker"]:
    """Asks a server over gRPC, on one channel."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield GrpcAsker(server.pid, MetricStoreServiceStub(channel))


@dataclass(frozen=True, slots=True, eq=False)
class RestAsker:
    """Asks over REST."""

    pid: int
    connection: HTTPConnection

    def query(self, body: Body) -> Callable[[], bytes]:
        """See `Asker`."""
        text = json.dumps(body)
        return lambda: self._answer(text)

    def _answer(self, text: str) -> bytes:
        try:
            self.connection.request("GET", "/api/query/", body=text)
            response = self.connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as error:
            raise QueryFailedError(f"no answer: {error!r}") from error
        if response.status != 200:
            raise QueryFailedError(f"GET /api/query/ was answered {response.status}")
        return answer

    def size(self, answer: bytes) -> tuple[int, int]:
        """See `Asker`."""
        rows = [row for each in json.loads(answer)["results"] for row in each]
        _check(bool(rows), [row["error"] for row in rows if row.get("error")])
        return sum(len(row.get("data") or []) for row in rows), len(answer)


@dataclass(frozen=True, slots=True, eq=False)
class GrpcAsker:
    """Asks over gRPC."""

    pid: int
    stub: MetricStoreServiceStub

    def query(self, body: Body) -> Callable[[], list[QueryResponse]]:
        """See `Asker`."""
        request = grpc_request(body)
        return lambda: list(self.stub.Query(request))

    def size(self, answer: list[QueryResponse]) -> tuple[int, int]:
        """See `Asker`."""
        parts = [part for message in answer for part in (message, *message.following)]
        _check(bool(parts), [part.header.error.message for part in parts if part.header.HasField("error")])
        return sum(len(part.values) for part in parts), sum(message.ByteSize() for message in answer)


def grpc_request(body: Body) -> QueryRequest:
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


def percentile(sorted_values: list[float], percent: float) -> float:
    """The value that so many percent of the others are smaller than."""
    return sorted_values[int(len(sorted_values) * percent / 100)]


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

    def result(self, calibration: Calibration, values: int, response_bytes: int) -> QueryTime:
        """What came out."""
        took = sorted(self.took)
        cpu_ms = self.cpu_seconds / len(took) * 1e3
        median, p99 = percentile(took, 50) * 1e3, percentile(took, 99) * 1e3
        return QueryTime(median, p99, cpu_ms, values, response_bytes, calibration)


def _check(is_something: bool, errors: list[str]) -> None:
    if not is_something or errors:
        raise QueryFailedError(errors[0] if errors else "nothing was found")
