"""What a server takes over from its file when it reads it again, and what it says of the rest."""

import json
import os
from dataclasses import fields

import pytest
from helpers.server import config_text

from ccms_server.config import Config, parse_config
from ccms_server.errors import ConfigError, NotReadyError
from ccms_server.listen import Endpoint
from ccms_server.reload import _WAITING, Reloader, changed_metrics, waiting_parts
from ccms_server.store.metric import Aggregation, Metric

KEY = "kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0="
LOAD = {"load": {"frequency": 60}}


class Taken:
    """Stands in for the service, the guard and the certificates: what each was told."""

    def __init__(self):
        self.metrics, self.keys, self.loads = [], [], 0
        self.error = None

    async def configure(self, metrics):
        if self.error is not None:
            raise self.error
        self.metrics.append(list(metrics))

    def reconfigure(self, public_key, auth):
        self.keys.append((public_key, auth.enforce_roles))

    def reload(self):
        self.loads += 1


@pytest.fixture
def taken():
    return Taken()


@pytest.fixture
def reloader(tmp_path, taken, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "config.json"
    path.write_text(config_text(metrics=LOAD))
    return Reloader(path, parse_config(path.read_text()), taken, taken, taken, [Endpoint("10.0.0.1", 8082)])


async def test_new_metrics_and_rules_are_served_once(reloader, taken, caplog):
    text = config_text(metrics={"power": {"frequency": 10}, "load": {"frequency": 60, "aggregation": "sum"}})
    reloader._path.write_text(text)
    await reloader.reload()
    assert taken.metrics == [[Metric("power", 10), Metric("load", 60, Aggregation.SUM)]]
    assert "power, load" in caplog.text
    await reloader.reload()
    assert taken.metrics[1:] == [[]]


async def test_a_unit_is_taken_over(reloader, taken, caplog):
    reloader._path.write_text(config_text(metrics={"load": {"frequency": 60, "unit": "1"}}))
    await reloader.reload()
    assert taken.metrics == [[Metric("load", 60, unit="1")]]
    assert "new or changed: load" in caplog.text


async def test_keys_roles_and_certificates_are_taken_over(reloader, taken):
    text = config_text(metrics=LOAD, **{"jwt-public-key": KEY, "auth": {"enforce-roles": False}})
    reloader._path.write_text(text)
    await reloader.reload()
    assert taken.keys == [(KEY, False)]
    assert taken.loads == 1


async def test_who_can_reach_the_server_is_told_again(reloader, caplog):
    reloader._path.write_text(config_text(metrics=LOAD | {"power": {"frequency": 10}}))
    await reloader.reload()
    assert "ANYONE who can reach 10.0.0.1:8082" in caplog.text


async def test_without_a_restart_no_file_opens_the_server_to_everybody(reloader, taken, caplog):
    reloader._path.write_text(config_text(metrics=LOAD, **{"jwt-public-key": KEY}))
    await reloader.reload()
    reloader._path.write_text(config_text(metrics=LOAD))
    await reloader.reload()
    assert [key for key, _ in taken.keys] == [KEY, KEY]
    assert "at the next start: jwt-public-key (removed)" in caplog.text
    assert "ANYONE" not in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            config_text(metrics={"load": {"frequency": 30}, "power": {"frequency": 10}}),
            "metrics.load.frequency: 30 is 60",
        ),
        (config_text(metrics={"load": {"frequency": 0}}), "must be from 1"),
        ("{", "is not JSON"),
    ],
)
async def test_a_file_that_cannot_be_taken_over_changes_nothing(reloader, taken, caplog, text, reason):
    reloader._path.write_text(text)
    await reloader.reload()
    assert (taken.metrics, taken.keys) == ([], [])
    assert reason in caplog.text
    assert "nothing of it was changed" in caplog.text


async def test_a_file_that_is_gone_changes_nothing(reloader, taken, caplog):
    reloader._path.unlink()
    await reloader.reload()
    assert (taken.metrics, taken.keys) == ([], [])
    assert "is no file" in caplog.text


