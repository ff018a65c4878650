"""Starting and stopping: what is told, what is refused, and what is still done."""

import asyncio
import json
import os
import pwd
import re
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from helpers.nats import delivered, nats_server, publisher
from helpers.server import config_text, server_inside, server_process
from helpers.waiting import DEADLINE_SECONDS, eventually

from ccms_client import SeriesQuery
from ccms_server.app import GRACE_SECONDS
from ccms_server.rpc.server import SERVICE_NAMES
from ccms_server.store.store import Store

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
LINE = b"cpu_load,cluster=alex,hostname=n1 value=1.5 1700000000\n"


async def test_both_protocols_show_the_same_store():
    async with server_inside() as server:
        assert (await server.rest.write(LINE)).status == 200
        assert (await server.grpc.write_lines(LINE.replace(b"1700000000", b"1700000060"))).stored == 1
        answer = await server.rest.query(
            {"cluster": "alex", "from": 1_700_000_000, "to": 1_700_000_120, "queries": [query_body()]}
        )
        assert answer.json["results"][0][0]["data"] == [1.5, 1.5]
        [series] = await server.grpc.query(
            "alex", 1_700_000_000, 1_700_000_120, [SeriesQuery(metric="cpu_load", host="n1")]
        )
        assert series.values.tolist() == [1.5, 1.5]


def query_body():
    return {"metric": "cpu_load", "host": "n1"}


@pytest.mark.parametrize("service", ["", *SERVICE_NAMES])
async def test_health_is_serving_once_started_and_not_serving_while_it_stops(service):
    request = health_pb2.HealthCheckRequest(service=service)
    async with server_inside() as server, aio.insecure_channel(server.grpc_address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(request)
        assert (await watch.read()).status == SERVING
        server.stop.set()
        assert (await watch.read()).status == NOT_SERVING


async def test_health_knows_nothing_of_nats_where_none_is_configured():
    async with server_inside() as server, aio.insecure_channel(server.grpc_address) as channel:
        with pytest.raises(aio.AioRpcError, match="NOT_FOUND"):
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="nats"))


async def test_services_can_be_listed():
    async with server_inside() as server, aio.insecure_channel(server.grpc_address) as channel:
        requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests))
        [response] = [response async for response in call]
        names = {service.name for service in response.list_services_response.service}
        assert names == {*SERVICE_NAMES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


@pytest.mark.parametrize("section", ["http-api", "grpc-api"])
async def test_a_taken_port_is_told_by_its_address(tmp_path, section):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=address):
            async with server_inside(**{section: {"address": address}}):
                pass
        path = tmp_path / "config.json"
        path.write_text(config_text(**{section: {"address": address}}))
        returncode, errors = await run_to_end(path)
    assert returncode == 1
    assert address in errors.splitlines()[-1]


async def run_to_end(config_path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ccms_server", "-config", str(config_path), stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        _, errors = await process.communicate()
    return process.returncode, errors.decode()


async def test_the_start_says_where_it_serves_and_that_nothing_is_kept(tmp_path):
    async with server_process(tmp_path) as server:
        assert await server.terminate() == 0
        log = "".join(server.log)
    assert "serving REST on http://127.0.0.1:" in log
    assert "kept in memory only" in log
    assert "stopped" in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_regularly(tmp_path, number):
    async with server_process(tmp_path) as server:
        assert (await server.rest.write(LINE)).status == 200
        server.process.send_signal(number)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await server.process.wait() == 0


async def test_a_request_that_is_running_is_finished_after_sigterm(tmp_path):
    """A body is half sent when the signal comes."""
    async with server_process(tmp_path) as server:
        host, port = server.rest.base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /api/write HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LINE)}\r\n\r\n".encode()
        writer.write(head + LINE[:10])
        await writer.drain()
        # An answer on a second connection shows that the server has seen what was sent before on the first.
        assert (await server.rest.write(b"")).status == 200
        server.process.send_signal(signal.SIGTERM)
        await eventually(lambda: any("stopping" in line for line in server.log), "the server to stop")
        writer.write(LINE[10:])
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            assert await server.process.wait() == 0
        writer.close()
        await writer.wait_closed()


