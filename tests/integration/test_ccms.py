"""The command `ccms` as a process against a real server."""

import asyncio
import csv
import gzip
import io
import json
import os
import re
import signal
import sys

import pytest
from helpers.launch import served
from helpers.server import server_inside
from helpers.tokens import Issuer
from helpers.waiting import eventually

START = 1_700_000_040
METRICS = {
    "load": {"frequency": 60},
    "flops": {"frequency": 60, "aggregation": "sum", "unit": "F/s"},
}
LINES = "".join(
    f"{metric},cluster=alpha,hostname=n{host}{place} value={host + minute / 8} {START + 60 * minute}\n"
    for host in (1, 2, 10)
    for metric, place in (
        ("load", ",type=node"),
        ("flops", ",type=socket,type-id=0"),
        ("flops", ",type=socket,type-id=1"),
        ("flops", ",type=accelerator,type-id=0000:4a:00.0,stype=part,stype-id=x\\ 1"),
    )
    for minute in range(20)
)


class Ran:
    """What became of a command."""

    def __init__(self, code, out, errors):
        self.code = code
        self.out = out
        self.errors = errors

    def __repr__(self):
        return f"{self.code}\n{self.out}\n{self.errors}"


async def started(server, *arguments, **environment):
    address = getattr(server, "grpc_address", server)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ccms_cli", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "CCMS_SERVER": address, "COLUMNS": "120", "TERM": "dumb", **environment},
    )


async def ccms(server, *arguments, stdin=b"", **environment):
    process = await started(server, *arguments, **environment)
    async with asyncio.timeout(60):
        out, errors = await process.communicate(stdin)
    return Ran(process.returncode, out.decode(), errors.decode())


@pytest.fixture
async def server():
    async with server_inside(metrics=METRICS) as running:
        assert not (await running.grpc.write_lines(LINES.encode())).rejected
        yield running


def query_of(*arguments):
    return ("query", "alpha", *arguments, "--from", str(START), "--to", str(START + 1200))


async def test_help_names_all_commands_and_the_exit_codes(server):
    ran = await ccms(server, "--help")
    assert ran.code == 0
    for word in ("query", "write", "tail", "ls", "top", "health", "free", "dump", "export", "import", "bench"):
        assert re.search(rf"│ {word} ", ran.out), word
    assert "130 Ctrl-C" in ran.out


async def test_lines_are_written_from_stdin_and_files(server, tmp_path):
    ran = await ccms(server, "write", "--cluster", "beta", stdin=b"load,hostname=n1 value=1 %d\n" % START)
    assert (ran.code, ran.out) == (0, "stored 1, ignored 0, rejected 0\n")
    path = tmp_path / "lines.txt"
    path.write_bytes(
        b"# comment\nload,hostname=n2 value=1\nload,cluster=beta,hostname=n2 value=x\nother,hostname=n value=1\n"
    )
    ran = await ccms(server, "write", str(path), "--batch-lines", "1")
    assert (ran.code, ran.out) == (1, "stored 0, ignored 1, rejected 2\n")
    assert "line 2: " in ran.errors
    assert "line 3: " in ran.errors
    assert "malformed" in ran.errors.lower() or "invalid" in ran.errors.lower()


async def test_series_come_as_csv_json_table_and_plot(server):
    ran = await ccms(server, *query_of("load", "-H", "n[1-2]", "--format", "csv"))
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert (ran.code, len(rows)) == (0, 40)
    assert (rows[0]["time"], rows[0]["host"], float(rows[1]["value"])) == (str(START), "n1", 1.125)
    ran = await ccms(server, *query_of("flops", "-H", "n1", "--type", "socket", "--id", "0-1", "--format", "json"))
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert [(each["component"], len(each["values"])) for each in found] == [("socket0", 20), ("socket1", 20)]
    ran = await ccms(server, *query_of("load", "--all-hosts"))
    assert ran.code == 0
    assert {"n1", "n2", "n10"} <= set(ran.out.split())
    ran = await ccms(server, *query_of("flops", "-H", "n1", "--format", "plot"))
    assert (ran.code, "flops" in ran.out, "F/s" in ran.out) == (0, True, True)


async def test_series_that_are_not_there_are_told(server):
    ran = await ccms(server, *query_of("load", "-H", "n1", "-H", "nowhere"))
    assert ran.code == 1
    assert "n1" in ran.out
    assert "not found" in ran.errors


