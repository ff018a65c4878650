"""The predecessor's own walk-through: lines published to a broker, asked for with curl and a token, and dumped."""

import asyncio
import json
import os
import shutil
import socket
import time
from urllib.parse import urlsplit

from helpers.launch import launched
from helpers.nats import delivered, nats_server, publisher
from helpers.tokens import SAMPLE_KEY, SAMPLE_TOKEN
from helpers.waiting import eventually

INTERVAL = 60
QUERY = r"""
curl -sS -H "Authorization: Bearer $JWT" -D - "http://localhost:$PORT/api/query" -d "{ \"cluster\": \"testcluster\", \
\"from\": $(expr $NOW - 120), \"to\": $(expr $NOW + 60), \
\"queries\": [{ \"metric\": \"load_one\", \"host\": \"$(hostname)\" }] }"
"""
DUMP = r"""curl -sS -H "Authorization: Bearer $JWT" -D - "http://localhost:$PORT/api/debug" """


def configuration(directory, broker):
    """The sections of a file in the layout of 2024."""
    return {
        "metrics": {"load_one": {"frequency": INTERVAL, "aggregation": None}},
        "http-api": {"address": "localhost:0", "https-cert-file": None, "https-key-file": None},
        "jwt-public-key": SAMPLE_KEY,
        "retention-in-memory": "1h",
        "checkpoints": {"interval": "1h", "directory": str(directory / "checkpoints"), "restore": "1h"},
        "archive": {"interval": "2h", "directory": str(directory / "archive")},
        "nats": [
            {"address": broker.url, "username": "", "password": "", "subscriptions": [{"subscribe-to": "updates"}]}
        ],
    }


async def curl(command, port):
    """Runs a command with curl in a shell; returns the status line, the headers, and the answer."""
    missing = [program for program in ("bash", "curl", "hostname", "expr") if shutil.which(program) is None]
    assert missing == [], f"this test runs programs that are not installed here: {missing}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", command),
        env=os.environ | {"JWT": SAMPLE_TOKEN, "PORT": str(port), "NOW": str(int(time.time()))},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    head, _, body = out.decode().partition("\r\n\r\n")
    status, *headers = head.splitlines()
    return status, {name.lower(): value for name, value in (header.split(": ", 1) for header in headers)}, body


async def test_lines_from_a_broker_are_found_with_curl_and_a_token(tmp_path):
    async with (
        nats_server() as broker,
        launched(tmp_path, **configuration(tmp_path, broker)) as server,
        server.clients() as clients,
        publisher(broker) as collector,
    ):
        assert await server.until_logged("subscribed to updates"), server.text
        host, now = socket.gethostname(), int(time.time())
        line = f"load_one,cluster=testcluster,hostname={host},type=node value="
        await collector.publish("updates", f"{line}0.5 {now - INTERVAL}\n{line}1.5 {now}\n".encode())
        await delivered(collector)
        port = urlsplit(clients.rest.base_url).port

        async def answered():
            status, headers, body = await curl(QUERY, port)
            assert status == "HTTP/1.1 200 OK"
            assert headers["content-type"].startswith("application/json")
            [[series]] = json.loads(body)["results"]
            return series if "error" not in series else None

        series = await eventually(answered, "the published lines")
        assert [value for value in series["data"] if value is not None] == [0.5, 1.5]
        assert (series["resolution"], series["min"], series["avg"], series["max"]) == (INTERVAL, 0.5, 1.0, 1.5)

        status, headers, body = await curl(DUMP, port)
        assert status == "HTTP/1.1 200 OK"
        assert headers["content-type"].startswith("application/json")
        [extent] = json.loads(body)["data"]["testcluster"][host]["load_one"]
        assert extent["len"] == 2


async def test_without_the_token_curl_is_told_what_is_missing(tmp_path):
    async with (
        nats_server() as broker,
        launched(tmp_path, **configuration(tmp_path, broker)) as server,
        server.clients() as clients,
    ):
        port = urlsplit(clients.rest.base_url).port
        for command in (QUERY, DUMP):
            status, headers, body = await curl(command.replace('-H "Authorization: Bearer $JWT" ', ""), port)
            assert status == "HTTP/1.1 401 Unauthorized"
            assert headers["www-authenticate"] == "Bearer"
            assert json.loads(body)["status"] == "Unauthorized"
