"""`/api/healthcheck`: whether hosts are monitored as they should be."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import orjson
from aiohttp import web

from ccms_gateway.answer import AnswerSender
from ccms_gateway.backend import Backend
from ccms_gateway.body import BodyReader
from ccms_gateway.json_body import decode_body
from ccms_gateway.schemas import HealthBody
from ccms_server.errors import InvalidRequestError, LimitExceededError, NotFoundError
from ccms_server.model import HostHealth

HEALTH_BYTES_MAX: Final = 1 << 20
"""Largest body: 50,000 hosts."""
ANSWER_BYTES_MAX: Final = 32 << 20
"""Largest answer, in which every host may name every metric."""
INLINE_HOSTS_MAX: Final = 64
"""So many hosts are encoded on the event loop, in less than a millisecond."""
STALE_SERIES_MAX: Final = 4
"""A host with more of them is not healthy, says the older form of the request."""

_decoder: Final = msgspec.json.Decoder(HealthBody)


class HealthHandler:
    """Tells which metrics of hosts arrive."""

    def __init__(self, backend: Backend, bodies: BodyReader, answers: AnswerSender) -> None:
        self._backend = backend
        self._bodies = bodies
        self._answers = answers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers for the hosts in the body; without a body, for the one in the parameters."""
        body = await self._bodies.read(request, HEALTH_BYTES_MAX)
        if not body.strip():
            return await self._of_one(request)
        cluster, hosts, metrics = await decode_body(_decode_question, body)
        found = await self._backend.host_health(cluster, hosts, metrics)
        text = _encode(found) if len(found) <= INLINE_HOSTS_MAX else await asyncio.to_thread(_encode, found)
        return await self._answers.whole(request, text, "application/json")

    async def _of_one(self, request: web.Request) -> web.StreamResponse:
        """The form of the request before release 1.5: one host, all metrics, one word."""
        cluster, host = request.rel_url.query.get("cluster", ""), request.rel_url.query.get("node", "")
        if not cluster or not host:
            raise InvalidRequestError(
                "body",
                "is required: a JSON object with cluster, nodes and metric-names; or add `?cluster=` and `&node=`",
            )
        [health] = await self._backend.host_health(cluster, [host], ())
        if not health.known:
            raise NotFoundError(f"cluster {cluster!r} has no node {host!r}")
        is_healthy = health.n_stale <= STALE_SERIES_MAX and health.n_stale < health.n_series
        return await self._answers.whole(request, b"Healthy" if is_healthy else b"Unhealthy", "text/plain")


def _decode_question(body: bytes) -> tuple[str, Sequence[str], Sequence[str]]:
    """The cluster, and its hosts and the metrics that are asked about, each once."""
    asked = _decoder.decode(body)
    hosts, metrics = tuple(dict.fromkeys(asked.nodes or ())), tuple(dict.fromkeys(asked.metric_names or ()))
    _check_size(hosts, metrics)
    return asked.cluster or "", hosts, metrics


def _check_size(hosts: Sequence[str], metrics: Sequence[str]) -> None:
    size = len(hosts) * len(orjson.dumps(orjson.dumps(metrics).decode()))  # JSON in JSON: escaped twice
    if size > ANSWER_BYTES_MAX:
        remedy = "ask for fewer nodes or metrics at a time"
        raise LimitExceededError("bytes in the answer, at worst", size, ANSWER_BYTES_MAX, remedy)


def _encode(found: Sequence[HostHealth]) -> bytes:
    """An object of the hosts; what is wrong with each is JSON as text, as the predecessor has it."""
    return orjson.dumps({health.host: _state(health) for health in found})


def _state(health: HostHealth) -> dict[str, str]:
    metrics = orjson.dumps({"degraded": health.degraded, "missing": health.missing}).decode() if health.known else ""
    return {"State": health.state.value, "HealthMetrics": metrics}
