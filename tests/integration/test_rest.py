"""The REST API beyond what is recorded of the predecessor: paths, methods, limits, and the form of its errors."""

import asyncio
import gzip
import json
import threading
import zlib

import pytest
from helpers.server import server_inside
from helpers.waiting import eventually, lag_measured

from ccms_gateway import query, sending
from ccms_gateway.query_json import QUERIES_MAX
from ccms_server.errors import NotReadyError, QueueFullError
from ccms_server.service import MetricService

LINE = "cpu_load,hostname=n1 value=1.5 1700000000\n"
QUERY = {
    "cluster": "alex",
    "from": 1_700_000_000,
    "to": 1_700_000_060,
    "queries": [{"metric": "cpu_load", "host": "n1"}],
}


@pytest.fixture
async def rest():
    async with server_inside() as server:
        yield server.rest


async def written(rest):
    assert (await rest.write(LINE, "/api/write?cluster=alex")).status == 200


@pytest.mark.parametrize("path", ["/api/query", "/api/query/", "//api/query", "//api/query/", "/api/query?version=v2"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_queries_are_answered_at(rest, method, path):
    await written(rest)
    answer = await rest.send(method, path, json.dumps(QUERY))
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json["results"][0][0]["data"] == [1.5]


@pytest.mark.parametrize("path", ["/api/write", "/api/write/", "//api/write", "//api/write/"])
async def test_lines_are_taken_at(rest, path):
    answer = await rest.write(LINE, f"{path}?cluster=alex")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
    assert (await rest.query(QUERY)).json["results"][0][0]["data"] == [1.5]


async def test_the_cluster_parameter_is_percent_decoded(rest):
    assert (await rest.write(LINE, "/api/write?cluster=al%65x")).status == 200
    assert "data" in (await rest.query(QUERY)).json["results"][0][0]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/write", "POST"),
        ("PUT", "/api/write/", "POST"),
        ("DELETE", "/api/query", "GET, HEAD, POST"),
    ],
)
async def test_other_methods_are_not_allowed(rest, method, path, allowed):
    answer = await rest.send(method, path)
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)
    assert_error(answer, "Method Not Allowed", path)


@pytest.mark.parametrize("path", ["/", "/api", "/api/nothing", "/api/queries", "/API/query", "/api/query/more"])
async def test_other_paths_are_not_found(rest, path):
    answer = await rest.send("GET", path)
    assert answer.status == 404
    assert_error(answer, "Not Found", path)


def assert_error(answer, status, *parts):
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json.keys() == {"status", "error"}
    assert answer.json["status"] == status
    for part in parts:
        assert part in answer.json["error"]


async def test_head_is_get_without_the_body(rest):
    await written(rest)
    answer = await rest.send("HEAD", "/api/query", json.dumps(QUERY))
    full = await rest.send("GET", "/api/query", json.dumps(QUERY))
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == full.headers["Content-Length"]


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain", "application/x-www-form-urlencoded"])
async def test_any_content_type_will_do(rest, content_type):
    headers = {"Content-Type": content_type} if content_type else None
    assert (await rest.send("POST", "/api/write?cluster=alex", LINE, headers)).status == 200
    assert (await rest.send("GET", "/api/query", json.dumps(QUERY), headers)).status == 200


async def test_null_means_absent(rest):
    await written(rest)
    body = QUERY | dict.fromkeys(("with-stats", "with-data", "with-padding", "for-all-nodes"))
    names = ("type", "type-ids", "subtype", "subtype-ids", "aggreg", "resolution", "scale-by")
    body["queries"] = [QUERY["queries"][0] | dict.fromkeys(names)]
    [[series]] = (await rest.query(body)).json["results"]
    assert (series["data"], series["avg"]) == ([1.5], 1.5)
    everything_absent = dict.fromkeys(("cluster", "from", "to", "queries", "for-all-nodes"))
    assert (await rest.query(everything_absent)).json == {"results": []}


async def test_whole_numbers_may_be_written_as_fractions(rest):
    await written(rest)
    body = json.dumps(QUERY).replace("1700000000", "1700000000.0").replace("1700000060", "17.0000006e8")
    body = body.replace('"metric"', '"scale-by": 2, "resolution": 6e1, "metric"')
    answer = await rest.send("GET", "/api/query", body)
    assert answer.status == 200
    assert answer.json["results"][0][0]["data"] == [3.0]


async def test_statistics_that_were_not_asked_for_are_zeros_without_a_sign(rest):
    await written(rest)
    query = QUERY["queries"][0] | {"scale-by": -2}
    answer = await rest.query(QUERY | {"with-stats": False, "queries": [query]})
    assert answer.json["results"][0][0]["data"] == [-3.0]
    assert answer.body.endswith(b',"avg":0.0,"min":0.0,"max":0.0}]]}')


