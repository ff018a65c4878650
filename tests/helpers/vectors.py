"""Recorded exchanges of the predecessor, and when an answer is the same as a recorded one."""

import json
import math
import re
from pathlib import Path

import pytest

HTTP = Path(__file__).parents[1] / "conformance" / "http"
VECTORS = [json.loads(path.read_text()) for path in sorted(HTTP.glob("*.json"))]
SIGNED_LINE = "integer-and-unsigned-fields"
"""A recording in which the predecessor loses lines."""


def vector_name(vector):
    return vector["name"]


@pytest.mark.parametrize("vector", VECTORS, ids=vector_name)
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
