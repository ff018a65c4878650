"""The configuration file: the keys of the predecessor's 2024 release, and some of our own on top.

The file is parsed once, checked within and across keys, and read-only from then on. Each part of the server gets the
section it needs. A key that is `null` counts as absent. `ConfigError` names the key, its value and the rule it breaks.
"""

import base64
import ipaddress
import math
import re
from pathlib import Path
from typing import Final

from ccms_server.config.model import (
    ArchiveConfig,
    CheckpointsConfig,
    Config,
    DebugConfig,
    GrpcApiConfig,
    HttpApiConfig,
    LimitsConfig,
    NatsConfig,
    NatsSubscription,
    nats_servers,
)
from ccms_server.duration import parse_span
from ccms_server.errors import ConfigError
from ccms_server.json_section import Section, parse_json
from ccms_server.names import broken_name_rule
from ccms_server.store.metric import Aggregation, Metric

FILE_BYTES_MAX: Final = 4 << 20
"""Largest configuration file that is read; ten thousand metrics need a quarter of it."""
INTERVAL_SECONDS_MAX: Final = 86_400
MESSAGE_BYTES_MAX: Final = 2**31 - 1
"""gRPC counts the bytes of a message in 31 bits."""
ED25519_KEY_BYTES: Final = 32
PORT_MAX: Final = 65_535
COUNT_MAX: Final = 2**31 - 1
"""Largest limit on a number of things; series are numbered in 31 bits."""
MEMORY_CAP_SENSIBLE: Final = 500_000_000
"""Bytes; below it, windows are sealed and opened again all the time."""
MEMORY_BYTES_MAX: Final = 1 << 50
GIGABYTE: Final = 10**9
"""The predecessor's unit of `memory-cap`."""
WAL_BYTES_LEAST: Final = 1 << 20

_NATS_SERVER: Final = re.compile(
    r"(?P<scheme>nats|tls|wss?)://([^\s/?#@\[\]]+@)?"  # perhaps with `user:password@`
    r"(?P<host>[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?|\[[0-9a-fA-F:.]+\])(?P<port>:[1-9][0-9]{0,4})?/?"
)
_NATS_SUBJECT: Final = re.compile(r"(>|([^\s.*>]+|\*)(\.([^\s.*>]+|\*))*(\.>)?)")


