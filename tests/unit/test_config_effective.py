"""The effective configuration: what the file could say instead, secrets aside."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ccms_server.config import Layout, effective_settings, load_config, parse_config
from ccms_server.config.address import MASK, masked
from ccms_server.config.keys import _OF_2024_AND_1_5

CORPUS = Path(__file__).parents[1] / "data" / "config"
GOOD = sorted(path.name for path in CORPUS.glob("*.good.json"))


def without_secrets(config):
    """A configuration as it is when masks are taken at their word."""
    users = tuple(replace(user, password=MASK) for user in config.auth.basic)
    servers = [
        replace(
            nats,
            address=",".join(masked(server) for server in nats.address.split(",")),
            password=MASK if nats.password else "",
        )
        for nats in config.nats
    ]
    return replace(config, auth=replace(config.auth, basic=users), nats=tuple(servers))


@pytest.mark.parametrize("name", GOOD)
def test_it_says_the_same_in_the_same_layout(name):
    config = load_config(CORPUS / name)
    again = parse_config(json.dumps(effective_settings(config)))
    if config.checkpoints and config.checkpoints.directory:
        assert again.checkpoints.retention == config.retention_seconds
        config = replace(config, checkpoints=replace(config.checkpoints, retention=config.retention_seconds))
    assert again == without_secrets(config)


@pytest.mark.parametrize("name", GOOD)
def test_it_holds_no_secret(name):
    text = json.dumps(effective_settings(load_config(CORPUS / name)))
    assert "swordfish" not in text
    assert "secret" not in text


def paths(value, path=""):
    """The keys of settings, as paths."""
    if isinstance(value, dict):
        return {found for key, inner in value.items() for found in paths(inner, f"{path}.{key}" if path else key)}
    if isinstance(value, list):
        return {found for inner in value for found in paths(inner, f"{path}[]")}
    return {path}


@pytest.mark.parametrize(
    ("name", "layout"),
    [("everything-new.good.json", Layout.OF_2024), ("layout-1.5-everything-new.good.json", Layout.OF_1_5)],
)
def test_it_names_every_key(name, layout):
    is_later = layout is Layout.OF_1_5
    keys = {pair[is_later] for pair in _OF_2024_AND_1_5} - {None}
    settings = effective_settings(load_config(CORPUS / name))
    shown = {re.sub(r"^metrics\.\w+", "metrics.{name}", path) for path in paths(settings)}
    assert shown == {key for key in keys if not key.startswith("metric-store.debug")}  # `main.debug` says it all


@pytest.mark.parametrize(
    ("sync", "shown"), [("always", "always"), ("off", "off"), ("1500ms", "1.5s"), ("10us", "0.00001s"), ("1m", "60s")]
)
def test_times_between_syncs_are_written_as_durations(sync, shown):
    text = (CORPUS / "minimal.good.json").read_text()
    content = json.loads(text) | {"checkpoints": {"directory": "./var", "sync": sync}}
    config = parse_config(json.dumps(content))
    settings = effective_settings(config)
    assert settings["checkpoints"]["sync"] == shown
    assert parse_config(json.dumps(settings)).checkpoints.sync_seconds == config.checkpoints.sync_seconds


@pytest.mark.parametrize("cap", [0, 8, 0.5, 0.1, 0.000000001, 123_456.789012345])
def test_the_memory_cap_is_in_gigabytes(cap):
    content = json.loads((CORPUS / "minimal.good.json").read_text()) | {"memory-cap": cap}
    assert effective_settings(parse_config(json.dumps(content)))["memory-cap"] == cap


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://a:4222", "nats://a:4222"),
        ("nats://me:secret@a:4222/", f"nats://{MASK}@a:4222/"),
        (" me:secret@a", f" {MASK}@a"),
        ("https://me:se@cr,et@a/cc@b", f"https://{MASK}@a/cc@b"),
        ("http://a/b@c", "http://a/b@c"),
    ],
)
def test_user_names_and_passwords_in_urls_are_masked(url, shown):
    assert masked(url) == shown
