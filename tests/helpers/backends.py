"""The same requests to the same store on three ways: in its process, by the gRPC client, over REST.

Each way takes requests, and gives answers, in the same words: those of `ccms_server.model`, values as plain floats. So
a test that is written once says that all of them keep the same contract.
"""

import json
import math
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote

from ccms_client import ClientError
from ccms_client import SeriesQuery as ClientSeriesQuery
from ccms_server.errors import MetricStoreError


class RefusedError(Exception):
    """The request as a whole was refused."""


class Answer(NamedTuple):
    """A series of an answer."""

    metric: str
    host: str
    start: int
    end: int
    interval: int
    values: list | None
    """From the start asked for on; None where there is no sample. None: no values were asked for, or there are none."""
    statistics: tuple | None
    """Least value, average, largest value; None for each without samples."""
    is_error: bool


class Backend(ABC):
    """One way to the store."""

    @abstractmethod
    async def write(self, payload, default_cluster=""):
        """Stores line protocol; returns whether no line was rejected."""

    @abstractmethod
    async def query(self, request):
        """Answers a query of the model: a list of answers for each query."""

    @abstractmethod
    async def free(self, path, before):
        """Drops samples of a subtree; returns how many series lost some."""

    @abstractmethod
    async def dump(self, path):
        """Start and end of each series at a level and below it, by names of its path and metric."""

    @abstractmethod
    async def health(self, cluster, hosts, metrics):
        """State, degraded and missing metrics of each host."""


class InProcess(Backend):
    """The service that front ends use."""

    def __init__(self, server):
        self._service = server.service

    async def write(self, payload, default_cluster=""):
        with refused(MetricStoreError):
            return not (await self._service.write_lines(payload, default_cluster)).rejected

    async def query(self, request):
        with refused(MetricStoreError):
            found = [answer async for chunk in self._service.encoded_query(request, iter) for answer in chunk]
        answers = {}
        for one in found:
            statistics = one.statistics
            answers.setdefault(one.query_index, []).append(
                Answer(
                    one.metric,
                    one.host,
                    one.start,
                    one.end,
                    one.interval,
                    None if one.values is None else nullable(one.values.tolist()),
                    None if statistics is None else tuple(nullable([statistics.min, statistics.avg, statistics.max])),
                    one.error is not None,
                )
            )
        return in_order(answers, request)

    async def free(self, path, before):
        with refused(MetricStoreError):
            return await self._service.free(path, before)

    async def dump(self, path):
        with refused(MetricStoreError):
            found = [extent async for chunk in self._service.series_extents(path) for extent in chunk]
        return {(*extent.path, extent.metric): (extent.start, extent.n_slots, extent.end) for extent in found}

    async def health(self, cluster, hosts, metrics):
        with refused(MetricStoreError):
            found = await self._service.host_health(cluster, hosts, metrics)
        return {each.host: (each.state.value, list(each.degraded), list(each.missing)) for each in found}


class Grpc(Backend):
    """The typed client."""

    def __init__(self, server):
        self._client = server.grpc

    async def write(self, payload, default_cluster=""):
        with refused(ClientError):
            return not (await self._client.write_lines(payload, default_cluster)).rejected

    async def query(self, request):
        with refused(ClientError):
            found = await self._client.query(
                request.cluster,
                request.start,
                request.end,
                [
                    ClientSeriesQuery(
                        metric=query.metric,
                        host=query.host,
                        type=query.type or "",
                        type_ids=query.type_ids,
                        subtype=query.subtype or "",
                        subtype_ids=query.subtype_ids,
                        aggregate=query.aggregate,
                        resolution=query.resolution,
                        scale_by=query.scale_by,
                    )
                    for query in request.queries
                ],
                all_hosts_metrics=request.for_all_hosts,
                with_values=request.with_values,
                with_statistics=request.with_statistics,
            )
        answers = {}
        for one in found:
            statistics = one.statistics
            has_values = request.with_values and one.error is None
            answers.setdefault(one.query_index, []).append(
                Answer(
                    one.metric,
                    one.host,
                    one.start,
                    one.end,
                    one.interval,
                    padding(one, request) + nullable(one.values.tolist()) if has_values else None,
                    None if statistics is None else tuple(nullable([statistics.min, statistics.avg, statistics.max])),
                    one.error is not None,
                )
            )
        return in_order(answers, request)

    async def free(self, path, before):
        with refused(ClientError):
            return await self._client.free([path], before)

    async def dump(self, path):
        with refused(ClientError):
            found = [extent async for extent in self._client.dump(path)]
        return {
            (*filter(None, extent.key[1:]), extent.key.metric): (extent.start, extent.slot_count, extent.end)
            for extent in found
        }

    async def health(self, cluster, hosts, metrics):
        with refused(ClientError):
            found = await self._client.host_health(cluster, hosts, metrics)
        return {each.host: (each.state.lower(), each.degraded_metrics, each.missing_metrics) for each in found}


