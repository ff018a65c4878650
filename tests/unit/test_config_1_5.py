"""The configuration file in the layout of release 1.5: what its keys become, and what is active there."""

import copy
import json
from pathlib import Path

import pytest

from ccms_server.config import (
    ArchiveConfig,
    ArchiveFormat,
    AuthConfig,
    BasicUser,
    CheckpointFormat,
    CheckpointsConfig,
    Config,
    DebugConfig,
    GrpcApiConfig,
    HttpApiConfig,
    Layout,
    LimitsConfig,
    NatsConfig,
    NatsSubscription,
    inactive_features,
    load_config,
    parse_config,
)
from ccms_server.store.metric import Aggregation, Metric

CORPUS = Path(__file__).parents[1] / "data" / "config"
PUBLIC_KEY = "kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0="
MINIMAL = json.loads((CORPUS / "layout-1.5-minimal.good.json").read_text())


def parsed(store=(), main=(), **top):
    """The smallest file of this layout, with changes."""
    content = copy.deepcopy(MINIMAL) | top
    content["metric-store"] |= {key.replace("_", "-"): value for key, value in dict(store).items()}
    content["main"] |= dict(main)
    return parse_config(json.dumps(content))


@pytest.mark.parametrize("name", ["layout-1.5-minimal.good.json", "layout-1.5-nulls.good.json"])
def test_absent_and_null_keys_have_the_defaults_of_that_release(name):
    assert load_config(CORPUS / name) == Config(
        layout=Layout.OF_1_5,
        metrics=(Metric("cpu_load", 60),),
        http_api=HttpApiConfig(address="localhost:8082"),
        retention_in_memory=172_800,
        memory_cap_bytes=100 * 10**9,
        checkpoints=CheckpointsConfig(interval=43_200, directory="./var/checkpoints"),
        archive=ArchiveConfig(interval=172_800, delete_instead=True),
    )


def test_every_key_of_that_release_is_read():
    assert load_config(CORPUS / "predecessor-1.5.good.json") == Config(
        layout=Layout.OF_1_5,
        metrics=(
            Metric("clock", 60, Aggregation.AVG),
            Metric("cpu_load", 60, None),
            Metric("flops_any", 30, Aggregation.SUM),
        ),
        http_api=HttpApiConfig(address="0.0.0.0:8082", https_cert_file="cert.pem", https_key_file="key.pem"),
        nats=(
            NatsConfig(
                address="nats://one:4222",
                username="store",
                password="swordfish",
                creds_file_path="./nats.creds",
                subscriptions=(
                    NatsSubscription(subscribe_to="hpc-nats", cluster_tag="fritz"),
                    NatsSubscription(subscribe_to="cc.*.metrics.>"),
                ),
            ),
        ),
        retention_in_memory=172_800,
        memory_cap_bytes=100 * 10**9,
        jwt_public_key=PUBLIC_KEY,
        user="ccms",
        group="hpc",
        backend_url="http://localhost:8080",
        num_workers=4,
        checkpoints=CheckpointsConfig(
            file_format=CheckpointFormat.JSON,
            interval=21_600,
            directory="./var/ccms",
            wal_bytes_per_host=1_073_741_824,
        ),
        archive=ArchiveConfig(interval=172_800, directory="./var/archive"),
        debug=DebugConfig(dump_to_file="./var/dump.json", gops=True),
    )


