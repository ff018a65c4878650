"""Sections that are alike in both layouts, wherever in the file they are."""

import base64
import math
from fractions import Fraction
from typing import Final

from ccms_server.config.address import broken_http_rule, split_address
from ccms_server.config.json_section import Section
from ccms_server.config.model import (
    AuthConfig,
    BasicUser,
    DebugConfig,
    GrpcApiConfig,
    HttpApiConfig,
    LimitsConfig,
)
from ccms_server.names import broken_name_rule
from ccms_server.store.metric import Aggregation, Metric

INTERVAL_SECONDS_MAX: Final = 86_400
MESSAGE_BYTES_MAX: Final = 2**31 - 1
"""gRPC counts the bytes of a message in 31 bits."""
ED25519_KEY_BYTES: Final = 32
COUNT_MAX: Final = 2**31 - 1
"""Largest limit on a number of things; series are numbered in 31 bits."""
WORKERS_MAX: Final = 1024
MEMORY_BYTES_MAX: Final = 1 << 50
GIGABYTE: Final = 10**9
"""The predecessor's unit of `memory-cap`."""


def read_metrics(file: Section) -> tuple[Metric, ...]:
    """Reads `metrics`."""
    metrics = []
    section = file.required_section("metrics")
    for name, settings in section.sections_by_name():
        if rule := broken_name_rule(name, is_directory=False):
            section.fail(name, None, f"a metric's name {rule}")
        interval = settings.whole_number("frequency", least=1, most=INTERVAL_SECONDS_MAX)
        metrics.append(Metric(name, interval, _read_aggregation(settings), _read_unit(settings)))
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


def _read_unit(settings: Section) -> str:
    unit = settings.text("unit", "")
    if unit and (rule := broken_name_rule(unit, is_directory=False)):
        settings.fail("unit", unit, rule)
    return unit


def read_http_api(section: Section, address_key: str) -> HttpApiConfig:
    """Reads where and how REST is served: `http-api`, or a part of `main`."""
    cert_file, key_file = section.text("https-cert-file", ""), section.text("https-key-file", "")
    section.require_together("https-cert-file", "https-key-file")
    client_ca_file = section.text("client-ca-file", "")
    if client_ca_file and not cert_file:
        section.fail("https-cert-file", None, "is required with `client-ca-file`: only TLS has certificates")
    return HttpApiConfig(
        address=_read_address(section, address_key),
        https_cert_file=cert_file,
        https_key_file=key_file,
        client_ca_file=client_ca_file,
        compression=section.truth("compression", False),
    )


def read_grpc_api(file: Section, http_address: str, http_address_key: str) -> GrpcApiConfig:
    """Reads `grpc-api`, whose address must differ from that of REST."""
    section = file.section_or_empty("grpc-api")
    address = _read_address(section, "address", GrpcApiConfig().address)
    if address == http_address and split_address(address)[1] != 0:
        section.fail("address", address, f"must differ from `{http_address_key}`")
    return GrpcApiConfig(address=address)


def _read_address(section: Section, key: str, default: str | None = None) -> str:
    address = section.text(key, default)
    try:
        split_address(address)
    except ValueError as error:
        section.fail(key, address, str(error))
    return address


def read_public_key(section: Section) -> str:
    """Reads `jwt-public-key`."""
    text = section.text("jwt-public-key", "")
    if text:
        try:
            key = base64.b64decode(text, validate=True)
        except ValueError:
            section.fail("jwt-public-key", text, "must be base64")
        if len(key) != ED25519_KEY_BYTES:
            section.fail("jwt-public-key", text, f"must be {ED25519_KEY_BYTES} bytes in base64, is {len(key)} bytes")
    return text


def read_auth(file: Section) -> AuthConfig:
    """Reads `auth`."""
    section = file.section_or_empty("auth")
    defaults = AuthConfig()
    users: dict[str, BasicUser] = {}
    for entry in section.list_of_sections("basic"):
        user = _read_basic_user(entry)
        if user.username in users:
            entry.fail("username", user.username, "is there more than once: a user has one password")
        users[user.username] = user
    return AuthConfig(enforce_roles=section.truth("enforce-roles", defaults.enforce_roles), basic=tuple(users.values()))


def _read_basic_user(entry: Section) -> BasicUser:
    username, password = entry.text("username"), entry.text("password", secret=True)
    if rule := broken_name_rule(username, is_directory=False):
        entry.fail("username", username, rule)
    if ":" in username:
        entry.fail("username", username, "must not hold `:`, which ends it in HTTP's basic authentication")
    if rule := broken_name_rule(password, is_directory=False):
        entry.fail("password", None, rule)
    return BasicUser(username=username, password=password)


def read_backend_url(section: Section) -> str:
    """Reads `backend-url`."""
    url = section.text("backend-url", "", secret=True)
    if url and (rule := broken_http_rule(url)):
        section.fail("backend-url", None if "@" in url else url, rule)  # what is before it may be a password
    return url


def read_memory_cap(section: Section, default: int | None) -> int:
    """Reads `memory-cap`, in bytes, rounded up: a small cap must not turn into 0, which is none."""
    gigabytes = section.number("memory-cap", default, least=0, most=MEMORY_BYTES_MAX // GIGABYTE)
    return math.ceil(Fraction(repr(gigabytes)) * GIGABYTE)  # by its digits: 0.1 is a tenth


def read_num_workers(section: Section) -> int:
    """Reads `num-workers`."""
    return section.whole_number("num-workers", 0, least=0, most=WORKERS_MAX)


def read_debug(section: Section) -> DebugConfig:
    """Reads a section `debug`."""
    debug = section.section_or_empty("debug")
    return DebugConfig(dump_to_file=debug.text("dump-to-file", ""), gops=debug.truth("gops", False))


def read_limits(file: Section) -> LimitsConfig:
    """Reads `limits`."""
    section = file.section_or_empty("limits")
    defaults = LimitsConfig()
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