class Rest(Backend):
    """What cc-backend and scripts send. Values have three decimals."""

    def __init__(self, server):
        self._rest = server.rest

    async def write(self, payload, default_cluster=""):
        answer = await self._rest.write(payload, f"/api/write?cluster={quote(default_cluster)}")
        assert answer.status in (200, 400), answer
        return answer.status == 200

    async def query(self, request):
        body = {
            "cluster": request.cluster,
            "from": request.start,
            "to": request.end,
            "with-stats": request.with_statistics,
            "with-data": request.with_values,
            "with-padding": request.with_padding,
            "for-all-nodes": list(request.for_all_hosts),
            "queries": [
                {
                    "metric": query.metric,
                    "host": query.host,
                    "type": query.type,
                    "type-ids": list(query.type_ids),
                    "subtype": query.subtype,
                    "subtype-ids": list(query.subtype_ids),
                    "aggreg": query.aggregate,
                    "resolution": query.resolution,
                    "scale-by": query.scale_by,
                }
                for query in request.queries
            ],
        }
        answer = await self._sent("GET", "/api/query", json.dumps(body))
        names = [(query.metric, query.host) for query in request.queries]
        names += [(query["metric"], query["host"]) for query in answer.json.get("queries") or ()]
        return [
            [
                Answer(
                    metric,
                    host,
                    one["from"],
                    one["to"],
                    one["resolution"],
                    one.get("data", []) if request.with_values and "error" not in one else None,
                    # Where there are none, the predecessor has zeros.
                    (one["min"], one["avg"], one["max"]) if request.with_statistics and "error" not in one else None,
                    "error" in one,
                )
                for one in series
            ]
            for (metric, host), series in zip(names, answer.json["results"], strict=True)
        ]

    async def free(self, path, before):
        answer = await self._sent("POST", f"/api/free?to={before}", json.dumps([path]))
        return int(answer.body.removeprefix(b"buffers freed: "))

    async def dump(self, path):
        answer = await self._sent("GET", f"/api/debug?selector={quote(json.dumps(path))}" if path else "/api/debug")
        return dict(flat(answer.json["data"], tuple(path)))

    async def health(self, cluster, hosts, metrics):
        body = {"cluster": cluster, "nodes": hosts, "metric-names": metrics}
        answer = await self._sent("POST", "/api/healthcheck", json.dumps(body))
        found = {}
        for host, state in answer.json.items():
            metrics = json.loads(state["HealthMetrics"] or "{}")
            found[host] = (state["State"], metrics.get("degraded", []), metrics.get("missing", []))
        return found

    async def _sent(self, method, path, body=b""):
        answer = await self._rest.send(method, path, body)
        if answer.status == 400:
            raise RefusedError(answer.json["error"])
        assert answer.status == 200, answer
        return answer


BACKENDS = {"in-process": InProcess, "grpc": Grpc, "rest": Rest}


@contextmanager
def refused(error_class):
    """Lets an error be the one that all ways share."""
    try:
        yield
    except error_class as error:
        raise RefusedError(str(error)) from error


def in_order(answers, request):
    """A list of answers for each query, those that have none among them."""
    return [answers.get(number, []) for number in range(max(len(request.queries), *(key + 1 for key in answers), 0))]


def padding(series, request):
    """What a client puts in front of the values, so that they begin at the start asked for."""
    if not request.with_padding or not series.interval:
        return []
    return [None] * max(0, series.start // series.interval - request.start // series.interval)


def nullable(values):
    """Values with None for NaN, and for what is not finite."""
    return [value if math.isfinite(value) else None for value in values]


def flat(tree, path):
    """The series in a dump, one by one."""
    for name, below in tree.items():
        if isinstance(below, list):
            [extent] = below
            yield (*path, name), (extent["start"], extent["len"], extent["end"])
        else:
            yield from flat(below, (*path, name))
