"""One contract, three ways to the store: every recording of the predecessor, and what it has no recording of."""

import asyncio
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers.backends import BACKENDS, RefusedError
from helpers.server import server_inside
from helpers.vectors import SIGNED_LINE, VECTORS, assert_same_response, vector_name

from ccms_server.model import QueryRequest, SeriesQuery

START = 1_700_000_000
METRICS = {
    "load": {"frequency": 60},
    "flops": {"frequency": 60, "aggregation": "sum"},
    "clock": {"frequency": 30, "aggregation": "avg"},
}
OF_HTTP_ALONE = {
    "jwt-auth": "headers of HTTP; tokens over gRPC are tested with those of REST in test_authentication",
    "method-not-allowed": "a method of HTTP",
    "not-found": "paths",
    "query-malformed-json": "JSON",
    "query-wrong-types": "JSON",
    "free-bad-body": "JSON",
    "free-bad-to": "a parameter that is no number",
    "free-without-to": "a parameter that is absent",
}
"""Recordings that show HTTP itself, and why there is nothing like it on the other ways."""
SHARED = [vector for vector in VECTORS if vector["name"] not in OF_HTTP_ALONE]


@pytest.fixture(params=BACKENDS)
def way(request):
    return BACKENDS[request.param]


@pytest.fixture
async def backend(way):
    async with server_inside(metrics=METRICS, clock=lambda: float(START + 600)) as server:
        yield way(server)


# --- recordings


def test_what_is_left_out_exists():
    assert OF_HTTP_ALONE.keys() <= {vector["name"] for vector in VECTORS}


@pytest.mark.parametrize("vector", SHARED, ids=vector_name)
async def test_a_recording(way, vector):
    async with server_inside(metrics=vector["metrics"]) as server:
        for step in vector["steps"]:
            await check(way(server), vector, step)


@pytest.mark.parametrize("vector", SHARED, ids=vector_name)
async def test_all_ways_agree(vector):
    """On the same store; REST up to its three decimals."""
    async with server_inside(metrics=vector["metrics"]) as server:
        in_process, grpc, rest = (way(server) for way in BACKENDS.values())
        for step in vector["steps"]:
            if step["op"] != "query":
                await check(in_process, vector, step)
                continue
            request = asked(step)
            expected = await in_process.query(request)
            assert await grpc.query(request) == expected
            assert await rest.query(request) == [[rounded(answer) for answer in series] for series in expected]
        everything = await in_process.dump([])
        assert await grpc.dump([]) == await rest.dump([]) == everything


async def check(backend, vector, step):
    """Does what was done then, and compares the answer."""
    url = urlsplit(step["path"])
    parameters = {key: values[-1] for key, values in parse_qs(url.query).items()}
    if step["op"] == "query":
        results = await backend.query(asked(step))
        assert_same_response(as_recorded(results, step), step["response"], vector, step)
    elif url.path.rstrip("/") == "/api/write":
        is_good = await backend.write(step["body"].encode(), parameters.get("cluster", ""))
        if vector["name"] not in (SIGNED_LINE, "write-garbage"):
            assert is_good == (step["status"] == 200)
    else:
        assert url.path.rstrip("/") == "/api/free"
        freed = sum([await backend.free(path, int(parameters["to"])) for path in json.loads(step["body"])])
        assert (freed == 0) == (step["response_text"] == "buffers freed: 0\n")


def asked(step):
    """The query of a step in the words of the model."""
    body = step["body"]
    resampled = parse_qs(urlsplit(step["path"]).query).get("version") != ["v1"]
    return QueryRequest(
        cluster=body["cluster"],
        start=body["from"],
        end=body["to"],
        queries=[
            SeriesQuery(
                metric=query["metric"],
                host=query["host"],
                type=query.get("type"),
                type_ids=query.get("type-ids") or (),
                subtype=query.get("subtype"),
                subtype_ids=query.get("subtype-ids") or (),
                aggregate=query.get("aggreg", False),
                resolution=query.get("resolution", 0) if resampled else 0,
                scale_by=query.get("scale-by", 0.0),
            )
            for query in body.get("queries") or []
        ],
        for_all_hosts=body.get("for-all-nodes") or (),
        with_values=body.get("with-data", True),
        with_statistics=body.get("with-stats", True),
        with_padding=body.get("with-padding", True),
    )


