"""`/api/debug`: what is held, as JSON that streams."""

import asyncio
import json
import time

import pytest
from helpers.server import server_inside
from helpers.waiting import lag_measured

import ccms_gateway
from ccms_server.extents import series_extents
from ccms_server.service import MetricService

START = 1_700_000_000
GPU = "accelerator00000000:49:00.0"
LINES = (
    f"cpu_load,cluster=alpha,hostname=n1 value=1 {START}\n"
    f"flops_any,cluster=alpha,hostname=n1,type=accelerator,type-id=00000000:49:00.0 value=1 {START}\n"
    f"flops_any,cluster=alpha,hostname=n1,type=hwthread,type-id=0,stype=part,stype-id=1 value=1 {START + 60}\n"
    f"cpu_load,cluster=beta,hostname=n1 value=1 {START}\n"
)
FIRST, SECOND = ([{"start": start, "len": 1, "end": start + 60}] for start in (START - 30, START + 30))
HOST = {"cpu_load": FIRST, GPU: {"flops_any": FIRST}, "hwthread0": {"part1": {"flops_any": SECOND}}}


@pytest.fixture
async def server():
    async with server_inside() as server:
        assert (await server.rest.write(LINES)).status == 200
        yield server


@pytest.mark.parametrize("path", ["/api/debug", "/api/debug/", "//api/debug", "//api/debug/", "/api/debug?selector="])
async def test_everything_is_shown(server, path):
    answer = await server.rest.send("GET", path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == {"data": {"alpha": {"n1": HOST}, "beta": {"n1": {"cpu_load": FIRST}}}}


@pytest.mark.parametrize(
    ("selector", "data"),
    [
        ("alpha", {"n1": HOST}),
        ("alpha:n1", HOST),
        ("alpha:n1:hwthread0", {"part1": {"flops_any": SECOND}}),
        ("alpha:n1:hwthread0:part1", {"flops_any": SECOND}),
        ('["alpha","n1"]', HOST),
        (f'["alpha", "n1", "{GPU}"]', {"flops_any": FIRST}),
        ("%5B%22beta%22%5D", {"n1": {"cpu_load": FIRST}}),
    ],
)
async def test_a_selector_shows_a_part(server, selector, data):
    answer = await server.rest.send("GET", f"/api/debug?selector={selector}")
    assert answer.json == {"data": data}


@pytest.mark.parametrize("selector", ["nope", "alpha:n2", f"alpha:n1:{GPU}", "alpha:", '["alpha:n1"]', "a:b:c:d:e:f"])
async def test_a_selector_that_names_nothing_is_a_bad_request(server, selector):
    answer = await server.rest.send("GET", f"/api/debug?selector={selector}")
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/json")
    assert answer.json["status"] == "Bad Request"
    assert "names nothing" in answer.json["error"]


@pytest.mark.parametrize("selector", ["[", "[1]", '["alpha"'])
async def test_a_selector_that_is_broken_json_is_a_bad_request(server, selector):
    answer = await server.rest.send("GET", f"/api/debug?selector={selector}")
    assert answer.status == 400
    assert answer.json["error"].startswith("selector: ")


async def test_head_tells_the_length_without_the_body(server):
    full = await server.rest.send("GET", "/api/debug")
    answer = await server.rest.send("HEAD", "/api/debug")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == full.headers["Content-Length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_but_get_is_answered(server, method):
    answer = await server.rest.send(method, "/api/debug")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


async def write_many(server, n_hosts, n_threads):
    for host in range(n_hosts):
        lines = "".join(
            f"flops_any,cluster=big,hostname=h{host},type=hwthread,type-id={thread} value=1 {START}\n"
            for thread in range(n_threads)
        )
        assert (await server.rest.write(lines)).status == 200


async def test_a_long_dump_is_sent_in_pieces_and_complete(server):
    await write_many(server, 30, 1000)
    async with lag_measured() as lag:
        answer = await server.rest.send("GET", "/api/debug?selector=big")
    assert answer.status == 200
    assert "Content-Length" not in answer.headers
    assert answer.json["data"] == {
        f"h{host}": {f"hwthread{thread}": {"flops_any": FIRST} for thread in range(1000)} for host in range(30)
    }
    assert lag.longest < 0.5


async def test_a_dump_that_breaks_off_does_not_look_complete(server, monkeypatch, caplog):
    original = MetricService.series_extents

    async def broken(self, path):
        for _ in range(2):
            async for extents in original(self, path):
                yield extents
        raise RuntimeError("a defect")

    await write_many(server, 20, 1000)
    monkeypatch.setattr(MetricService, "series_extents", broken)
    with pytest.raises(Exception, match=r"payload|Connection|disconnect") as raised:
        await server.rest.send("GET", "/api/debug")
    assert not isinstance(raised.value, AssertionError)
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_writes_go_on_during_a_dump(server):
    await write_many(server, 10, 1000)

    async def write():
        for number in range(50):
            lines = f"cpu_load,cluster=big,hostname=new{number} value=1 {START}\n"
            assert (await server.rest.write(lines)).status == 200

    dumps, _ = await asyncio.gather(
        asyncio.gather(*(server.rest.send("GET", "/api/debug") for _ in range(5))),
        write(),
    )
    for dump in dumps:
        assert dump.json["data"]["big"]["h9"]["hwthread999"] == {"flops_any": FIRST}


async def test_the_dump_in_a_file_is_the_same(server, tmp_path):
    ccms_gateway.write_dump(tmp_path / "dump.json", series_extents(server.service.store, ()))
    answer = await server.rest.send("GET", "/api/debug")
    assert json.loads((tmp_path / "dump.json").read_text()) == answer.json


async def test_samples_of_now_are_shown_where_they_are(server):
    now = int(time.time())
    assert (await server.rest.write(f"cpu_load,cluster=now,hostname=n1 value=1 {now}\n")).status == 200
    answer = await server.rest.send("GET", "/api/debug?selector=now:n1")
    assert answer.json == {"data": {"cpu_load": [{"start": now - 30, "len": 1, "end": now + 30}]}}
