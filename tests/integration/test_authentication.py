"""Tokens and passwords at the real server, over REST and gRPC."""

import base64
import json
import logging
from contextlib import asynccontextmanager

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from helpers.launch import launched
from helpers.server import server_inside
from helpers.tokens import SAMPLE_KEY, SAMPLE_TOKEN, Issuer

import ccms_gateway
from ccms.v1 import admin_service_pb2, catalog_service_pb2
from ccms.v1 import metric_store_service_pb2 as service_pb
from ccms.v1.metric_store_service_pb2_grpc import MetricStoreServiceStub
from ccms_client import SeriesQuery, UnauthenticatedError
from ccms_server.auth import Access
from ccms_server.rpc import authentication
from ccms_server.rpc.authentication import access_of

ISSUER = Issuer()
LINES = "cpu_load,cluster=alex,hostname=n1 value=1.5 1700000000\n"
QUERY = {"cluster": "alex", "from": 1700000000, "to": 1700000060, "queries": [{"metric": "cpu_load", "host": "n1"}]}
OPEN = ("swagger", "api/openapi.json")
BASIC = {"Authorization": "Basic " + base64.b64encode(b"collector:s3cret").decode()}


def locked(**options):
    """A server that wants tokens."""
    config = {"jwt-public-key": ISSUER.public_key, "auth": {"basic": [{"username": "collector", "password": "s3cret"}]}}
    return server_inside(**{**config, **options})


@pytest.fixture
async def server():
    async with locked() as server:
        yield server


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *((method, path) for method in ("GET", "HEAD", "POST") for path in ("/api/query", "//api/query/?version=v2")),
        *(("POST", path) for path in ("/api/write", "/api/write/", "//api/write", "//api/write/")),
    ],
)
async def test_rest_wants_a_token(server, method, path):
    body = LINES if "write" in path else json.dumps(QUERY)
    refused = await server.rest.send(method, path, body)
    assert (refused.status, refused.headers["Content-Type"]) == (401, "application/json")
    expected = 'Bearer, Basic realm="cc-metric-store", charset="UTF-8"' if "write" in path else "Bearer"
    assert refused.headers["WWW-Authenticate"] == expected
    if method != "HEAD":
        assert refused.json["status"] == "Unauthorized"
        assert "authentication is required" in refused.json["error"]
    assert (await server.rest.send(method, path, body, bearer(ISSUER.lasting()))).status == 200
    assert (await server.rest.send(method, path, body, bearer(ISSUER.lasting(-1)))).status == 401


@pytest.fixture
def routes(monkeypatch):
    """Method and path of every route, once the server of the test has started."""
    found, create_app = set(), ccms_gateway.create_app

    def create_and_look(*args, **options):
        app = create_app(*args, **options)
        found.update((route.method, route.resource.canonical) for route in app.router.routes())
        return app

    monkeypatch.setattr(ccms_gateway, "create_app", create_and_look)
    return found


async def test_every_route_but_those_that_describe_the_api_wants_a_token(routes):
    async with locked(dev=True) as server:
        guarded = {(method, path) for method, path in routes if not path.strip("/").startswith(OPEN)}
        assert len(guarded) >= 16
        for method, path in guarded:
            assert (await server.rest.send(method, path)).status == 401, (method, path)


async def test_the_token_of_the_sample_configuration_is_taken():
    async with server_inside(token=SAMPLE_TOKEN, **{"jwt-public-key": SAMPLE_KEY}) as server:
        assert (await server.rest.write(LINES)).status == 200
        assert (await server.rest.query(QUERY)).json["results"][0][0]["data"] == [1.5]
        [series] = await server.grpc.query("alex", 1700000000, 1700000060, [SeriesQuery(metric="cpu_load", host="n1")])
        assert series.values.tolist() == [1.5]


async def test_a_password_is_good_for_writing_only(server):
    assert (await server.rest.send("POST", "/api/write", LINES, BASIC)).status == 200
    refused = await server.rest.send("GET", "/api/query", json.dumps(QUERY), BASIC)
    assert (refused.status, refused.json["status"]) == (403, "Forbidden")
    assert "may write only" in refused.json["error"]


