"""The steps of the README's page on migration, one after another, with the program as operators run it."""

import asyncio
import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from helpers.launch import launched
from helpers.legacy import contents
from helpers.waiting import DEADLINE_SECONDS

VECTORS = Path(__file__).parents[1] / "conformance" / "checkpoints"
PORTS = {"grpc-api": {"address": "127.0.0.1:0"}, "limits": {"future": "1000000h"}}


class Site:
    """A site that ran the predecessor: its configuration and its directory."""

    def __init__(self, vector, scratch):
        shutil.copytree(VECTORS / vector / "checkpoints", scratch / "checkpoints")
        self.checkpoints = scratch / "checkpoints"
        self.expected = json.loads((VECTORS / vector / "expected.json").read_text())
        self.config = json.loads((VECTORS / vector / "config.json").read_text()) | PORTS
        self.settings = self.config.get("metric-store", self.config)["checkpoints"]
        self.settings["directory"] = str(self.checkpoints)
        if "main" in self.config:
            self.config["main"]["addr"] = "127.0.0.1:0"
        else:
            self.config["http-api"]["address"] = "127.0.0.1:0"
            del self.config["archive"]
        self.path = scratch / "config.json"

    async def run(self, *flags):
        """Runs the program to its end; returns what it printed and logged."""
        self.path.write_text(json.dumps(self.config))
        command = [sys.executable, "-m", "ccms_server", "-config", str(self.path), *flags]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        async with asyncio.timeout(DEADLINE_SECONDS):
            printed, logged = (text.decode() for text in await process.communicate())
        assert process.returncode == 0, logged
        return printed, logged

    async def served(self):
        """Starts the server, asks what was asked when the predecessor was recorded, and stops it with SIGTERM.

        Returns:
            The answer, and what was logged.
        """
        async with launched(self.path.parent, text=json.dumps(self.config)) as server:
            async with server.clients() as clients:
                answer = (await clients.rest.query(self.expected["query"])).json
                assert await clients.terminate() == 0
            await server.end()
            return answer, server.text

    def recorded_samples(self):
        """What the predecessor answered for single series: by host, path below it and metric, the values by time."""
        samples = {}
        for query, series in zip(self.expected["query"]["queries"], self.expected["response"]["results"], strict=True):
            for position, one in enumerate(series):
                path = (query["type"] + query["type-ids"][position],) if len(series) == 3 else ()
                times = range(one["from"], one["to"], one["resolution"])
                values = dict(zip(times, one["data"], strict=True))
                key = (query["host"], path, query["metric"])
                samples[key] = {time: value for time, value in values.items() if value is not None}
        return {key: found for key, found in samples.items() if key[1] or key[2] == "load_one"}


def numbers(answer):
    """All numbers of an answer but the statistics, in order."""
    found = []
    for series in (one for result in answer["results"] for one in result):
        found += [series["from"], series["to"], *(-1 if value is None else value for value in series["data"])]
    return found


def as_the_predecessor_reads(directory):
    """Samples of all checkpoints, as its loader takes them: files in the order of their names, later ones win."""
    samples = defaultdict(dict)

    def read(host, path, level):
        for metric, found in level["metrics"].items():
            for slot, value in enumerate(found["data"]):
                if value is not None:
                    samples[host, path, metric][found["start"] + slot * found["frequency"]] = value
        for name, child in level["children"].items():
            read(host, (*path, name), child)

    hosts = [host for cluster in sorted(directory.iterdir()) for host in sorted(cluster.iterdir())]
    assert all(host.is_dir() for host in hosts)  # or it does not start
    for host in hosts:
        files = sorted(host.iterdir(), key=lambda path: int(path.stem))
        assert {path.suffix for path in files} == {".json"}
        before = 0
        for path in files:
            checkpoint = json.loads(path.read_text())
            assert before <= checkpoint["from"] <= checkpoint["to"]
            before = checkpoint["to"]
            read(host.name, (), checkpoint)
    return samples


@pytest.mark.parametrize("vector", ["v2024-json", "v1.5-json", "v1.5-wal"])
async def test_every_step_there_and_back(vector, tmp_path):
    site = Site(vector, tmp_path)
    left = contents(site.checkpoints)

    printed, _ = await site.run("-check-config")
    assert json.loads(printed)["metrics"].keys() == site.config["metrics"].keys()

    answer, log = await site.served()
    assert numbers(answer) == pytest.approx(numbers(site.expected["response"]), abs=0.0011, rel=0)
    assert "imported 4 files of 2 hosts" in log
    assert contents(site.checkpoints) == left

    _, log = await site.run("-cleanup-checkpoints")
    assert "4 files of 2 hosts" in log
    assert contents(site.checkpoints) == {}
    without_old_files, log = await site.served()  # which asks for JSON checkpoints itself in one case
    assert without_old_files == answer

    site.settings["file-format"] = "json"
    before_return, last_log = await site.served()
    assert before_return == answer
    assert "JSON checkpoints" in log + last_log
    (site.checkpoints / "cc-metric-store").rename(tmp_path / "checkpoints-of-cc-metric-store")
    written, recorded = as_the_predecessor_reads(site.checkpoints), site.recorded_samples()
    assert len(recorded) >= 5
    for key, samples in recorded.items():
        assert written[key] == pytest.approx(samples, abs=0.0011, rel=0)
