"""The server gives the answers its predecessor gave; `http/README.md` says where it does better."""

import json
import math
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers.server import server_inside

from ccms_client import SeriesQuery

VECTORS = [json.loads(path.read_text()) for path in sorted(Path(__file__).parent.joinpath("http").glob("*.json"))]
WITH_QUERIES = [vector for vector in VECTORS if any(step["op"] == "query" for step in vector["steps"])]
SIGNED_LINE = "integer-and-unsigned-fields"


def vector_name(vector):
    return vector["name"]


@pytest.mark.parametrize("vector", VECTORS, ids=vector_name)
async def test_over_rest(vector):
    async with server_inside(metrics=vector["metrics"], **vector.get("config", {})) as server:
        for step in vector["steps"]:
            answer = await send(server.rest, step)
            assert answer.status in accepted_statuses(vector, step)
            is_text = answer.status == step["status"] == 200 and step["content_type"].startswith("text/plain")
            assert answer.headers["Content-Type"] == (step["content_type"] if is_text else "application/json")
            if answer.status != 200:
                assert answer.json["status"]
                assert answer.json["error"]
            elif step["op"] == "write" or step.get("response_text") == "":
                assert answer.body == b""
                assert answer.headers["Content-Length"] == "0"
            elif "response_text" in step:
                assert_same_text(answer, step)
            else:
                assert_same_response(answer.json, step["response"], vector, step)


@pytest.mark.parametrize("vector", WITH_QUERIES, ids=vector_name)
async def test_queries_over_grpc(vector):
    async with server_inside(metrics=vector["metrics"]) as server:
        for step in vector["steps"]:
            if step["op"] != "query":
                await send(server.rest, step)
            elif step["status"] == 200:
                answers = await query_over_grpc(server.grpc, step)
                assert_same_response({"results": answers}, unpadded(step["response"], step), vector, step)


async def send(rest, step):
    match step["op"]:
        case "write":
            return await rest.write(step["body"], step["path"])
        case "query":
            return await rest.query(step["body"], step["path"])
        case "raw":
            return await rest.send(step["method"], step["path"], step["body"], step.get("headers"))


def accepted_statuses(vector, step):
    if vector["name"] == "write-garbage" or (vector["name"] == SIGNED_LINE and step["op"] == "write"):
        return {200, 400}
    if vector["name"] == "free-bad-to":
        return {400}
    return {step["status"]}


def assert_same_text(answer, step):
    if "/api/free" in step["path"]:
        assert re.fullmatch(rb"buffers freed: [0-9]+\n", answer.body)
        assert (answer.body == b"buffers freed: 0\n") == (step["response_text"] == "buffers freed: 0\n")
    else:
        without_trailing_commas = re.sub(r",(\s*})", r"\1", step["response_text"])
        assert answer.json == json.loads(without_trailing_commas)


def assert_same_response(response, recorded, vector, step):
    results, expected = by_host(response, step), by_host(recorded, step)
    assert results.keys() == expected.keys()
    for key, series in expected.items():
        assert len(results[key]) == len(series)
        for result, one in zip(results[key], series, strict=True):
            assert_same_series(result, better(one, vector, step))


def by_host(response, step):
    """The results by number; behind those asked for one by one, those of `for-all-nodes` by metric and host."""
    asked = len(asked_in(step).get("queries") or ())
    keys = list(range(asked))
    if len(response["results"]) > asked and "queries" in response:
        keys += [(query["metric"], query["host"]) for query in response["queries"]]
        assert all(query["aggreg"] is False and query["resolution"] == 0 for query in response["queries"])
    elif asked_in(step).get("for-all-nodes"):
        keys += [series[0].pop("key") for series in response["results"][asked:]]
    else:
        assert "queries" not in response
    assert len(keys) == len(set(keys))
    return dict(zip(keys, response["results"], strict=True))


def asked_in(step):
    """The query a step asks, which is text in those of `raw`."""
    return json.loads(step["body"]) if isinstance(step["body"], str) else step["body"]


def better(series, vector, step):
    """What is expected: the recording, but for the defects it shows."""
    if vector["name"] == SIGNED_LINE:
        return series | {"data": None, "to": 1700000480, "avg": None, "min": -7.0, "max": 1000.0}
    asked = asked_in(step)["queries"][0] if asked_in(step).get("queries") else {}
    interval = vector["metrics"].get(asked.get("metric"), {}).get("frequency", 0)
    if series.get("resolution", 0) > interval > 0:
        return series | statistics_of_all_samples(vector, step)
    return series