@pytest.mark.parametrize(("method", "path", "body"), [("POST", "/api/free?to=1", "[]"), ("GET", "/api/debug", "")])
@pytest.mark.parametrize(
    ("claims", "enforced", "status"),
    [
        ({"roles": ["ROLE_USER"]}, True, 403),
        ({"roles": ["ROLE_USER"]}, False, 200),
        ({"roles": ["ROLE_API"]}, True, 200),
        ({}, True, 200),
    ],
)
async def test_freeing_and_dumping_wants_a_role(method, path, body, claims, enforced, status):
    async with locked(auth={"enforce-roles": enforced}) as server:
        answer = await server.rest.send(method, path, body, bearer(ISSUER.lasting(**claims)))
        assert answer.status == status
        assert status == 200 or answer.json["status"] == "Forbidden"


async def test_freeing_and_dumping_wants_a_role_however_they_are_spelled_and_nothing_else_does(routes):
    for_admins = {
        (method, f"{slashes}{path}{end}")
        for methods, path in (({"POST"}, "api/free"), ({"GET", "HEAD"}, "api/debug"))
        for method in methods
        for slashes in ("/", "//")
        for end in ("", "/")
    }
    user = bearer(ISSUER.lasting(roles=["ROLE_USER"]))
    async with locked(dev=True) as server:
        statuses = {(method, path): (await server.rest.send(method, path, b"", user)).status for method, path in routes}
    assert {route for route, status in statuses.items() if status == 403} == for_admins
    assert set(statuses.values()) == {200, 400, 403}  # queries without a body are bad requests, and let through


async def test_nothing_of_a_refused_write_is_stored(server):
    assert (await server.rest.send("POST", "/api/write", LINES, bearer(Issuer().lasting()))).status == 401
    answer = await server.rest.send("GET", "/api/query", json.dumps(QUERY), bearer(ISSUER.lasting()))
    assert "error" in answer.json["results"][0][0]


async def test_a_wrong_path_or_method_is_told_to_anyone(server):
    assert (await server.rest.send("GET", "/nowhere")).status == 404
    assert (await server.rest.send("DELETE", "/api/write")).status == 405


def request(path, body_bytes, authorization=None):
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {body_bytes}"]
    lines += [f"Authorization: {authorization}"] if authorization else []
    return "\r\n".join([*lines, "", ""]).encode()


async def read_answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    return int(head.split()[1]), await reader.readexactly(int(length))


async def test_the_token_is_looked_at_before_the_body(server):
    reader, writer = await server.rest.connect()
    writer.write(request("/api/write", 1000))
    assert (await read_answer(reader))[0] == 401  # nothing of the body is there yet
    writer.close()


@pytest.mark.parametrize("body_bytes", [100, 5_000_000])
async def test_the_body_of_a_refused_request_does_not_disturb_the_next_one(server, body_bytes):
    reader, writer = await server.rest.connect()
    good = request("/api/write", len(LINES), f"Bearer {ISSUER.lasting()}") + LINES.encode()
    for _ in range(3):
        writer.write(request("/api/write", body_bytes) + bytes(body_bytes) + good)
        await writer.drain()
        assert (await read_answer(reader))[0] == 401
        assert await read_answer(reader) == (200, b"")
    writer.close()


async def test_without_a_key_anyone_may_do_anything_and_the_log_says_so(caplog):
    async with server_inside() as server:
        assert (await server.rest.send("POST", "/api/write", LINES, bearer("garbage"))).status == 200
        assert (await server.grpc.write_lines(LINES.encode())).stored == 1
    assert "every user of this machine may" in caplog.text


async def test_being_open_to_other_machines_without_a_key_is_an_error_in_the_log(caplog):
    async with server_inside(**{"http-api": {"address": "0.0.0.0:0"}}) as server:
        assert (await server.rest.write(LINES)).status == 200
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "ANYONE who can reach 0.0.0.0:" in record.getMessage()


async def test_tokens_and_passwords_never_reach_the_log(caplog, server):
    caplog.set_level(logging.DEBUG)
    token = ISSUER.lasting()
    assert (await server.rest.send("POST", "/api/write", LINES, bearer(token))).status == 200
    assert (await server.rest.send("POST", "/api/write", LINES, bearer(token[:-5]))).status == 401
    assert (await server.rest.send("POST", "/api/write", LINES, BASIC)).status == 200
    assert token.rpartition(".")[0] not in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_process_says_that_it_is_open(tmp_path):
    async with launched(tmp_path) as server, server.clients():
        assert "may write, read, dump and drop all samples" in server.text