async def test_what_there_is_is_listed(server):
    assert (await ccms(server, "ls")).out == "alpha\n"
    assert (await ccms(server, "ls", "alpha")).out == "n1\nn2\nn10\n"
    assert (await ccms(server, "ls", "alpha", "n1")).out.split() == ["accelerator0000:4a:00.0", "socket0", "socket1"]
    assert "F/s" in (await ccms(server, "ls", "--metrics", "-l")).out
    assert len((await ccms(server, "ls", "alpha", "n2", "--series")).out.splitlines()) >= 4
    assert re.search(r"n10 .*4", (await ccms(server, "ls", "alpha", "-l")).out)
    ran = await ccms(server, "ls", "beta")
    assert (ran.code, ran.out) == (1, "")
    assert "no 'beta'" in ran.errors


async def test_operators_commands(server):
    ran = await ccms(server, "health", "alpha", "--metric", "load", "--format", "json")
    assert ran.code == 1  # all of it is old
    assert {json.loads(line)["host"] for line in ran.out.splitlines()} == {"n1", "n2", "n10"}
    assert "240" in (await ccms(server, "status")).out
    assert (await ccms(server, "checkpoint")).code == 0
    assert len((await ccms(server, "dump", "alpha/n1", "--format", "json")).out.splitlines()) == 4
    ran = await ccms(server, "free", "alpha/n1", "--before", "now", stdin=b"n\n")
    assert ran.code == 1
    assert "n1" in (await ccms(server, "dump")).out
    ran = await ccms(server, "free", "alpha/n1", "--before", "now", "--yes")
    assert ran.code == 0
    assert "n1 " not in (await ccms(server, "dump", "alpha")).out


async def test_the_busiest_hosts(server):
    lines = "".join(f"load,cluster=alpha,hostname=n{host} value={host}\n" for host in (1, 2, 10))
    assert not (await server.grpc.write_lines(lines.encode())).rejected
    ran = await ccms(server, "top", "load", "--cluster", "alpha", "--once", "-n", "2")
    assert ran.code == 0
    assert [host for host in ran.out.split() if host in ("n1", "n2", "n10")] == ["n10", "n2"]
    assert (await ccms(server, "top", "nope", "--cluster", "alpha", "--once")).code == 1


async def test_samples_are_shown_as_they_are_stored_until_ctrl_c(server):
    process = await started(server, "tail", "--host", "n*", "--format", "json")
    await eventually(lambda: server.service._watches.count == 1, "the watch has begun")
    await server.grpc.write_lines(b"load,cluster=alpha,hostname=n7 value=3.5 %d\n" % START)
    async with asyncio.timeout(30):
        shown = json.loads(await process.stdout.readline())
    assert (shown["metric"], shown["host"], shown["value"]) == ("load", "n7", 3.5)
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in errors


@pytest.mark.parametrize("name", ["samples.lp", "samples.lp.gz", "samples.parquet", "checkpoints"])
async def test_what_was_exported_can_be_imported_and_is_the_same(server, tmp_path, name):
    path, more = str(tmp_path / name), ["--format", "legacy"] if name == "checkpoints" else []
    ran = await ccms(server, "export", "alpha", path, *more)
    assert ran.code == 0, ran
    assert "240 samples of alpha" in ran.errors
    async with server_inside(metrics=METRICS) as other:
        ran = await ccms(other, "import", path)
        assert ran.code == 0, ran
        assert ran.out.startswith("stored 240")
        everything = ("export", "alpha", "-")
        first, second = await ccms(server, *everything), await ccms(other, *everything)
        assert sorted(first.out.splitlines()) == sorted(second.out.splitlines())
        assert len(second.out.splitlines()) == 240


async def test_some_of_the_samples_can_be_exported(server):
    ran = await ccms(
        server,
        "export",
        "alpha",
        "-",
        "-H",
        "n[1-2]",
        "-m",
        "load",
        "--from",
        str(START + 60),
        "--to",
        str(START + 180),
    )
    assert ran.out.splitlines() == [
        f"load,cluster=alpha,hostname=n{host} value={host + minute / 8} {START + 60 * minute}"
        for host in (1, 2)
        for minute in (1, 2)
    ]
    assert (await ccms(server, "export", "nowhere", "-")).code == 1


@pytest.mark.parametrize("name", ["samples.lp", "samples.parquet"])
async def test_an_export_that_fails_leaves_what_was_there(server, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"precious")
    assert (await ccms(server, "export", "alpha", str(path), "-m", "nope")).code == 1
    assert (await ccms("127.0.0.1:1", "--timeout", "1", "export", "alpha", str(path))).code == 3
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {name: b"precious"}