async def test_unknown_fields_are_ignored(rest):
    assert (await rest.query(QUERY | {"more": [1]})).status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("", "body"),
        ("{", "body"),
        ("[]", "object"),
        ('{"cluster": 5}', "$.cluster"),
        ('{"from": "x"}', "$.from"),
        ('{"to": 1.5}', "$.to"),
        ('{"to": 9223372036854775808}', "$.to"),
        ('{"from": -9223372036854775809}', "$.from"),
        ('{"with-data": "no"}', "$.with-data"),
        ('{"queries": {}}', "$.queries"),
        ('{"queries": [{"metric": "m"}, {"host": []}]}', "$.queries[1].host"),
        ('{"queries": [{"type-ids": [0]}]}', "$.queries[0].type-ids[0]"),
        ('{"queries": [{"resolution": "1m"}]}', "$.queries[0].resolution"),
        ('{"queries": [{"scale-by": true}]}', "$.queries[0].scale-by"),
        ('{"for-all-nodes": "cpu_load"}', "$.for-all-nodes"),
        (b'{"cluster": "\xff"}', "body"),
        ('{"more": ' + "[" * 100_000, "body"),
    ],
)
async def test_a_wrong_type_is_told_by_the_name_of_its_field(rest, body, field):
    answer = await rest.send("GET", "/api/query", body)
    assert answer.status == 400
    assert_error(answer, "Bad Request", field)


async def test_rejected_lines_are_explained(rest):
    lines = [LINE, "cpu_load value=1 1700000000\n", "cpu_load,hostname=n1 value=true\n", "other value=1\n", LINE]
    answer = await rest.write("".join(lines), "/api/write?cluster=alex")
    assert answer.status == 400
    counts = "2 rejected (MISSING_HOST 1, UNSUPPORTED_VALUE 1), 2 stored, 1 ignored; "
    assert_error(answer, "Bad Request", counts, "line 2: ", "line 3: ")
    assert (await rest.query(QUERY)).json["results"][0][0]["data"] == [1.5]


async def test_of_many_rejected_lines_the_first_are_explained(rest):
    answer = await rest.write("cpu_load value=1\n" * 1000)
    assert answer.status == 400
    assert_error(answer, "Bad Request", "1,000 rejected", "line 16: ")
    assert "line 17: " not in answer.json["error"]


async def test_bodies_over_the_limit_are_too_large():
    async with server_inside(limits={"request-bytes": 70_000, "queue-bytes": 70_000}) as server:
        comment = "#" * 70_000
        assert (await server.rest.write(comment)).status == 200
        answer = await server.rest.write(comment + "#")
        assert answer.status == 413
        assert_error(answer, "Request Entity Too Large", "70,000")

        async def in_chunks():
            yield comment.encode()
            yield b"#"

        answer = await server.rest.send("POST", "/api/write", in_chunks())
        assert answer.status == 413


@pytest.mark.parametrize(
    ("error", "retry_after"), [(QueueFullError(10, 10, retry_after_seconds=3), "3"), (NotReadyError("starting"), "1")]
)
async def test_a_server_that_cannot_take_more_says_when_to_come_back(rest, monkeypatch, error, retry_after):
    async def write_lines(self, payload, default_cluster):
        raise error

    async def query(self, request, encode):
        raise error
        yield

    monkeypatch.setattr(MetricService, "write_lines", write_lines)
    monkeypatch.setattr(MetricService, "encoded_query", query)
    for answer in (await rest.write(LINE), await rest.query(QUERY)):
        assert (answer.status, answer.headers["Retry-After"]) == (503, retry_after)
        assert_error(answer, "Service Unavailable", "try again")


async def test_a_defect_is_a_500_that_is_logged_once(rest, monkeypatch, caplog):
    async def write_lines(self, payload, default_cluster):
        raise RuntimeError("a defect")

    monkeypatch.setattr(MetricService, "write_lines", write_lines)
    answer = await rest.write(LINE)
    assert answer.status == 500
    assert_error(answer, "Internal Server Error")
    assert "a defect" not in answer.json["error"]
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_answers_over_a_limit_are_refused():
    async with server_inside(limits={"query-points": 100, "query-series": 3}) as server:
        await written(server.rest)
        answer = await server.rest.query(QUERY | {"from": 1_700_000_000 - 60 * 100})
        assert answer.status == 400
        assert_error(answer, "Bad Request", "101 exceed the limit of 100")
        answer = await server.rest.query(QUERY | {"queries": QUERY["queries"] * 4})
        assert answer.status == 400