def load_config(path: Path) -> Config:
    """Reads a configuration file.

    Raises:
        ConfigError: The file cannot be read, or breaks a rule; its path is part of the key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(str(path), None, f"cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(str(path), None, f"is larger than {FILE_BYTES_MAX:,} bytes")
    try:
        return parse_config(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), None, f"is not UTF-8 text at byte {error.start:,}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.key}", error.value, error.rule) from None


def parse_config(text: str) -> Config:
    """Parses the text of a configuration file.

    Raises:
        ConfigError: It breaks a rule.
    """
    content = parse_json(text)
    _refuse_later_layout(content)
    file = Section(
        "",
        content,
        known={
            *("metrics", "http-api", "grpc-api", "nats", "retention-in-memory", "memory-cap", "jwt-public-key"),
            *("checkpoints", "archive", "debug", "limits"),
        },
    )
    config = Config(
        metrics=_read_metrics(file),
        http_api=_read_http_api(file),
        grpc_api=_read_grpc_api(file),
        nats=_read_nats(file),
        retention_in_memory=max(0, file.seconds("retention-in-memory")),
        memory_cap_bytes=_read_memory_cap(file),
        jwt_public_key=_read_public_key(file),
        checkpoints=_read_checkpoints(file),
        archive=_read_archive(file),
        debug=_read_debug(file),
        limits=_read_limits(file),
    )
    if config.grpc_api.address == config.http_api.address and split_address(config.http_api.address)[1] != 0:
        raise ConfigError("grpc-api.address", config.grpc_api.address, "must differ from `http-api.address`")
    return config


def inactive_features(config: Config) -> list[str]:
    """What the configuration asks for and this release does not do: a sentence each, the gravest first."""
    checkpoints = config.checkpoints or CheckpointsConfig()
    archive = config.archive or ArchiveConfig()
    sentences: list[tuple[bool, str]] = [
        (
            config.jwt_public_key != "",
            "`jwt-public-key` is set, but this release checks no tokens: requests are NOT authenticated",
        ),
        (
            config.http_api.https_cert_file != "",
            "`http-api.https-cert-file` is set, but this release serves plain HTTP: connections are NOT encrypted",
        ),
        (
            archive != ArchiveConfig() and checkpoints.directory == "",
            "`archive` is set, but without `checkpoints.directory` there is nothing to archive",
        ),
        (
            archive.directory != "" and archive.interval == 0 and not archive.delete_instead,
            "`archive.directory` is set, but without `archive.interval` nothing is archived: old samples are deleted",
        ),
        (
            archive.interval != 0 and checkpoints.directory != "" and config.retention_seconds == 0,
            "`archive.interval` is set, but samples are kept for ever: nothing is archived",
        ),
        (
            0 < config.memory_cap_bytes < MEMORY_CAP_SENSIBLE,
            "`memory-cap` is below half a gigabyte, but the server takes 0.2 itself: expect it to be slow",
        ),
        (
            config.debug.dump_to_file != "",
            "`debug.dump-to-file` is set, but this release writes no dump when it stops",
        ),
        (
            config.debug.gops,
            "`debug.gops` is set, but it is for programs written in Go, and this is none",
        ),
    ]
    return [sentence for asked_for, sentence in sentences if asked_for]


def split_address(address: str) -> tuple[str, int]:
    """Splits `host:port`. An IPv6 host loses its brackets; an empty host stands for every interface.

    Raises:
        ValueError: It is no such address; the message is the rule it breaks.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise ValueError(f"must be `host:port`, the port a number from 0 to {PORT_MAX:,}")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            raise ValueError("must hold an IPv6 address between its brackets") from None
    if not re.fullmatch(r"[A-Za-z0-9._-]*", host):
        raise ValueError("must be `host:port` and nothing more; an IPv6 address goes in brackets")
    return host, int(port)


def _refuse_later_layout(content: object) -> None:
    """Tells users of the predecessor's release 1.5 that theirs is another layout, rather than that a key is unknown."""
    for key in ("main", "metric-store"):
        if isinstance(content, dict) and key in content:
            raise ConfigError(
                key,
                None,
                "belongs to the layout of cc-metric-store 1.5; this file has the layout of 2024, with `http-api`, "
                "`retention-in-memory`, `checkpoints` and `nats` at its top",
            )


def _read_metrics(file: Section) -> tuple[Metric, ...]:
    metrics = []
    section = file.required_section("metrics", known=None)
    for name, settings in section.sections_by_name(known={"frequency", "aggregation"}):
        if rule := broken_name_rule(name, is_directory=False):
            section.fail(name, None, f"a metric's name {rule}")
        interval = settings.whole_number("frequency", least=1, most=INTERVAL_SECONDS_MAX)
        metrics.append(Metric(name, interval, _read_aggregation(settings)))
    if not metrics:
        file.fail("metrics", None, "must name at least one metric")
    return tuple(metrics)


def _read_aggregation(settings: Section) -> Aggregation | None:
    form = "`sum`, `avg` or null"
    text = settings.text("aggregation", "", form=form)
    if not text:
        return None
    if text not in set(Aggregation):
        settings.fail("aggregation", text, f"must be {form}")
    return Aggregation(text)


def _read_http_api(file: Section) -> HttpApiConfig:
    section = file.required_section("http-api", known={"address", "https-cert-file", "https-key-file"})
    cert_file, key_file = section.text("https-cert-file", ""), section.text("https-key-file", "")
    if bool(cert_file) != bool(key_file):
        absent, present = ("https-key-file", "https-cert-file") if cert_file else ("https-cert-file", "https-key-file")
        section.fail(absent, None, f"is required with `{present}`")
    return HttpApiConfig(address=_read_address(section), https_cert_file=cert_file, https_key_file=key_file)