@asynccontextmanager
async def channel(server):
    async with aio.insecure_channel(server.grpc_address) as channel:
        yield channel


async def test_grpc_wants_a_token(server):
    query = [SeriesQuery(metric="cpu_load", host="n1")]
    for call in (server.grpc.write_lines(LINES.encode()), server.grpc.write([]), server.grpc.query("a", 0, 60, query)):
        with pytest.raises(UnauthenticatedError, match="authentication is required"):
            await call


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {ISSUER.lasting()}", StatusCode.OK),
        (f"bearer {ISSUER.lasting()}", StatusCode.OK),
        (BASIC["Authorization"], StatusCode.OK),
        (f"Bearer {ISSUER.lasting(-1)}", StatusCode.UNAUTHENTICATED),
        (f"Bearer {Issuer().lasting()}", StatusCode.UNAUTHENTICATED),
        ("Bearer garbage", StatusCode.UNAUTHENTICATED),
        ("Basic Z2FyYmFnZQ==", StatusCode.UNAUTHENTICATED),
    ],
)
async def test_grpc_takes_what_rest_takes(server, authorization, status):
    async with channel(server) as open_channel:
        call = MetricStoreServiceStub(open_channel).WriteLineProtocol(
            service_pb.WriteLineProtocolRequest(payload=LINES.encode()), metadata=(("authorization", authorization),)
        )
        assert await call.code() == status


async def test_a_password_is_no_good_for_queries_over_grpc(server):
    async with channel(server) as open_channel:
        call = MetricStoreServiceStub(open_channel).Query(
            service_pb.QueryRequest(cluster="alex"), metadata=(("authorization", BASIC["Authorization"]),)
        )
        assert await call.code() == StatusCode.PERMISSION_DENIED
        assert "may write only" in await call.details()


async def test_the_client_sends_its_token():
    async with locked(token=ISSUER.lasting()) as server:
        assert (await server.grpc.write_lines(LINES.encode())).stored == 1
        [series] = await server.grpc.query("alex", 1700000000, 1700000060, [SeriesQuery(metric="cpu_load", host="n1")])
        assert series.values.tolist() == [1.5]
        assert (await server.grpc.write([])).stored == 0


async def test_health_is_told_to_anyone(server):
    async with channel(server) as open_channel:
        answer = await health_pb2_grpc.HealthStub(open_channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_contract_is_told_to_those_with_a_token(server):
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    async with channel(server) as open_channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(open_channel).ServerReflectionInfo
        with pytest.raises(aio.AioRpcError) as refused:
            [answer async for answer in ask(iter(asked))]
        assert refused.value.code() == StatusCode.UNAUTHENTICATED
        metadata = (("authorization", f"Bearer {ISSUER.lasting()}"),)
        [answer] = [answer async for answer in ask(iter(asked), metadata=metadata)]
    assert "ccms.v1.MetricStoreService" in {service.name for service in answer.list_services_response.service}


async def test_a_method_that_does_not_exist_is_told_to_anyone(server):
    async with channel(server) as open_channel:
        call = open_channel.unary_unary("/ccms.v1.MetricStoreService/Nothing")(b"")
        assert await call.code() == StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("request_bytes", [b"\xff", b"\x0a" * 40_000_000], ids=["undecodable", "too large"])
async def test_the_token_is_looked_at_before_the_message(server, request_bytes):
    async with channel(server) as open_channel:
        method = open_channel.unary_unary("/ccms.v1.MetricStoreService/WriteLineProtocol")
        assert await method(request_bytes).code() == StatusCode.UNAUTHENTICATED
        call = method(request_bytes, metadata=(("authorization", f"Bearer {ISSUER.lasting()}"),))
        assert await call.code() in {StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED}


def test_every_method_of_the_contract_states_what_it_does():
    files = (service_pb, catalog_service_pb2, admin_service_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    methods = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert methods == authentication._ACCESS_BY_METHOD.keys()
    assert {method.rpartition("/")[2] for method in methods if access_of(method) is Access.WRITE} == {
        "Write",
        "WriteLineProtocol",
        "WriteStream",
    }
    assert {method.rpartition("/")[2] for method in methods if access_of(method) is Access.ADMIN} == {
        "Free",
        "Dump",
        "Checkpoint",
    }
    assert access_of("/ccms.v1.MetricStoreService/Unknown") is Access.ADMIN
    assert access_of("/some.other.Service/Method") is Access.ADMIN