async def test_version_1_does_not_resample(rest):
    lines = "".join(f"cpu_load,hostname=n1 value={number % 7} {1_700_000_000 + 60 * number}\n" for number in range(300))
    assert (await rest.write(lines, "/api/write?cluster=alex")).status == 200
    query = {"metric": "cpu_load", "host": "n1", "resolution": 600}
    body = {"cluster": "alex", "from": 1_700_000_000, "to": 1_700_018_000, "queries": [query]}
    for path, resolution, count in [("/api/query?version=v1", 60, 300), ("/api/query?version=v2", 600, 30)]:
        [[series]] = (await rest.query(body, path)).json["results"]
        assert (series["resolution"], len(series["data"])) == (resolution, count)


async def test_a_long_answer_is_sent_in_pieces_and_complete(rest):
    values = [number % 1000 / 8 for number in range(200_000)]
    for start in range(0, len(values), 10_000):
        lines = "".join(
            f"cpu_load,hostname=n1 value={values[number]} {1_500_000_000 + 60 * number}\n"
            for number in range(start, start + 10_000)
        )
        assert (await rest.write(lines, "/api/write?cluster=alex")).status == 200
    body = QUERY | {"from": 1_500_000_000, "to": 1_600_000_000, "queries": QUERY["queries"] * 2}
    answer = await rest.query(body)
    assert "Content-Length" not in answer.headers
    [[first], [second]] = answer.json["results"]
    assert first == second
    assert first["data"] == [round(value, 3) for value in values]


async def test_an_answer_that_breaks_off_does_not_look_complete(rest, monkeypatch, caplog):
    original = MetricService.encoded_query

    async def query(self, request, encode):
        for _ in range(3):
            async for text in original(self, request, encode):
                yield text
        raise RuntimeError("a defect")

    lines = "".join(f"cpu_load,hostname=n1 value=1.25 {1_500_000_000 + 60 * number}\n" for number in range(200_000))
    assert (await rest.write(lines, "/api/write?cluster=alex")).status == 200
    monkeypatch.setattr(MetricService, "encoded_query", query)
    with pytest.raises(Exception, match=r"payload|Connection|disconnect") as raised:
        await rest.query(QUERY | {"from": 1_500_000_000, "to": 1_600_000_000})
    assert not isinstance(raised.value, AssertionError)
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_bodies_that_are_under_way_have_a_limit_together():
    line = "#" * 69_999 + "\n"
    async with server_inside(limits={"request-bytes": 70_000, "queue-bytes": 100_000}) as server:
        _, writer = await server.rest.connect()
        writer.write(b"POST /api/write HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b"#" * 60_000)

        async def refused():
            return (await server.rest.write(line)).status == 503

        await eventually(refused, "the half sent body to leave no room for another")
        writer.close()
        await writer.wait_closed()

        async def taken():
            return (await server.rest.write(line)).status == 200

        await eventually(taken, "the room to be free again")


async def test_a_client_that_goes_away_stops_the_work(monkeypatch):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def query(self, request, encode):
        begun.set()
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            ended.set()

    monkeypatch.setattr(MetricService, "encoded_query", query)
    async with server_inside() as server:
        _, writer = await server.rest.connect()
        writer.write(b"GET /api/query HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        async with asyncio.timeout(30):
            await begun.wait()
            writer.close()
            await writer.wait_closed()
            await ended.wait()


GZIP, DEFLATE = gzip.compress(LINE.encode(), mtime=0), zlib.compress(LINE.encode())


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", GZIP),
        ("GZIP", GZIP),
        ("x-gzip", GZIP),
        ("gzip", gzip.compress(b"# a comment\n", mtime=0) + GZIP),
        ("deflate", DEFLATE),
        ("identity", LINE.encode()),
        ("", LINE.encode()),
    ],
)
async def test_compressed_bodies_are_taken(rest, encoding, body):
    answer = await rest.send("POST", "/api/write?cluster=alex", body, {"Content-Encoding": encoding})
    assert answer.status == 200
    query = gzip.compress(json.dumps(QUERY).encode())
    answer = await rest.send("GET", "/api/query", query, {"Content-Encoding": "gzip"})
    assert answer.json["results"][0][0]["data"] == [1.5]


