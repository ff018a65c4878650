"""`/api/healthcheck`: the form of release 1.5, with a body, and the one before, with parameters."""

import json
import threading

import pytest
from helpers.server import server_inside

from ccms_gateway import healthcheck

NOW = 1_700_000_000
PATHS = ["/api/healthcheck", "/api/healthcheck/", "//api/healthcheck", "//api/healthcheck/"]


def line(host, metric, age=0, thread=None):
    place = f",type=hwthread,type-id={thread}" if thread is not None else ",type=node"
    return f"{metric},cluster=alpha,hostname={host}{place} value=1 {NOW - age}\n"


LINES = (
    line("good", "cpu_load")
    + line("good", "flops_any", thread=0)
    + line("lame", "cpu_load")
    + line("lame", "flops_any", thread=0)
    + line("lame", "flops_any", age=1000, thread=1)
    + line("dead", "cpu_load", age=1000)
    + "".join(line("worn", "flops_any", age=1000, thread=thread) for thread in range(5))
    + line("worn", "cpu_load")
)


@pytest.fixture
async def rest():
    async with server_inside(clock=lambda: float(NOW)) as server:
        assert (await server.rest.write(LINES)).status == 200
        yield server.rest


async def ask(rest, nodes, metrics, path="/api/healthcheck", method="GET"):
    body = {"cluster": "alpha", "nodes": nodes, "metric-names": metrics}
    answer = await rest.send(method, path, json.dumps(body))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    return answer.json


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_hosts_are_told_apart_by_what_arrives_of_them(rest, method, path):
    answer = await ask(rest, ["good", "lame", "dead", "none"], ["cpu_load", "flops_any"], path, method)
    assert answer == {
        "good": {"State": "full", "HealthMetrics": '{"degraded":[],"missing":[]}'},
        "lame": {"State": "partial", "HealthMetrics": '{"degraded":["flops_any"],"missing":[]}'},
        "dead": {"State": "failed", "HealthMetrics": '{"degraded":["cpu_load"],"missing":["flops_any"]}'},
        "none": {"State": "failed", "HealthMetrics": ""},
    }


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({}, {}),
        ({"cluster": None, "nodes": None, "metric-names": None}, {}),
        ({"cluster": "alpha", "nodes": ["dead"]}, {"dead": {"State": "full", "HealthMetrics": None}}),
        ({"nodes": ["good"]}, {"good": {"State": "failed", "HealthMetrics": ""}}),
        ({"cluster": "alpha", "nodes": ["good", "good"]}, {"good": {"State": "full", "HealthMetrics": None}}),
    ],
)
async def test_null_and_absent_mean_nothing(rest, body, answer):
    found = (await rest.send("GET", "/api/healthcheck", json.dumps(body))).json
    assert found.keys() == answer.keys()
    for host, state in found.items():
        assert state["State"] == answer[host]["State"]
        assert state["HealthMetrics"] == (answer[host]["HealthMetrics"] or state["HealthMetrics"])


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ('{"cluster": "alpha", "node": "n1"}', "`node`"),
        ('{"metric_names": []}', "`metric_names`"),
        ('{"nodes": "n1"}', "$.nodes"),
        ('{"metric-names": [1]}', "$.metric-names[0]"),
        ("[]", "object"),
        ("{", "body"),
    ],
)
async def test_other_bodies_are_refused(rest, body, part):
    answer = await rest.send("GET", "/api/healthcheck", body)
    assert (answer.status, answer.json["status"]) == (400, "Bad Request")
    assert part in answer.json["error"]


async def test_the_answer_has_a_limit(rest):
    nodes = [f"node{number}" for number in range(20_000)]
    body = {"cluster": "alpha", "nodes": nodes, "metric-names": ["m" * 1000, "n" * 1000]}
    answer = await rest.send("GET", "/api/healthcheck", json.dumps(body))
    assert answer.status == 400
    assert "ask for fewer" in answer.json["error"]
    answer = await rest.send("GET", "/api/healthcheck", b" " * (healthcheck.HEALTH_BYTES_MAX + 1))
    assert answer.status == 413


async def test_many_hosts_are_answered(rest):
    nodes = [f"node{number}" for number in range(10_000)]
    answer = await ask(rest, [*nodes, "good"], ["cpu_load"])
    assert list(answer) == [*nodes, "good"]
    assert answer["good"]["State"] == "full"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("host", "word"), [("good", "Healthy"), ("lame", "Healthy"), ("dead", "Unhealthy"), ("worn", "Unhealthy")]
)
async def test_the_older_form_answers_with_a_word(rest, path, host, word):
    answer = await rest.send("GET", f"{path}?cluster=alpha&node={host}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert answer.body.decode() == word


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ("", "body"),
        ("?cluster=alpha", "&node="),
        ("?node=good", "?cluster="),
        ("?cluster=alpha&node=", "&node="),
        ("?cluster=alpha&node=none", "'none'"),
        ("?cluster=beta&node=good", "'beta'"),
    ],
)
async def test_the_older_form_wants_a_node_that_is_known(rest, parameters, part):
    answer = await rest.send("GET", f"/api/healthcheck{parameters}")
    assert (answer.status, answer.json["status"]) == (400, "Bad Request")
    assert part in answer.json["error"]


async def test_what_ended_before_the_retention_in_memory_is_forgotten(tmp_path):
    config = {"retention-in-memory": "1h", "checkpoints": {"directory": str(tmp_path), "retention": "100h"}}
    async with server_inside(clock=lambda: float(NOW), **config) as server:
        for host, age in (("old", 3500), ("older", 2 * 3600)):
            lines = line(host, "flops_any", thread=0) + line(host, "flops_any", age=age, thread=1)
            assert (await server.rest.write(lines)).status == 200
        answer = await ask(server.rest, ["old", "older"], ["flops_any"])
        assert (answer["old"]["State"], answer["older"]["State"]) == ("failed", "full")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_not_allowed(rest, method):
    answer = await rest.send(method, "/api/healthcheck")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


async def test_many_hosts_are_compared_off_the_event_loop(rest, monkeypatch):
    check_size, threads = healthcheck._check_size, []

    def noted(hosts, metrics):
        threads.append(threading.current_thread())
        check_size(hosts, metrics)

    monkeypatch.setattr(healthcheck, "_check_size", noted)
    assert (await ask(rest, ["good"] * 1000, ["cpu_load"])).keys() == {"good"}
    [thread] = threads
    assert thread is not threading.current_thread()
