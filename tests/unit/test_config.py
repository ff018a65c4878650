"""The configuration file: what it may say, and what is said of one that breaks a rule."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ccms_server.config import (
    FILE_BYTES_MAX,
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
    split_address,
)
from ccms_server.errors import ConfigError
from ccms_server.store.metric import Aggregation, Metric

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "data" / "config"
PUBLIC_KEY = "kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0="

MINIMAL = Config(
    metrics=(Metric("cpu_load", 60),), http_api=HttpApiConfig(address="localhost:8082"), retention_in_memory=172_800
)


def minimal_json(**changes):
    content = json.loads((CORPUS / "minimal.good.json").read_text())
    return json.dumps(content | {key.replace("_", "-"): value for key, value in changes.items()})


def names(pattern):
    found = sorted(path.name for path in CORPUS.glob(pattern))
    assert found
    return found


@pytest.mark.parametrize("name", names("*.good.json"))
def test_good_files_load(name):
    assert load_config(CORPUS / name).metrics


@pytest.mark.parametrize("name", names("*.bad.json"))
def test_bad_files_are_refused_by_key_value_and_rule(name):
    expected = (CORPUS / name).with_suffix(".txt").read_text().rstrip("\n")
    with pytest.raises(ConfigError) as caught:
        load_config(CORPUS / name)
    assert str(caught.value) == f"{CORPUS / name}: {expected}"
    assert "\n" not in expected
    assert "swordfish" not in expected


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.json")), ids=lambda path: path.name)
def test_shipped_files_load_and_ask_for_nothing_that_is_missing(path):
    config = load_config(path)
    assert inactive_features(config) == []
    assert config.http_api.address == "localhost:8082"
    assert config.grpc_api.address == "localhost:8083"
    assert config.retention_in_memory == (0 if path.stem == "config-forever" else 48 * 3600)


def test_shipped_files_of_both_layouts_say_the_same():
    of_2024, of_1_5 = (load_config(ROOT / "configs" / name) for name in ("config.json", "config-1.5.json"))
    assert (of_2024.layout, of_1_5.layout) == (Layout.OF_2024, Layout.OF_1_5)
    checkpoints = replace(of_2024.checkpoints, interval=12 * 3600)
    cleanup = ArchiveConfig(interval=48 * 3600, delete_instead=True)
    assert of_1_5 == replace(of_2024, layout=Layout.OF_1_5, checkpoints=checkpoints, archive=cleanup)


def test_shipped_files_differ_only_in_nats():
    plain, nats = (json.loads((ROOT / "configs" / name).read_text()) for name in ("config.json", "config-nats.json"))
    assert plain | {"nats": nats["nats"]} == nats
    assert [subscription["subscribe-to"] for subscription in nats["nats"][0]["subscriptions"]] == ["updates"]


@pytest.mark.parametrize("name", ["minimal.good.json", "nulls.good.json"])
def test_absent_and_null_keys_have_defaults(name):
    config = load_config(CORPUS / name)
    archive = ArchiveConfig() if name == "nulls.good.json" else None
    assert config == Config(
        metrics=MINIMAL.metrics,
        http_api=HttpApiConfig(address="localhost:8082"),
        grpc_api=GrpcApiConfig(address="localhost:8083"),
        nats=(),
        retention_in_memory=172_800,
        jwt_public_key="",
        checkpoints=None,
        archive=archive,
        debug=DebugConfig(),
        limits=LimitsConfig(),
    )


def test_every_key_of_the_predecessor_is_read():
    assert load_config(CORPUS / "predecessor-2024.good.json") == Config(
        metrics=(
            Metric("debug_metric", 60, Aggregation.AVG),
            Metric("clock", 60, Aggregation.AVG),
            Metric("cpu_load", 60, None),
            Metric("flops_any", 30, Aggregation.SUM),
        ),
        http_api=HttpApiConfig(address="0.0.0.0:8082", https_cert_file="cert.pem", https_key_file="key.pem"),
        nats=(
            NatsConfig(
                address="nats://one:4222, two",
                username="store",
                password="swordfish",
                creds_file_path="./nats.creds",
                subscriptions=(
                    NatsSubscription(subscribe_to="hpc-nats", cluster_tag="fritz"),
                    NatsSubscription(subscribe_to="cc.*.metrics.>"),
                ),
            ),
            NatsConfig(
                address="tls://store:secret@[::1]:4222/", subscriptions=(NatsSubscription(subscribe_to="updates"),)
            ),
        ),
        retention_in_memory=5400,
        jwt_public_key=PUBLIC_KEY,
        checkpoints=CheckpointsConfig(interval=3600, directory="./var/checkpoints", restore=3600),
        archive=ArchiveConfig(interval=7200, directory="./var/archive", delete_instead=True),
        debug=DebugConfig(dump_to_file="./var/dump.json", gops=True),
    )


def test_every_key_of_our_own_is_read():
    assert load_config(CORPUS / "everything-new.good.json") == Config(
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
        retention_in_memory=0,
        memory_cap_bytes=8_000_000_000,
        jwt_public_key=PUBLIC_KEY,
        auth=AuthConfig(
            enforce_roles=False,
            basic=(
                BasicUser(username="collector", password="swordfish"),
                BasicUser(username="relay", password="a:b c"),
            ),
        ),
        user="ccms",
        group="hpc",
        backend_url="https://backend.example:8080/cc/",
        backend_token_file="./token",
        num_workers=4,
        checkpoints=CheckpointsConfig(
            directory="./var", file_format=CheckpointFormat.JSON, interval=3600, wal_bytes_per_host=1 << 20
        ),
        archive=ArchiveConfig(interval=172_800, directory="./archive", file_format=ArchiveFormat.ZIP),
        limits=LimitsConfig(
            series=1000,
            request_bytes=1_048_576,
            queue_bytes=1_048_576,
            line_bytes=1024,
            query_points=100_000,
            query_series=100,
            future_seconds=5400,
            open_window_bytes=1_073_741_824,
        ),
    )


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("-48h", 0), ("1ms", 1), ("90s", 90)])
def test_retention_of_zero_or_less_is_for_ever(text, seconds):
    assert parse_config(minimal_json(retention_in_memory=text)).retention_in_memory == seconds


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (0.0, 0),
        (None, 0),
        (8, 8_000_000_000),
        (0.5, 500_000_000),
        (0.1, 100_000_000),
        (1e-12, 1),
        (1_125_899, 1_125_899 * 10**9),
    ],
)
def test_memory_cap_is_in_gigabytes(value, size):
    assert parse_config(minimal_json(memory_cap=value)).memory_cap_bytes == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0.0),
        ("always", 0.0),
        ("off", None),
        ("1s", 1.0),
        ("100ms", 0.1),
        ("1.5s", 1.5),
        ("1s250ms", 1.25),
        ("+250us", 0.00025),
        ("1h", 3600.0),
    ],
)
def test_syncs_are_immediate_regular_or_left_to_the_system(text, seconds):
    config = parse_config(minimal_json(checkpoints={"directory": "./var", "sync": text}))
    assert config.checkpoints == CheckpointsConfig(directory="./var", sync_seconds=seconds)


def test_every_key_of_the_checkpoints_is_read():
    checkpoints = {"directory": "./var", "sync": "1s", "wal-bytes": 1 << 20, "retention": "720h"}
    assert parse_config(minimal_json(checkpoints=checkpoints)).checkpoints == CheckpointsConfig(
        directory="./var", sync_seconds=1.0, wal_bytes=1 << 20, retention=2_592_000
    )


SYNC_RULE = "must be `always`, `off`, or a duration above 0 such as `1s` or `100ms`"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_cap": -1}, "memory-cap: -1 must be from 0 to 1,125,899"),
        ({"memory_cap": 2_000_000}, "memory-cap: 2000000 must be from 0 to 1,125,899"),
        ({"memory_cap": "8"}, "memory-cap: '8' must be a number"),
        ({"memory_cap": True}, "memory-cap: True must be a number"),
        *(
            ({"checkpoints": {"directory": "var", "sync": value}}, f"checkpoints.sync: {value!r} {SYNC_RULE}")
            for value in ("", "never", "Always", "0", "0s", "-1s", "1", "1 s", 1, True)
        ),
        (
            {"checkpoints": {"directory": "var", "wal-bytes": (1 << 20) - 1}},
            "checkpoints.wal-bytes: 1048575 must be from 1,048,576 to 1,125,899,906,842,624",
        ),
        (
            {"checkpoints": {"directory": "var", "retention": "30d"}},
            "checkpoints.retention: '30d' must be a duration such as `48h`, `1h30m`, `1.5h`, `500ms` or `0`",
        ),
        (
            {"checkpoints": {"directory": "var", "retention": "47h59m"}},
            "checkpoints.retention: '47h59m' must be at least `retention-in-memory`, '48h'",
        ),
        (
            {"checkpoints": {"directory": "var", "retention": "9999h"}, "retention_in_memory": "0"},
            "checkpoints.retention: '9999h' must be at least `retention-in-memory`, which is for ever",
        ),
        ({"checkpoints": {"retention": "72h"}}, "checkpoints.directory: is required with `retention`"),
    ],
)
def test_values_out_of_bounds_are_refused(changes, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(minimal_json(**changes))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("in_memory", "directory", "retention", "archive_interval", "hours"),
    [
        ("48h", None, None, None, 48),
        ("48h", None, None, "96h", 48),
        ("48h", "./var", None, None, 48),
        ("48h", "./var", None, "24h", 48),
        ("48h", "./var", None, "96h", 96),
        ("48h", "./var", "0", "96h", 0),
        ("48h", "./var", "48h", None, 48),
        ("48h", "./var", "72h", "96h", 72),
        ("0", None, None, None, 0),
        ("0", "./var", None, "96h", 0),
    ],
)
def test_retention_is_the_longest_there_is_unless_it_is_set(in_memory, directory, retention, archive_interval, hours):
    checkpoints = {"directory": directory, "retention": retention}
    archive = {"interval": archive_interval, "delete-instead": True}
    config = parse_config(minimal_json(retention_in_memory=in_memory, checkpoints=checkpoints, archive=archive))
    assert config.retention_seconds == hours * 3600


def test_retention_without_any_sections_is_that_in_memory():
    assert MINIMAL.retention_seconds == 172_800


def test_empty_aggregation_is_none():
    metrics = {"cpu_load": {"frequency": 60, "aggregation": ""}}
    assert parse_config(minimal_json(metrics=metrics)) == MINIMAL


def test_nats_servers_have_a_scheme_each():
    config = load_config(CORPUS / "predecessor-2024.good.json")
    assert [nats.servers for nats in config.nats] == [
        ["nats://one:4222", "nats://two"],
        ["tls://store:secret@[::1]:4222/"],
    ]


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "localhost:65535",
        "nats://user:pa%2Fss@a-b.c_d.example.",
        "tls://10.0.0.1, [::1]:1",
        "ws://a,wss://b:1/",
    ],
)
def test_nats_addresses_that_are_good(address):
    subscriptions = [{"subscribe-to": "updates"}]
    [nats] = parse_config(minimal_json(nats=[{"address": address, "subscriptions": subscriptions}])).nats
    assert nats.address == address


@pytest.mark.parametrize("name", names("*.good.json"))
def test_representation_holds_no_password(name):
    representation = repr(load_config(CORPUS / name))
    assert "swordfish" not in representation
    assert "secret" not in representation


@pytest.mark.parametrize(
    "url", ["http://a", "https://a-b.example:443/cc/", "http://[::1]:8080", "http://u:p@10.0.0.1", "HTTPS://a"]
)
def test_urls_that_are_good(url):
    assert parse_config(minimal_json(backend_url=url)).backend_url == url


@pytest.mark.parametrize(
    "url", ["http://", "http:///a", "http://a:0", "http://a:65536", "http://[::1", "http://a b", "http://a\n", "a"]
)
def test_anything_else_is_no_url(url):
    with pytest.raises(ConfigError, match=r"^backend-url: .* must be a URL: "):
        parse_config(minimal_json(backend_url=url))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.json: cannot be read: No such file or directory$"):
        load_config(tmp_path / "nowhere.json")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        load_config(tmp_path)


@pytest.mark.parametrize("size", [FILE_BYTES_MAX, FILE_BYTES_MAX + 1])
def test_a_file_that_is_too_large_is_refused(tmp_path, size):
    path = tmp_path / "config.json"
    path.write_text(minimal_json().ljust(size))
    if size <= FILE_BYTES_MAX:
        assert load_config(path) == MINIMAL
    else:
        with pytest.raises(ConfigError, match=r"is larger than 4,194,304 bytes$"):
            load_config(path)


def test_a_file_with_a_byte_order_mark_loads(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(minimal_json(), encoding="utf-8-sig")
    assert load_config(path) == MINIMAL


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b'{"m\xe4trics": {}}')
    with pytest.raises(ConfigError, match=r"config\.json: is not UTF-8 text at byte 3$"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "rule"),
    [("[" * 200_000, "is nested too deeply"), (f'{{"a": {"9" * 5000}}}', "holds a number of thousands of digits")],
)
def test_hostile_json_is_refused(text, rule):
    with pytest.raises(ConfigError, match=f"^file: {rule}$"):
        parse_config(text)


def test_errors_carry_key_value_and_rule():
    with pytest.raises(ConfigError) as caught:
        parse_config(minimal_json(metrics={"cpu_load": {"frequency": "60"}}))
    error = caught.value
    assert (error.key, error.value, error.rule) == ("metrics.cpu_load.frequency", "60", "must be a whole number")


@pytest.mark.parametrize(
    ("changes", "beginning"),
    [
        ({"auth": {"enforce-roles": False}}, "`auth` is set"),
        ({"auth": {"basic": [{"username": "collector", "password": "swordfish"}]}}, "`auth` is set"),
        ({"backend_token_file": "token"}, "`backend-token-file` is set"),
        ({"backend_url": "http://localhost:8080", "retention_in_memory": "0"}, "`backend-url` is set"),
        ({"archive": {"interval": "1h", "delete-instead": True}}, "`archive` is set"),
        ({"archive": {"directory": "./archive"}, "checkpoints": {"directory": "./var"}}, "`archive.directory` is set"),
        ({"memory-cap": 0.1}, "`memory-cap` is below half a gigabyte"),
        ({"debug": {"gops": True}}, "`debug.gops` is set"),
    ],
)
def test_what_is_asked_for_and_missing_is_said(changes, beginning):
    [sentence] = inactive_features(parse_config(minimal_json(**changes)))
    assert sentence.startswith(f"{beginning}, but ")


@pytest.mark.parametrize(
    "changes",
    [
        {"jwt_public_key": PUBLIC_KEY, "auth": {"enforce-roles": False}},
        {"http_api": {"address": "localhost:1", "https-cert-file": "c", "https-key-file": "k"}},
        {"debug": {"dump-to-file": "dump.json"}},
        {"backend_url": "http://localhost:8080", "backend_token_file": "token"},
        {"user": "nobody", "group": "nogroup", "num_workers": 4},
    ],
)
def test_what_is_asked_for_and_there_is_not_talked_about(changes):
    assert inactive_features(parse_config(minimal_json(**changes))) == []


@pytest.mark.parametrize("archive", [None, {"interval": "72h", "directory": "./archive"}])
def test_samples_on_disk_and_their_archive_lack_nothing(archive):
    checkpoints = {"directory": "./var", "interval": "12h", "restore": "48h"}
    assert inactive_features(parse_config(minimal_json(checkpoints=checkpoints, archive=archive))) == []


@pytest.mark.parametrize("changes", [{"checkpoints": {}}, {"archive": {}}, {"debug": {}}, {"nats": []}, {"limits": {}}])
def test_empty_sections_ask_for_nothing(changes):
    assert inactive_features(parse_config(minimal_json(**changes))) == []


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("localhost:8082", "localhost", 8082),
        (":8082", "", 8082),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:65535", "::1", 65_535),
        ("[2001:DB8::1]:1", "2001:db8::1", 1),
        ("node-1.cluster_a.example:80", "node-1.cluster_a.example", 80),
    ],
)
def test_addresses_are_split(address, host, port):
    assert split_address(address) == (host, port)


@pytest.mark.parametrize(
    "address",
    ["", ":", "localhost", "localhost:", "localhost:-1", "localhost:1\n", "a b:1", "a/b:1", "[]:1", "[a]:1", "::1"],
)
def test_anything_else_is_no_address(address):
    with pytest.raises(ValueError, match=r"^must "):
        split_address(address)


def test_both_apis_may_ask_for_any_free_port():
    config = parse_config(minimal_json(http_api={"address": "localhost:0"}, grpc_api={"address": "localhost:0"}))
    assert config.http_api.address == config.grpc_api.address