def _read_grpc_api(file: Section) -> GrpcApiConfig:
    section = file.section("grpc-api", known={"address"})
    return GrpcApiConfig(address=_read_address(section, GrpcApiConfig().address)) if section else GrpcApiConfig()


def _read_address(section: Section, default: str | None = None) -> str:
    address = section.text("address", default)
    try:
        split_address(address)
    except ValueError as error:
        section.fail("address", address, str(error))
    return address


def _read_nats(file: Section) -> tuple[NatsConfig, ...]:
    known = {"address", "username", "password", "creds-file-path", "subscriptions"}
    return tuple(_read_nats_entry(section) for section in file.list_of_sections("nats", known=known))


def _read_nats_entry(section: Section) -> NatsConfig:
    address = section.text("address", secret=True)
    if rule := _broken_nats_rule(address):
        section.fail("address", None if "@" in address else address, rule)  # what is before it may be a password
    username, password = section.text("username", ""), section.text("password", "", secret=True)
    if bool(username) != bool(password):
        absent, present = ("password", "username") if username else ("username", "password")
        section.fail(absent, None, f"is required with `{present}`")
    subscriptions = section.list_of_sections("subscriptions", known={"subscribe-to", "cluster-tag"})
    if not subscriptions:
        section.fail("subscriptions", None, "must hold at least one subscription")
    return NatsConfig(
        address=address,
        username=username,
        password=password,
        creds_file_path=section.text("creds-file-path", ""),
        subscriptions=tuple(_read_subscription(subscription) for subscription in subscriptions),
    )


def _broken_nats_rule(address: str) -> str | None:
    """The rule that a `nats[].address` breaks: nats-py would raise, or try in vain for ever."""
    is_web_socket = set()
    for server in nats_servers(address):
        match = _NATS_SERVER.fullmatch(server)
        if match is None:
            return "must be servers separated by commas, each `host:port` or `nats://host:port`"
        host_and_port = match["host"] + (match["port"] or ":4222")
        try:
            split_address(host_and_port)
        except ValueError as error:
            return f"names the server {host_and_port!r}, which {error}"
        is_web_socket.add(match["scheme"].startswith("ws"))
    return "must not mix WebSockets (`ws`, `wss`) with `nats` and `tls`" if len(is_web_socket) > 1 else None


def _read_subscription(section: Section) -> NatsSubscription:
    subject = section.text("subscribe-to")
    if not _NATS_SUBJECT.fullmatch(subject):
        section.fail(
            "subscribe-to", subject, "must be a subject: words joined by dots, `*` for any word, `>` for the rest"
        )
    cluster = section.text("cluster-tag", "")
    if cluster and (rule := broken_name_rule(cluster, is_directory=True)):
        section.fail("cluster-tag", cluster, rule)
    return NatsSubscription(subscribe_to=subject, cluster_tag=cluster)


def _read_public_key(file: Section) -> str:
    text = file.text("jwt-public-key", "")
    if text:
        try:
            key = base64.b64decode(text, validate=True)
        except ValueError:
            file.fail("jwt-public-key", text, "must be base64")
        if len(key) != ED25519_KEY_BYTES:
            file.fail("jwt-public-key", text, f"must be {ED25519_KEY_BYTES} bytes in base64, is {len(key)} bytes")
    return text


