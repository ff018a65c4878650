"""SIGHUP: the configuration is read again, and nothing that was stored or is being sent is lost by it."""

import asyncio
import json
import signal

from helpers.launch import launched
from helpers.waiting import eventually

NOW_METRICS = {"cpu_load": {"frequency": 60}}
ORIGIN = 1_700_000_000


def lines(metric, number):
    return f"{metric},cluster=alex,hostname=n{number % 7} value={number} {ORIGIN + 60 * (number // 7)}\n"


def rewrite(directory, change):
    path = directory / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


async def hang_up(server, directory, change):
    """Changes the file, and waits until the server has dealt with it; returns what it said."""
    said = len(server.log)
    rewrite(directory, change)
    server.process.send_signal(signal.SIGHUP)
    await eventually(lambda: any("configuration was read again" in line for line in server.log[said:]), "a word")
    return "".join(server.log[said:])


async def values(rest, metric, host="n1"):
    body = {"cluster": "alex", "from": ORIGIN - 60, "to": ORIGIN + 86_400, "with-padding": False}
    answer = await rest.query(body | {"queries": [{"metric": metric, "host": host}]})
    [[series]] = answer.json["results"]
    return [value for value in series["data"] if value is not None] if "data" in series else series["error"]


async def test_a_metric_is_added_under_load_and_everything_is_kept(tmp_path):
    directory = {"checkpoints": {"directory": str(tmp_path / "data"), "interval": "1s", "wal-bytes": 1 << 20}}

    def add(content):
        content["metrics"]["power"] = {"frequency": 10, "aggregation": "sum"}

    async with launched(tmp_path, metrics=NOW_METRICS, **directory) as server:
        async with server.clients() as clients:
            written, stop = [], asyncio.Event()

            async def load():
                number = 0
                while not stop.is_set():
                    body = "".join(lines(metric, number) for metric in ("cpu_load", "power"))
                    assert (await clients.rest.write(body)).status == 200
                    written.append(number)
                    number += 1

            loading = asyncio.create_task(load())
            await eventually(lambda: len(written) > 50, "some load")
            assert await values(clients.rest, "power") == "unknown metric: power"
            said = await hang_up(clients, tmp_path, add)
            assert "power" in said
            added_at = len(written)
            await eventually(lambda: len(written) > added_at + 100, "more load")
            stop.set()
            await loading
            before = await values(clients.rest, "cpu_load"), await values(clients.rest, "power")
            assert before[0] == [number for number in written if number % 7 == 1]
            assert [value for value in before[1] if value > added_at] == [
                number for number in written if number % 7 == 1 and number > added_at
            ]
        await server.kill()
    metrics = NOW_METRICS | {"power": {"frequency": 10}}
    async with launched(tmp_path, metrics=metrics, **directory) as server, server.clients() as clients:
        assert (await values(clients.rest, "cpu_load"), await values(clients.rest, "power")) == before


async def test_another_interval_is_refused_with_a_reason_and_nothing_changes(tmp_path):
    def change(content):
        content["metrics"] = {"cpu_load": {"frequency": 30}, "power": {"frequency": 60}}

    async with launched(tmp_path, metrics=NOW_METRICS) as server, server.clients() as clients:
        await clients.rest.write(lines("cpu_load", 1))
        said = await hang_up(clients, tmp_path, change)
        assert "metrics.cpu_load.frequency" in said
        assert await values(clients.rest, "power") == "unknown metric: power"
        assert await values(clients.rest, "cpu_load") == [1.0]


async def test_a_key_that_is_set_is_asked_for_from_then_on(tmp_path):
    def change(content):
        content["jwt-public-key"] = "kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0="

    async with launched(tmp_path, metrics=NOW_METRICS) as server, server.clients() as clients:
        assert (await clients.rest.write(lines("cpu_load", 1))).status == 200
        await hang_up(clients, tmp_path, change)
        assert (await clients.rest.write(lines("cpu_load", 1))).status == 401
