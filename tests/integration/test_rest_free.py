"""`/api/free`: what is dropped, and which requests are refused."""

import json
import threading

import pytest
from helpers.server import server_inside

from ccms_gateway import free
from ccms_server.freeing import FREED_AT_ONCE, LEVELS_MAX
from ccms_server.service import MetricService

START = 1_700_000_000
LINES = "".join(
    f"{metric},cluster={cluster},hostname={host},type=hwthread,type-id={thread} value=1 {START + 60 * minute}\n"
    for metric in ("cpu_load", "flops_any")
    for cluster, host in (("alpha", "n1"), ("alpha", "n2"), ("beta", "n1"))
    for thread in range(2)
    for minute in range(3)
)


@pytest.fixture
async def rest():
    async with server_inside() as server:
        assert (await server.rest.write(LINES)).status == 200
        yield server.rest


async def freed(rest, selectors, to=START + 60, path="/api/free"):
    answer = await rest.send("POST", f"{path}?to={to}", json.dumps(selectors))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    count = int(answer.body.decode().removeprefix("buffers freed: ").removesuffix("\n"))
    assert answer.body == b"buffers freed: %d\n" % count
    return count


async def held(rest, selector=""):
    answer = await rest.send("GET", f"/api/debug?selector={selector}")
    assert answer.status == 200
    return answer.json["data"]


@pytest.mark.parametrize("path", ["/api/free", "/api/free/", "//api/free", "//api/free/"])
async def test_old_samples_of_a_level_are_dropped(rest, path):
    assert await freed(rest, [["alpha", "n1"]], path=path) == 4
    assert (await held(rest, "alpha:n1:hwthread0"))["cpu_load"][0]["start"] == START + 30
    assert (await held(rest, "alpha:n2:hwthread0"))["cpu_load"][0]["start"] == START - 30


@pytest.mark.parametrize(
    ("selectors", "count"),
    [
        ([], 0),
        (None, 0),
        ([[]], 12),
        ([["alpha"]], 8),
        ([["alpha"], ["beta", "n1"]], 12),
        ([["alpha", "n1", "hwthread0"]], 2),
        ([["alpha", "n1"], ["alpha", "n1"]], 4),
        ([["alpha", "n1", "hwthread0"], ["alpha"], ["alpha", "n1"]], 8),
        ([["alpha", "n1"], []], 12),
        ([["alpha", "n"], ["gamma"], ["alpha", "n1", "hwthread0", "more"]], 0),
    ],
)
async def test_series_are_counted_once_however_often_they_are_selected(rest, selectors, count):
    assert await freed(rest, selectors) == count
    assert await freed(rest, selectors) == 0


async def test_what_is_selected_and_does_not_exist_is_not_made(rest):
    before = await held(rest)
    assert await freed(rest, [["gamma", "n1"], ["alpha", "n9"]], to=START + 6000) == 0
    assert await held(rest) == before
    query = {"cluster": "gamma", "from": START, "to": START + 60, "for-all-nodes": ["cpu_load"]}
    assert (await rest.query(query)).json == {"results": []}


@pytest.mark.parametrize("to", ["0", "-9223372036854775808", str(START), "%2B5", "-5"])
async def test_times_before_everything_drop_nothing(rest, to):
    assert await freed(rest, [[]], to=to) == 0


@pytest.mark.parametrize("to", [START + 120 + 1, 9_223_372_036_854_775_807])
async def test_times_after_everything_drop_all_that_is_there_and_later_samples_are_taken(rest, to):
    assert await freed(rest, [["alpha", "n1"]], to=to) == 4
    assert "n1" not in (await held(rest))["alpha"]
    assert (await rest.write(f"cpu_load,cluster=alpha,hostname=n1 value=1 {START + 600}\n")).status == 200
    assert "n1" in (await held(rest))["alpha"]


@pytest.mark.parametrize(
    "to", ["", "?to=", "?to=abc", "?to=1.5", "?to=1e3", "?to=+5", "?to=9223372036854775808", "?to=٣"]
)
async def test_a_time_is_needed(rest, to):
    answer = await rest.send("POST", f"/api/free{to}", "[[]]")
    assert answer.status == 400
    assert answer.json["error"].startswith("to: ")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("", "body"),
        ("nope", "body"),
        ("{}", "array"),
        ("[1]", "$[0]"),
        ('["alpha"]', "$[0]"),
        ('[["alpha"], [1]]', "$[1][0]"),
        ('[["alpha", null]]', "$[0][1]"),
        ('[["a", "b"], ["a", "b", "c", "d", "e"]]', "body[1]"),
    ],
)
async def test_a_body_that_is_no_list_of_selectors_is_refused(rest, body, part):
    before = await held(rest)
    answer = await rest.send("POST", f"/api/free?to={START + 6000}", body)
    assert (answer.status, answer.json["status"]) == (400, "Bad Request")
    assert part in answer.json["error"]
    assert await held(rest) == before


async def test_selectors_have_a_limit(rest):
    assert await freed(rest, [["alpha", f"x{number}"] for number in range(LEVELS_MAX)]) == 0
    answer = await rest.send("POST", "/api/free?to=1", json.dumps([[]] * (LEVELS_MAX + 1)))
    assert answer.status == 400
    assert "10,001 exceed the limit of 10,000" in answer.json["error"]
    answer = await rest.send("POST", "/api/free?to=1", b" " * (free.FREE_BYTES_MAX + 1))
    assert answer.status == 413


async def test_many_selectors_are_compared_off_the_event_loop(rest, monkeypatch):
    distinct, threads = free.distinct_levels, []

    def noted(paths, field):
        threads.append(threading.current_thread())
        return distinct(paths, field)

    monkeypatch.setattr(free, "distinct_levels", noted)
    assert await freed(rest, [["alpha", "n1"]] * 1000) == 4
    [thread] = threads
    assert thread is not threading.current_thread()


async def test_many_selectors_do_not_fill_the_queue(rest, monkeypatch):
    waiting, most = 0, 0
    original = MetricService.free

    async def counted(self, path, before):
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        count = await original(self, path, before)
        waiting -= 1
        return count

    monkeypatch.setattr(MetricService, "free", counted)
    await freed(rest, [["alpha", f"x{number}"] for number in range(1000)])
    assert 1 < most <= FREED_AT_ONCE


async def test_freed_stays_freed_after_a_restart(tmp_path):
    checkpoints = {"directory": str(tmp_path), "interval": "1h", "restore": "1h"}
    async with server_inside(checkpoints=checkpoints) as server:
        assert (await server.rest.write(LINES)).status == 200
        assert await freed(server.rest, [["alpha"], ["beta", "n1", "hwthread1"]]) == 10
        before = await held(server.rest)
    async with server_inside(checkpoints=checkpoints) as server:
        assert await held(server.rest) == before