def _read_memory_cap(file: Section) -> int:
    """Bytes, rounded up: a small cap must not turn into 0, which is none."""
    return math.ceil(file.number("memory-cap", 0, least=0, most=MEMORY_BYTES_MAX // GIGABYTE) * GIGABYTE)


def _read_checkpoints(file: Section) -> CheckpointsConfig | None:
    section = file.section("checkpoints", known={"interval", "directory", "restore", "sync", "wal-bytes", "retention"})
    if section is None:
        return None
    defaults = CheckpointsConfig()
    checkpoints = CheckpointsConfig(
        interval=max(0, section.seconds("interval", 0)),
        directory=section.text("directory", ""),
        restore=max(0, section.seconds("restore", 0)),
        sync_seconds=_read_sync(section),
        wal_bytes=section.whole_number("wal-bytes", defaults.wal_bytes, least=WAL_BYTES_LEAST, most=MEMORY_BYTES_MAX),
        retention=section.seconds("retention", 0) if section.text("retention", "") else None,
    )
    if checkpoints.retention is not None and checkpoints.retention < 0:
        section.fail("retention", section.text("retention"), "must not be negative; 0 keeps samples for ever")
    for key, is_set in (("interval", checkpoints.interval), ("retention", checkpoints.retention is not None)):
        if is_set and not checkpoints.directory:
            section.fail("directory", None, f"is required with `{key}`")
    in_memory = max(0, file.seconds("retention-in-memory"))
    if checkpoints.retention and (in_memory == 0 or checkpoints.retention < in_memory):
        least = repr(file.text("retention-in-memory")) if in_memory else "which is for ever"
        section.fail("retention", section.text("retention"), f"must be at least `retention-in-memory`, {least}")
    return checkpoints


def _read_sync(section: Section) -> float | None:
    form = "`always`, `off`, or a duration above 0 such as `1s` or `100ms`"
    text = section.text("sync", "always", form=form)
    if text in ("always", "off"):
        return 0.0 if text == "always" else None
    try:
        seconds = float(parse_span(text))
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        section.fail("sync", text, f"must be {form}")
    return seconds


def _read_archive(file: Section) -> ArchiveConfig | None:
    section = file.section("archive", known={"interval", "directory", "delete-instead"})
    if section is None:
        return None
    archive = ArchiveConfig(
        interval=max(0, section.seconds("interval", 0)),
        directory=section.text("directory", ""),
        delete_instead=section.truth("delete-instead", False),
    )
    if archive.interval and not archive.directory and not archive.delete_instead:
        section.fail("directory", None, "is required with `interval`, unless `delete-instead` is true")
    return archive


def _read_debug(file: Section) -> DebugConfig:
    section = file.section("debug", known={"dump-to-file", "gops"})
    if section is None:
        return DebugConfig()
    return DebugConfig(dump_to_file=section.text("dump-to-file", ""), gops=section.truth("gops", False))


def _read_limits(file: Section) -> LimitsConfig:
    section = file.section(
        "limits",
        known={
            *("series", "request-bytes", "queue-bytes", "line-bytes", "query-points", "query-series"),
            *("future", "open-window-bytes"),
        },
    )
    defaults = LimitsConfig()
    if section is None:
        return defaults
    limits = LimitsConfig(
        series=section.whole_number("series", defaults.series, least=1, most=COUNT_MAX),
        request_bytes=section.whole_number("request-bytes", defaults.request_bytes, least=1, most=MESSAGE_BYTES_MAX),
        queue_bytes=section.whole_number("queue-bytes", defaults.queue_bytes, least=1, most=MEMORY_BYTES_MAX),
        line_bytes=section.whole_number("line-bytes", defaults.line_bytes, least=1, most=MESSAGE_BYTES_MAX),
        query_points=section.whole_number("query-points", defaults.query_points, least=1, most=COUNT_MAX),
        query_series=section.whole_number("query-series", defaults.query_series, least=1, most=COUNT_MAX),
        future_seconds=section.seconds("future", defaults.future_seconds),
        open_window_bytes=section.whole_number(
            "open-window-bytes", defaults.open_window_bytes, least=0, most=MEMORY_BYTES_MAX
        ),
    )
    if limits.future_seconds < 0:
        section.fail("future", section.text("future"), "must not be negative")
    if limits.queue_bytes < limits.request_bytes:
        section.fail("queue-bytes", limits.queue_bytes, f"must be at least `request-bytes`, {limits.request_bytes:,}")
    if limits.line_bytes > limits.request_bytes:
        section.fail("line-bytes", limits.line_bytes, f"must be at most `request-bytes`, {limits.request_bytes:,}")
    return limits