async def test_a_pipe_is_not_waited_for(reloader, taken, caplog):
    reloader._path.unlink()
    os.mkfifo(reloader._path)
    await reloader.reload()
    assert "is no file" in caplog.text
    reloader._path.unlink()
    reloader._path.write_text(config_text(metrics=LOAD | {"power": {"frequency": 10}}))
    await reloader.reload()
    assert taken.metrics == [[Metric("power", 10)]]


async def test_a_server_that_is_stopping_takes_nothing_over(reloader, taken, caplog):
    taken.error = NotReadyError("stopping")
    await reloader.reload()
    assert taken.keys == []
    assert "stopping" in caplog.text


async def test_what_waits_for_the_next_start_is_named(reloader, caplog):
    text = config_text(metrics={"power": {"frequency": 10}}, **{"retention-in-memory": "1h"})
    reloader._path.write_text(text)
    await reloader.reload()
    assert "at the next start: metrics.load (removed), retention-in-memory" in caplog.text
    caplog.clear()
    await reloader.reload()  # it is still not in effect
    assert "retention-in-memory" in caplog.text


async def test_a_metric_keeps_its_interval_also_after_it_was_removed_from_the_file(reloader, taken, caplog):
    for metrics in ({"power": {"frequency": 10}}, {"load": {"frequency": 30}}):
        reloader._path.write_text(config_text(metrics=metrics))
        await reloader.reload()
    assert taken.metrics == [[Metric("power", 10)]]
    assert "metrics.load.frequency: 30 is 60" in caplog.text


def test_equal_metrics_are_no_change():
    assert changed_metrics([Metric("a", 1), Metric("b", 2)], [Metric("b", 2), Metric("a", 1)]) == []


def test_another_interval_is_refused():
    with pytest.raises(ConfigError, match=r"metrics\.a\.frequency: 5 is 1 "):
        changed_metrics([Metric("a", 1)], [Metric("b", 2), Metric("a", 5)])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("grpc-api", {"address": "127.0.0.1:1"}),
        ("nats", [{"address": "localhost", "subscriptions": [{"subscribe-to": "x"}]}]),
        ("retention-in-memory", "5h"),
        ("memory-cap", 7),
        ("user", "nobody"),
        ("group", "nogroup"),
        ("backend-url", "http://localhost:8080"),
        ("backend-token-file", "token"),
        ("num-workers", 3),
        ("checkpoints", {"directory": "x"}),
        ("archive", {"delete-instead": True}),
        ("debug", {"gops": True}),
        ("limits", {"series": 5}),
    ],
)
def test_every_other_key_waits(key, value):
    before = json.loads(config_text(metrics=LOAD, user="root", **{"backend-url": "http://localhost:1"}))
    assert waiting_parts(parse_config(json.dumps(before)), parse_config(json.dumps(before | {key: value}))) == [key]


def test_every_part_of_the_configuration_waits_or_is_taken_over():
    taken_over, one_by_one = {"layout", "metrics", "jwt_public_key", "auth"}, {"http_api"}
    assert set(_WAITING) == {field.name for field in fields(Config)} - taken_over - one_by_one


@pytest.mark.parametrize(("key", "value"), [("address", "127.0.0.1:1"), ("compression", True)])
def test_a_key_of_the_rest_api_waits(key, value):
    before = json.loads(config_text(metrics=LOAD))
    after = before | {"http-api": before["http-api"] | {key: value}}
    assert waiting_parts(parse_config(json.dumps(before)), parse_config(json.dumps(after))) == [f"http-api.{key}"]


def test_keys_are_named_as_in_the_files_own_layout():
    content = {
        "main": {"addr": "127.0.0.1:0"},
        "metrics": LOAD,
        "metric-store": {"retention-in-memory": "1h", "memory-cap": 1},
    }
    before = parse_config(json.dumps(content))
    content["metric-store"] = {"retention-in-memory": "2h", "memory-cap": 2, "checkpoints": {"directory": "x"}}
    content["main"]["compression"] = True
    named = waiting_parts(before, parse_config(json.dumps(content)))
    assert named == [
        "main.compression",
        "metric-store.retention-in-memory",
        "metric-store.memory-cap",
        "metric-store.checkpoints",
        "metric-store.cleanup",
    ]