async def test_what_every_protocol_took_in_is_stored_when_the_server_stops():
    async with nats_server() as broker, publisher(broker) as client:
        subscription = {"subscribe-to": "updates", "cluster-tag": "alex"}
        async with server_inside(nats=[{"address": broker.url, "subscriptions": [subscription]}]) as server:
            await eventually(lambda: server.nats[0].connected, "a connection to NATS")
            for number in range(500):
                await client.publish("updates", numbered(b"over-nats", number))
            await delivered(client)
            writes = [
                asyncio.create_task(write(numbered(host, number)))
                for number in range(100)
                for host, write in ((b"over-rest", server.rest.write), (b"over-grpc", server.grpc.write_lines))
            ]
            done, _ = await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
            assert done
            server.stop.set()
            results = await asyncio.gather(*writes, return_exceptions=True)
        acknowledged = sum(getattr(result, "status", 0) == 200 or getattr(result, "stored", 0) for result in results)
        assert server.service.counters.stored >= 500 + acknowledged
        assert acknowledged > 0


def numbered(host, number):
    return b"cpu_load,cluster=alex,hostname=%s value=1 %d\n" % (host, 1_700_000_000 + 60 * number)


async def test_a_part_that_fails_ends_the_server(monkeypatch):
    def maintain(self, oldest):
        raise RuntimeError("a defect")

    monkeypatch.setattr(Store, "maintain", maintain)
    with pytest.raises(ExceptionGroup) as raised:
        async with server_inside() as server:
            await asyncio.wait({server.task})
    assert raised.group_contains(RuntimeError, match="a defect")


async def test_a_body_that_never_ends_does_not_hold_up_the_end(tmp_path):
    async with server_process(tmp_path) as server:
        host, port = server.rest.base_url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /api/write HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + LINE[:10])
        await writer.drain()
        assert (await server.rest.write(b"")).status == 200
        async with asyncio.timeout(GRACE_SECONDS + 10):  # well before the body's own deadline of 30 s
            assert await server.terminate() == 0
        writer.close()


async def test_a_second_signal_ends_the_process_at_once(tmp_path):
    async with server_process(tmp_path) as server:
        host, port = server.rest.base_url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /api/write HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + LINE[:10])
        await writer.drain()
        assert (await server.rest.write(b"")).status == 200
        server.process.send_signal(signal.SIGINT)
        await eventually(lambda: any("stopping" in line for line in server.log), "the server to stop")
        server.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(GRACE_SECONDS - 1):
            assert await server.process.wait() == -signal.SIGINT
        writer.close()


@pytest.fixture
def directory_of_nobody():
    """A directory that the user `nobody` can reach and write to, as pytest's own cannot be."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        yield directory


def users_of(pid):
    """Real, effective, saved and file system users of all threads of a process."""
    found = re.compile("^Uid:(.*)", re.MULTILINE)
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {uid for task in tasks for uid in found.search((task / "status").read_text())[1].split()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_server_that_root_starts_works_as_the_user_of_the_configuration(tmp_path, directory_of_nobody):
    checkpoints = {"directory": str(directory_of_nobody)}
    body = {"cluster": "alex", "from": 1_700_000_000, "to": 1_700_000_060, "queries": [query_body()]}
    async with server_process(tmp_path, user="nobody", checkpoints=checkpoints) as server:
        assert (await server.rest.write(LINE)).status == 200
        assert (await server.rest.query(body)).json["results"][0][0]["data"] == [1.5]
        assert users_of(server.process.pid) == {str(pwd.getpwnam("nobody").pw_uid)}
        assert await server.terminate() == 0
    assert {path.owner() for path in directory_of_nobody.rglob("*")} == {"nobody"}


async def test_what_is_held_is_dumped_to_a_file_at_the_end(tmp_path):
    path = tmp_path / "dump.json"
    async with server_inside(debug={"dump-to-file": str(path)}) as server:
        assert (await server.rest.write(LINE)).status == 200
    extent = {"start": 1_699_999_970, "len": 1, "end": 1_700_000_030}
    assert json.loads(path.read_text()) == {"data": {"alex": {"n1": {"cpu_load": [extent]}}}}


async def test_what_subscriptions_brought_last_is_in_the_dump(tmp_path):
    path = tmp_path / "dump.json"
    async with server_inside(debug={"dump-to-file": str(path)}) as server:
        for number in range(20_000):
            await server.service.admit_lines(numbered(b"late", number), "")
    assert server.service.counters.stored == 20_000
    [extent] = json.loads(path.read_text())["data"]["alex"]["late"]["cpu_load"]
    assert extent["len"] == 20_000


async def test_a_dump_that_cannot_be_written_is_told_and_the_server_ends_well(tmp_path, caplog):
    async with server_inside(debug={"dump-to-file": str(tmp_path / "absent" / "dump.json")}) as server:
        assert (await server.rest.write(LINE)).status == 200
    assert "`dump-to-file` cannot be written: No such file or directory" in caplog.text