async def test_damaged_input_is_told(server, tmp_path):
    path = tmp_path / "lines.gz"
    path.write_bytes(gzip.compress(LINES.encode())[:-100])
    ran = await ccms(server, "write", str(path))
    assert (ran.code, "cut off or damaged" in ran.errors) == (2, True)


@pytest.mark.parametrize(
    "arguments", [("health", "nope"), ("health", "nope", "-m", "load"), ("top", "load", "--cluster", "nope", "--once")]
)
async def test_a_cluster_that_is_not_there_is_no_success(server, arguments):
    assert (await ccms(server, *arguments)).code == 1


async def test_a_benchmark_asks_first_and_leaves_nothing(server):
    ran = await ccms(server, "bench", "--seconds", "0.2", "--hosts", "1")
    assert (ran.code, "--yes" in ran.errors) == (2, True)
    ran = await ccms(server, "bench", "--seconds", "0.2", "--hosts", "1", "--yes")
    assert ran.code == 0, ran
    ran = await ccms(server, "bench", "--seconds", "0.2", "--hosts", "1", "--yes")  # again: nothing stands in the way
    assert ran.code == 0, ran
    assert "samples/s" in ran.out
    assert [extent async for extent in server.grpc.dump(["ccms-bench"])] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (query_of("load"), "--all-hosts"),
        (query_of("load", "-H", "n[3-1]"), "ends before it begins"),
        (("query", "alpha", "load", "-H", "n1", "--from", "yesterday"), "is no time"),
        (("free", "a/b/c/d/e", "--before", "now", "--yes"), "is no level"),
        (("export", "alpha", "samples.xyz"), "does not tell a format"),
        (("import", "missing.parquet"), "No such file"),
        (("--server", "nowhere", "ls"), "host:port"),
        (("--token", "a", "--token-file", "b", "ls"), "leave one of them out"),
    ],
)
async def test_mistakes_end_with_a_clear_line(server, arguments, message):
    ran = await ccms(server, *arguments)
    assert ran.code == 2, ran
    assert message in re.sub(r"[│\s]+", " ", ran.errors)
    assert "Traceback" not in ran.errors


async def test_a_server_that_is_not_there_is_told_at_once():
    ran = await ccms("127.0.0.1:1", "--timeout", "5", "ls")
    assert ran.code == 3
    assert ran.errors.startswith("ccms: 127.0.0.1:1 ")
    assert ran.errors.count("\n") == 1


async def test_tokens(tmp_path):
    issuer = Issuer()
    async with server_inside(
        metrics=METRICS, token=issuer.lasting(), **{"jwt-public-key": issuer.public_key}
    ) as server:
        ran = await ccms(server, "ls")
        assert (ran.code, "--token" in ran.errors) == (4, True)
        assert (await ccms(server, "ls", CCMS_TOKEN=issuer.lasting())).code == 0
        path = tmp_path / "token"
        path.write_text(issuer.lasting(roles=["ROLE_USER"]) + "\n")
        assert (await ccms(server, "--token-file", str(path), "ls")).code == 0
        ran = await ccms(server, "--token-file", str(path), "dump")
        assert (ran.code, "PERMISSION_DENIED" in ran.errors) == (4, True)


async def test_who_reads_no_further_is_no_error(server):
    process = await started(server, *query_of("load", "flops", "--all-hosts", "--format", "csv"))
    await process.stdout.readline()
    process.stdout._transport.close()
    assert b"Traceback" not in await process.stderr.read()
    await process.wait()


async def test_commands_are_completed(server):
    ran = await ccms(server, _CCMS_COMPLETE="complete_bash", COMP_WORDS="ccms che", COMP_CWORD="1")
    assert ran.out.split() == ["checkpoint"]


async def test_a_server_that_comes_back_gets_the_rest_of_a_file(tmp_path):
    options = {"metrics": METRICS, "checkpoints": {"directory": str(tmp_path / "store")}}
    async with served(tmp_path, **options) as server:
        process = await started(server, "write")
        process.stdin.write(LINES.encode())
        await process.stdin.drain()
        await eventually(lambda: _stored(server), "the first lines are stored")
        process.stdin.write(b"load,cluster=alpha,hostname=late value=1 %d\n" % START)
        process.stdin.close()
        out = await process.stdout.read()
        assert await process.wait() == 0
    assert out.startswith(b"stored 241")


async def _stored(server):
    return (await server.grpc.status()).ingest.stored >= 240