async def test_a_body_that_is_decompressed_in_many_steps_is_whole(rest):
    lines = "".join(f"cpu_load,hostname=n1 value={number} {1_700_000_000 + 60 * number}\n" for number in range(50_000))
    body = gzip.compress(lines.encode())
    assert (await rest.send("POST", "/api/write?cluster=alex", body, {"Content-Encoding": "gzip"})).status == 200
    [[series]] = (await rest.query(QUERY | {"to": 1_800_000_000})).json["results"]
    assert series["data"] == list(range(50_000))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b""),
        ("gzip", GZIP[:-12]),
        ("gzip", GZIP[:-1]),
        ("gzip", GZIP[:-8] + bytes(8)),
        ("gzip", GZIP + GZIP[:-1]),
        ("gzip", GZIP + b"more"),
        ("gzip", LINE.encode()),
        ("deflate", DEFLATE[:-1]),
    ],
)
async def test_nothing_of_a_damaged_compressed_body_is_stored(rest, encoding, body):
    answer = await rest.send("POST", "/api/write?cluster=alex", body, {"Content-Encoding": encoding})
    assert answer.status == 400
    assert_error(answer, "Bad Request", "body")
    assert "error" in (await rest.query(QUERY)).json["results"][0][0]


@pytest.mark.parametrize("encoding", ["br", "zstd", "snappy", "gzip, gzip"])
async def test_unknown_encodings_are_refused(rest, encoding):
    answer = await rest.send("POST", "/api/write?cluster=alex", GZIP, {"Content-Encoding": encoding})
    assert answer.status == 415
    assert_error(answer, "Unsupported Media Type", encoding, "gzip")


@pytest.fixture
def long_query():
    """A query whose answer is sent in pieces."""
    hosts = [f"n{number}" for number in range(20_000)]
    return QUERY | {"queries": [{"metric": "cpu_load", "host": host} for host in hosts]}


def raw_request(method, query, version="1.1", connection="close"):
    body = json.dumps(query).encode()
    head = f"{method} /api/query HTTP/{version}\r\nHost: x\r\nConnection: {connection}"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_head_of_a_long_answer_has_no_body(rest, long_query):
    reader, writer = await rest.connect()
    writer.write(raw_request("HEAD", long_query, connection="keep-alive") + raw_request("GET", QUERY))
    async with asyncio.timeout(30):
        first, second, body = (await reader.read()).split(b"\r\n\r\n")
    writer.close()
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body).keys() == {"results"}


async def test_a_long_answer_ends_for_clients_of_http_1_0(rest, long_query):
    reader, writer = await rest.connect()
    writer.write(raw_request("GET", long_query, version="1.0", connection="keep-alive"))
    async with asyncio.timeout(30):
        head, body = (await reader.read()).split(b"\r\n\r\n")
    writer.close()
    assert b"chunked" not in head
    assert len(json.loads(body)["results"]) == 20_000


async def test_a_client_that_does_not_read_is_cut_off(rest, long_query, monkeypatch):
    ended = asyncio.Event()
    original = MetricService.encoded_query

    async def query(self, request, encode):
        try:
            while True:
                async for text in original(self, request, encode):
                    yield text
        finally:
            ended.set()

    monkeypatch.setattr(MetricService, "encoded_query", query)
    monkeypatch.setattr(sending, "SEND_SECONDS", 0.2)
    _, writer = await rest.connect()
    writer.transport.pause_reading()
    writer.write(raw_request("GET", long_query))
    async with asyncio.timeout(30):
        await ended.wait()
    writer.close()


async def test_a_query_of_a_whole_cluster_host_by_host_is_taken(rest):
    ids = [str(number) for number in range(8)]
    queries = [
        {"metric": f"metric{metric}", "host": f"host{host:05d}.cluster.example.org", "type": "core", "type-ids": ids}
        for host in range(1000)
        for metric in range(10)
    ]
    answer = await rest.query(QUERY | {"queries": queries})
    assert answer.status == 200
    assert len(answer.json["results"]) == 10_000


@pytest.mark.parametrize(("queries", "status"), [(1_000_000, 400), (QUERIES_MAX, 200)])
async def test_many_tiny_queries_leave_the_event_loop_to_others(rest, monkeypatch, queries, status):
    async def query(self, request, encode):
        yield b"[]"

    monkeypatch.setattr(MetricService, "encoded_query", query)
    body = b'{"queries":[' + b",".join([b"{}"] * queries) + b"]}"
    async with lag_measured() as lag:
        answer = await rest.send("POST", "/api/query", body)
    assert answer.status == status
    assert lag.longest < 1.0


async def test_queries_that_take_a_while_to_decode_leave_the_event_loop_to_others(rest, monkeypatch):
    decode, threads = query.decode_query, []

    def noted(body, *, resample):
        threads.append(threading.current_thread())
        return decode(body, resample=resample)

    monkeypatch.setattr(query, "decode_query", noted)
    for n_queries in (300, 1200):
        answer = await rest.query(QUERY | {"queries": [{}] * n_queries})
        assert (answer.status, len(answer.json["results"])) == (200, n_queries)
    short, long = threads
    assert short is threading.current_thread()
    assert long is not threading.current_thread()
