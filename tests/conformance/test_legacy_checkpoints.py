"""A directory that the predecessor left behind: a server with its configuration answers from it as it did."""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path

import pytest
from helpers.launch import launched, served
from helpers.legacy import LegacyStore, contents
from helpers.rest import rest_client

from ccms_server.app import run
from ccms_server.config import parse_config

VECTORS = sorted(path for path in Path(__file__).parent.joinpath("checkpoints").iterdir() if path.is_dir())
LIMITS = {"future": "1000000h"}  # whatever the clock of this machine says


class LeftBehind:
    """A copy of one of the directories, as an operator has it."""

    def __init__(self, vector, scratch):
        self.directory = scratch / "checkpoints"
        shutil.copytree(vector / "checkpoints", self.directory)
        self.config = json.loads((vector / "config.json").read_text())
        self.expected = json.loads((vector / "expected.json").read_text())
        self.files = contents(self.directory)
        self.statistics_tolerance = 0.011 if vector.name.startswith("v1.5") else 0.0011
        assert len(self.files) == 4

    @property
    def metrics(self):
        return self.config["metrics"]

    def config_text(self):
        """Its configuration, with the place and the ports it has here."""
        config = json.loads(json.dumps(self.config))
        section, address = (
            (config["metric-store"], (config["main"], "addr"))
            if "main" in config
            else (config, (config["http-api"], "address"))
        )
        section["checkpoints"]["directory"] = str(self.directory)
        address[0][address[1]] = "127.0.0.1:0"
        if "archive" in config:
            config["archive"]["directory"] = str(self.directory.parent / "archive")
        return json.dumps(config | {"grpc-api": {"address": "127.0.0.1:0"}, "limits": LIMITS})

    def options(self):
        """The same for a process of its own."""
        return {"metrics": self.metrics, "checkpoints": {"directory": str(self.directory)}, "limits": LIMITS}

    async def check(self, rest):
        """Asks what was asked then, and compares the answers."""
        answer = (await rest.query(self.expected["query"])).json
        expected = self.expected["response"]["results"]
        assert [len(series) for series in answer["results"]] == [len(series) for series in expected]
        for result, one in zip(chain(*answer["results"]), chain(*expected), strict=True):
            assert {key: result[key] for key in ("from", "to", "resolution")} == {
                key: one[key] for key in ("from", "to", "resolution")
            }
            assert [value is None for value in result["data"]] == [value is None for value in one["data"]]
            assert [value or 0 for value in result["data"]] == pytest.approx(
                [value or 0 for value in one["data"]], abs=0.0011, rel=0
            )
            for key in ("avg", "min", "max"):
                assert result[key] == pytest.approx(one[key], abs=self.statistics_tolerance, rel=0)


@pytest.fixture(params=VECTORS, ids=lambda vector: vector.name)
def left_behind(request, tmp_path):
    return LeftBehind(request.param, tmp_path)


@asynccontextmanager
async def server_on(left_behind):
    """A server in this process, with the configuration that was left behind; yields a client."""
    up, stop = asyncio.get_running_loop().create_future(), asyncio.Event()
    task = asyncio.create_task(run(parse_config(left_behind.config_text()), started=up.set_result, stop=stop))
    await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        async with rest_client(f"http://{up.result().endpoints.http[0].authority}") as rest:
            yield rest
    finally:
        stop.set()
        await asyncio.wait({task})
    await task


async def test_with_its_configuration_it_is_answered_as_it_was(left_behind):
    async with server_on(left_behind) as rest:
        await left_behind.check(rest)
    assert contents(left_behind.directory) == left_behind.files


async def test_at_the_next_start_nothing_is_imported_again(left_behind, caplog):
    caplog.set_level("INFO")
    async with server_on(left_behind) as rest:
        await left_behind.check(rest)
    assert "imported 4 files of 2 hosts" in caplog.text
    caplog.clear()
    async with server_on(left_behind) as rest:
        await left_behind.check(rest)
    assert "import" not in caplog.text


async def test_after_kills_while_it_logs_samples_all_is_there(left_behind, tmp_path):
    """The process kills itself at one system call or another, until it comes to the end of the import."""
    n_killed = 0
    for after in range(0, 60, 2):  # a start that logs adds a segment, which is one more to be synced at the next
        async with killed_at(left_behind, tmp_path, "--kind", "commit", "--after", str(after)) as server:
            if await server.until_logged("serving REST"):
                break
            n_killed += "importing 4 files" in server.text
        assert contents(left_behind.directory) == left_behind.files
    else:
        pytest.fail("it never comes to the end")
    assert n_killed
    async with served(tmp_path, **left_behind.options()) as server:
        await left_behind.check(server.rest)
    assert contents(left_behind.directory) == left_behind.files


@pytest.mark.parametrize("after", ["0", "1"], ids=["it is synced", "it is renamed"])
async def test_after_a_kill_while_it_writes_the_ledger_all_is_there(left_behind, tmp_path, after):
    being_written = left_behind.directory / "cc-metric-store" / "imported.tmp"
    crash = ("--kind", "file", "--after", after, "--armed", str(being_written))
    async with killed_at(left_behind, tmp_path, *crash) as server:
        assert await server.until_logged("importing 4 files")
        assert await server.until_logged("serving REST") is None
    async with served(tmp_path, **left_behind.options()) as server:
        await left_behind.check(server.rest)
    assert contents(left_behind.directory) == left_behind.files


def killed_at(left_behind, scratch, *crash):
    return launched(scratch, module=("helpers.crash_points", *crash), **left_behind.options())


def test_being_imported_twice_it_has_the_same_samples(left_behind):
    options = {"metrics": left_behind.metrics, "now": 1_800_000_000}
    store = LegacyStore(left_behind.directory, **options)
    before = store.bits()
    n_samples = store.imported
    store.close()
    (left_behind.directory / "cc-metric-store" / "imported").unlink()
    store = LegacyStore(left_behind.directory, **options)
    assert store.imported == n_samples > 100
    assert store.bits() == before
    store.close()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damage_to_a_file_ends_nothing_and_costs_nothing_else(left_behind, tmp_path, damage):
    options = {"metrics": left_behind.metrics, "now": 1_800_000_000}
    store = LegacyStore(left_behind.directory, **options)
    whole = store.held()
    store.close()
    untouched = {key: samples for key, samples in whole.items() if key[1][1] != "n01"}
    assert untouched
    for key in [key for key in left_behind.files if key.startswith("alpha/n01/")]:
        content = left_behind.files[key]
        for at in range(1, len(content), 41):
            scratch = tmp_path / key.replace("/", "-") / str(at)
            shutil.copytree(left_behind.directory, scratch, ignore=shutil.ignore_patterns("cc-metric-store"))
            damaged = (
                content[:at] if damage == "cut" else content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
            )
            (scratch / key).write_bytes(damaged)
            store = LegacyStore(scratch, **options)
            held = store.held()
            assert {key: samples for key, samples in held.items() if key[1][1] != "n01"} == untouched
            if damage == "cut":
                for series, samples in held.items():
                    if left_behind.metrics[series[0]]["frequency"] == 1:  # the first file says what grid others are on
                        assert samples.items() <= whole[series].items()
            store.close()
            shutil.rmtree(scratch)