def as_recorded(results, step):
    """Answers as the predecessor writes them."""
    n_asked = len(step["body"].get("queries") or ())
    return {
        "results": [
            [recorded_series(answer, is_added=number >= n_asked) for answer in series]
            for number, series in enumerate(results)
        ]
    }


def recorded_series(answer, *, is_added):
    series = {"from": answer.start, "to": answer.end, "resolution": answer.interval}
    if is_added:
        series["key"] = (answer.metric, answer.host)
    if answer.is_error:
        return series | {"error": "there is one"}
    if answer.values:
        series["data"] = answer.values
    if answer.statistics is not None:
        series |= dict(zip(("min", "avg", "max"), answer.statistics, strict=True))
    return series


def rounded(answer):
    """An answer as REST gives it."""
    values = None if answer.values is None else _Rounded(answer.values)
    statistics = None if answer.statistics is None else _Rounded(answer.statistics)
    return answer._replace(values=values, statistics=statistics)


class _Rounded:
    """Equal to values that are the same up to three decimals, and None where these are."""

    def __init__(self, values):
        self._values = values

    def __eq__(self, other):
        return (
            other is not None
            and len(other) == len(self._values)
            and all(
                one is another
                if one is None or another is None
                else one == pytest.approx(another, abs=0.00051, rel=1e-12)
                for one, another in zip(other, self._values, strict=True)
            )
        )

    def __repr__(self):
        return f"about {self._values!r}"

    __hash__ = None


# --- beyond the recordings


def line(metric, host, value, minute=0, component=""):
    kind, _, name = component.partition(":")
    place = f",type={kind},type-id={name}" if component else ""
    return f"{metric},cluster=alex,hostname={host}{place} value={value} {START + 60 * minute}\n".encode()


def query(*queries, start=START, end=START + 600, **settings):
    return QueryRequest(cluster="alex", start=start, end=end, queries=queries, **settings)


async def test_a_bad_line_is_told_and_costs_no_other(backend):
    assert not await backend.write(line("load", "n1", 1) + b"load value=2\n" + line("load", "n2", 3))
    results = await backend.query(query(SeriesQuery(metric="load", host="n1"), SeriesQuery(metric="load", host="n2")))
    assert [[answer.values for answer in series] for series in results] == [[[1.0]], [[3.0]]]


async def test_the_default_cluster_is_that_of_lines_without_one(backend):
    assert await backend.write(b"load,hostname=n1 value=1 %d\n" % START, "alex")
    assert not await backend.write(b"load,hostname=n1 value=1 %d\n" % START)
    assert await backend.dump(["alex", "n1"]) == {("alex", "n1", "load"): (START - 30, 1, START + 30)}


async def test_names_of_any_script_and_with_separators(backend):
    await backend.write("load,hostname=nöd\\ 1,type=a:b,type-id=c value=1 1700000000\n".encode(), "ölex")
    assert await backend.dump([]) == {("ölex", "nöd 1", "a:bc", "load"): (START - 30, 1, START + 30)}
    assert await backend.dump(["ölex", "nöd 1", "a:bc"]) == await backend.dump([])


async def test_errors_of_single_series_leave_the_others_alone(backend):
    await backend.write(
        line("load", "n1", 1) + line("load", "n1", 1, component="core:0") + line("load", "n1", 2, component="core:1")
    )
    cores = {"host": "n1", "type": "core", "type_ids": ["0", "1"]}
    results = await backend.query(
        query(
            SeriesQuery(metric="nope", host="n1"),
            SeriesQuery(metric="load", host="nowhere"),
            SeriesQuery(metric="load", host="n1", resolution=90),
            SeriesQuery(metric="load", aggregate=True, **cores),
            SeriesQuery(metric="load", **cores),
        )
    )
    assert [[answer.is_error for answer in series] for series in results] == [
        [True],
        [True],
        [True],
        [True],
        [False, False],
    ]
    assert [answer.values for answer in results[4]] == [[1.0], [2.0]]