def statistics_of_all_samples(vector, step):
    """Statistics of what was written for one metric, summed over components."""
    sums = {}
    for write in vector["steps"]:
        if write["op"] == "write":
            for value, timestamp in re.findall(r" value=(\S+) (\d+)$", write["body"], re.MULTILINE):
                sums[timestamp] = sums.get(timestamp, 0.0) + float(value)
    inside = [value for time, value in sums.items() if step["body"]["from"] <= int(time) < step["body"]["to"]]
    return {"avg": math.fsum(inside) / len(inside), "min": min(inside), "max": max(inside)}


def assert_same_series(result, expected):
    assert ("error" in result) == ("error" in expected)
    assert {key: result[key] for key in ("from", "to", "resolution")} == {
        key: expected[key] for key in ("from", "to", "resolution")
    }
    for key in ("avg", "min", "max"):
        if key in result and not (key == "avg" and expected.get("data", ...) is None):
            assert_close(result[key], expected[key])
    if expected.get("data", ...) is None:
        assert_signed_line_values(result["data"])
        return
    assert ("data" in result) == ("data" in expected)
    if "data" in expected:
        assert len(result["data"]) == len(expected["data"])
        for value, expected_value in zip(result["data"], expected["data"], strict=True):
            assert_close(value, expected_value)


def assert_signed_line_values(values):
    assert values[:5] == [42.0, 43.0, -7.0, 1000.0, -0.025]
    assert values[5] in (3.25, None)
    assert values[6:] == [0.5, 7.0]


def assert_close(value, expected):
    if value is None or expected is None:
        assert value is expected
    else:
        assert value == pytest.approx(expected, abs=0.0011, rel=1e-9)


async def query_over_grpc(grpc, step):
    """The same query in the words of the contract, and its answer in those of REST."""
    body = step["body"]
    resampled = parse_qs(urlsplit(step["path"]).query).get("version") != ["v1"]
    asked = body.get("queries") or []
    answers = await grpc.query(
        body["cluster"],
        body["from"],
        body["to"],
        [
            SeriesQuery(
                metric=query["metric"],
                host=query["host"],
                type=query.get("type") or "",
                type_ids=query.get("type-ids") or (),
                subtype=query.get("subtype") or "",
                subtype_ids=query.get("subtype-ids") or (),
                aggregate=query.get("aggreg", False),
                resolution=query.get("resolution", 0) if resampled else 0,
                scale_by=query.get("scale-by", 0.0),
            )
            for query in asked
        ],
        all_hosts_metrics=body.get("for-all-nodes") or (),
        with_values=body.get("with-data", True),
        with_statistics=body.get("with-stats", True),
    )
    results = [[] for _ in range(max([len(asked), *(series.query_index + 1 for series in answers)]))]
    for series in answers:
        assert series.series_index == len(results[series.query_index])
        results[series.query_index].append(as_rest_series(series, generated=series.query_index >= len(asked)))
    return results


def as_rest_series(series, *, generated):
    result = {"from": series.start, "to": series.end, "resolution": series.interval}
    if generated:
        result["key"] = (series.metric, series.host)
    if series.error is not None:
        return result | {"error": series.error.message}
    if series.values.size:
        result["data"] = [None if math.isnan(value) else value for value in series.values.tolist()]
    if series.statistics is not None:
        found = series.statistics
        for key, value in (("avg", found.avg), ("min", found.min), ("max", found.max)):
            result[key] = None if math.isnan(value) else value
    return result


def unpadded(recorded, step):
    """The recording without the nulls in front of the first sample, which gRPC never sends."""
    results = []
    for series in recorded["results"]:
        results.append([])
        for one in series:
            late = one["from"] > step["body"]["from"]
            kept = (one["to"] - one["from"]) // one["resolution"] if late and one["resolution"] else None
            data = one.get("data", ())
            data = data[len(data) - kept :] if kept is not None else data
            rest = {key: value for key, value in one.items() if key != "data"}
            results[-1].append(rest | {"data": data} if data else rest)
    return recorded | {"results": results}