def test_every_key_of_our_own_is_read():
    assert load_config(CORPUS / "layout-1.5-everything-new.good.json") == Config(
        layout=Layout.OF_1_5,
        metrics=(Metric("cpu_load", 60, unit="1"),),
        http_api=HttpApiConfig(
            address=":0",
            https_cert_file="cert.pem",
            https_key_file="key.pem",
            client_ca_file="ca.pem",
            compression=True,
        ),
        grpc_api=GrpcApiConfig(address="[::1]:0"),
        nats=(
            NatsConfig(
                address="tls://one",
                tls_ca_file="ca.pem",
                tls_cert_file="cert.pem",
                tls_key_file="key.pem",
                subscriptions=(NatsSubscription(subscribe_to="updates"),),
            ),
        ),
        retention_in_memory=172_800,
        memory_cap_bytes=500_000_000,
        jwt_public_key=PUBLIC_KEY,
        auth=AuthConfig(enforce_roles=False, basic=(BasicUser(username="collector", password="swordfish"),)),
        backend_url="https://backend.example/cc",
        backend_token_file="./token",
        checkpoints=CheckpointsConfig(
            interval=43_200,
            directory="./var/checkpoints",
            sync_seconds=1.0,
            wal_bytes=2_097_152,
            retention=2_592_000,
        ),
        archive=ArchiveConfig(interval=172_800, directory="./var/archive", file_format=ArchiveFormat.ZIP),
        limits=LimitsConfig(series=1000, future_seconds=5400),
    )


@pytest.mark.parametrize(
    ("in_memory", "retention", "cleanup", "hours"),
    [
        ("48h", None, None, 48),
        ("48h", None, {"mode": "archive", "directory": "./archive"}, 48),
        ("48h", "720h", {"mode": "archive", "directory": "./archive"}, 720),
        ("48h", "0", None, 0),
        ("0", None, None, 0),
        ("-1s", None, None, 0),
    ],
)
def test_samples_are_retained_as_long_as_in_memory_unless_it_is_said(in_memory, retention, cleanup, hours):
    config = parsed({"retention_in_memory": in_memory, "checkpoints": {"retention": retention}, "cleanup": cleanup})
    assert config.retention_seconds == hours * 3600


@pytest.mark.parametrize(("main", "store"), [("dump.json", None), (None, "dump.json"), ("dump.json", "dump.json")])
def test_either_debug_section_counts(main, store):
    config = parsed(
        {"debug": {"dump-to-file": store, "gops": store is not None}},
        {"debug": {"dump-to-file": main, "gops": main is not None}},
    )
    assert config.debug == DebugConfig(dump_to_file="dump.json", gops=True)


def test_an_empty_directory_keeps_samples_in_memory():
    config = parsed({"checkpoints": {"directory": ""}})
    assert not config.is_durable
    assert config.retention_seconds == 172_800
    assert inactive_features(config) == []


NATS = {"address": "localhost"}
ARCHIVE = {"mode": "archive", "directory": "./archive"}


@pytest.mark.parametrize(
    ("store", "top", "sentence"),
    [
        ({}, {"nats": NATS}, "`nats` is set, but without `metric-store.nats-subscriptions` nothing is taken from it"),
        ({}, {"auth": {"enforce-roles": False}}, "`auth` is set, but without `main.jwt-public-key` "),
        (
            {"retention_in_memory": "0", "cleanup": ARCHIVE},
            {},
            "`metric-store.cleanup.mode` is `archive`, but samples are kept for ever",
        ),
        (
            {"checkpoints": {"directory": ""}, "cleanup": ARCHIVE},
            {},
            "`metric-store.cleanup` is set, but without `metric-store.checkpoints.directory` ",
        ),
        (
            {"cleanup": {"directory": "./archive"}},
            {},
            "`metric-store.cleanup.directory` is set, but nothing is archived",
        ),
        ({"memory_cap": 0.1}, {}, "`metric-store.memory-cap` is below half a gigabyte, but "),
        ({"debug": {"gops": True}}, {}, "`main.debug.gops` is set, but "),
    ],
)
def test_what_is_asked_for_in_vain_is_said_with_the_keys_of_this_layout(store, top, sentence):
    [said] = inactive_features(parsed(store, **top))
    assert said.startswith(sentence)


@pytest.mark.parametrize(
    ("store", "top"),
    [({}, {}), ({"cleanup": ARCHIVE}, {}), ({"nats_subscriptions": [{"subscribe-to": "a"}]}, {"nats": NATS})],
)
def test_what_is_there_is_not_talked_about(store, top):
    assert inactive_features(parsed(store, **top)) == []