async def test_components_are_aggregated_and_scaled(backend):
    await backend.write(
        b"".join(line("flops", "n1", 10 * core, minute, f"core:{core}") for core in (1, 2) for minute in (0, 2))
    )
    [[host], [half]] = await backend.query(
        query(SeriesQuery(metric="flops", host="n1"), SeriesQuery(metric="flops", host="n1", scale_by=-0.5))
    )
    assert (host.values, host.statistics) == ([30.0, None, 30.0], (30.0, 30.0, 30.0))
    assert (half.values, half.statistics) == ([-15.0, None, -15.0], (-15.0, -15.0, -15.0))


async def test_queries_over_a_limit_are_refused_as_a_whole(way):
    async with server_inside(metrics=METRICS, limits={"query-points": 100, "query-series": 3}) as server:
        backend = way(server)
        await backend.write(b"".join(line("load", "n1", minute, minute) for minute in range(200)))
        with pytest.raises(RefusedError, match="200 exceed the limit of 100"):
            await backend.query(query(SeriesQuery(metric="load", host="n1"), end=START + 60 * 200))
        with pytest.raises(RefusedError, match="series in one query: 4 exceed the limit of 3"):
            await backend.query(query(*[SeriesQuery(metric="load", host="n1")] * 4))


async def test_what_is_freed_is_gone_and_stays_so(backend):
    await backend.write(b"".join(line("load", host, minute, minute) for host in ("n1", "n2") for minute in range(4)))
    assert await backend.free(["alex", "n1"], START + 120) == 1
    assert await backend.free(["alex", "n1"], START + 120) == 0
    assert await backend.free(["alex", "nowhere"], START + 120) == 0
    assert not await backend.write(line("load", "n1", 9, 0))
    assert await backend.dump(["alex"]) == {
        ("alex", "n1", "load"): (START + 90, 2, START + 210),
        ("alex", "n2", "load"): (START - 30, 4, START + 210),
    }
    assert await backend.free([], START + 10_000) == 2
    assert await backend.dump([]) == {}


async def test_a_dump_of_what_does_not_exist_is_refused(backend):
    await backend.write(line("load", "n1", 1))
    for path in (["alix"], ["alex", "n2"], ["alex", "n1", "core0"]):
        with pytest.raises(RefusedError, match="names nothing"):
            await backend.dump(path)


async def test_the_health_of_hosts(backend):
    """The clock stands ten minutes after the first sample."""
    await backend.write(
        line("load", "good", 1, 9)
        + line("flops", "good", 1, 9, "core:0")
        + line("load", "lame", 1, 9)
        + line("flops", "lame", 1, 9, "core:0")
        + line("flops", "lame", 1, 1, "core:1")
        + line("load", "dead", 1, 1)
    )
    assert await backend.health("alex", ["good", "lame", "dead", "none"], ["load", "flops"]) == {
        "good": ("full", [], []),
        "lame": ("partial", ["flops"], []),
        "dead": ("failed", ["load"], ["flops"]),
        "none": ("failed", [], []),
    }


async def test_all_ways_may_be_used_at_the_same_time():
    async with server_inside(metrics=METRICS) as server:
        ways = [way(server) for way in BACKENDS.values()]
        writes = [
            way.write(line("load", f"n{number}", number, minute))
            for number, way in enumerate(ways)
            for minute in range(20)
        ]
        assert all(await asyncio.gather(*writes))
        asked = query(*[SeriesQuery(metric="load", host=f"n{number}") for number in range(3)], end=START + 1200)
        answers = await asyncio.gather(*[way.query(asked) for way in ways])
        assert answers[0] == answers[1] == answers[2]
        assert [series.values for [series] in answers[0]] == [[float(number)] * 20 for number in range(3)]
