"""A configuration in the form of its file, with every default filled in and every secret masked."""

from dataclasses import fields
from decimal import Decimal

from ccms_server.config.address import MASK, masked
from ccms_server.config.model import (
    ArchiveConfig,
    CheckpointsConfig,
    Config,
    HttpApiConfig,
    Layout,
    LimitsConfig,
    NatsConfig,
    NatsSubscription,
)
from ccms_server.config.sections import GIGABYTE
from ccms_server.duration import duration_text
from ccms_server.store.metric import Metric

Settings = dict[str, object]
"""Of an object of the file, by key."""


def effective_settings(config: Config) -> Settings:
    """What the file could say instead; it may be read again, but for the secrets."""
    return _settings_of_1_5(config) if config.layout is Layout.OF_1_5 else _settings_of_2024(config)


def _settings_of_2024(config: Config) -> Settings:
    return {
        "metrics": _metrics(config.metrics),
        "http-api": {"address": config.http_api.address, **_rest(config.http_api)},
        **_process(config),
        "retention-in-memory": duration_text(config.retention_in_memory),
        **_resources(config),
        "checkpoints": _checkpoints_of_2024(config) if config.checkpoints else None,
        "archive": _archive(config.archive) if config.archive else None,
        "nats": [{**_nats(nats), "subscriptions": _subscriptions(nats.subscriptions)} for nats in config.nats],
        "debug": _debug(config),
        **_shared(config),
    }


def _settings_of_1_5(config: Config) -> Settings:
    checkpoints, archive = config.checkpoints or CheckpointsConfig(), config.archive or ArchiveConfig()
    return {
        "main": {
            "addr": config.http_api.address,
            **_rest(config.http_api),
            **_process(config),
            "debug": _debug(config),
        },
        "metrics": _metrics(config.metrics),
        "metric-store": {
            "retention-in-memory": duration_text(config.retention_in_memory),
            **_resources(config),
            "checkpoint-interval": duration_text(checkpoints.interval),
            "checkpoints": _checkpoints(config, checkpoints),
            "cleanup": {
                "mode": "delete" if archive.delete_instead else "archive",
                "directory": archive.directory,
                "file-format": archive.file_format,
            },
            "nats-subscriptions": [entry for nats in config.nats for entry in _subscriptions(nats.subscriptions)],
        },
        "nats": _nats(config.nats[0]) if config.nats else None,
        **_shared(config),
    }


def _metrics(metrics: tuple[Metric, ...]) -> Settings:
    return {metric.name: {"frequency": metric.interval, **_by_key(metric, "aggregation", "unit")} for metric in metrics}


def _rest(http_api: HttpApiConfig) -> Settings:
    return _by_key(http_api, "https_cert_file", "https_key_file", "client_ca_file", "compression")


def _shared(config: Config) -> Settings:
    basic = [{"username": user.username, "password": MASK} for user in config.auth.basic]
    return {
        "grpc-api": {"address": config.grpc_api.address},
        "auth": {"enforce-roles": config.auth.enforce_roles, "basic": basic},
        "limits": _limits(config.limits),
    }


def _process(config: Config) -> Settings:
    return {
        **_by_key(config, "jwt_public_key", "user", "group"),
        "backend-url": masked(config.backend_url),
        "backend-token-file": config.backend_token_file,
    }


def _resources(config: Config) -> Settings:
    gigabytes, rest = divmod(config.memory_cap_bytes, GIGABYTE)
    return {
        "memory-cap": config.memory_cap_bytes / GIGABYTE if rest else gigabytes,
        "num-workers": config.num_workers,
    }


def _checkpoints_of_2024(config: Config) -> Settings:
    assert config.checkpoints is not None, "there is a section"
    return {
        "interval": duration_text(config.checkpoints.interval),
        "restore": duration_text(config.checkpoints.restore),
        **_checkpoints(config, config.checkpoints),
    }


def _checkpoints(config: Config, checkpoints: CheckpointsConfig) -> Settings:
    return {
        "file-format": checkpoints.file_format,
        "directory": checkpoints.directory,
        "sync": _sync(checkpoints.sync_seconds),
        "wal-bytes": checkpoints.wal_bytes,
        "max-wal-size": checkpoints.wal_bytes_per_host,
        "retention": duration_text(config.retention_seconds) if checkpoints.directory else None,
    }


def _sync(seconds: float | None) -> str:
    if seconds is None:
        return "off"
    return f"{Decimal(repr(seconds)).normalize():f}s" if seconds else "always"


def _archive(archive: ArchiveConfig) -> Settings:
    return {
        "interval": duration_text(archive.interval),
        **_by_key(archive, "directory", "delete_instead", "file_format"),
    }


def _nats(nats: NatsConfig) -> Settings:
    return {
        "address": ",".join(masked(server) for server in nats.address.split(",")),
        "username": nats.username,
        "password": MASK if nats.password else "",
        **_by_key(nats, "creds_file_path", "tls_ca_file", "tls_cert_file", "tls_key_file"),
    }


def _subscriptions(subscriptions: tuple[NatsSubscription, ...]) -> list[Settings]:
    return [_by_key(subscription, "subscribe_to", "cluster_tag") for subscription in subscriptions]


def _debug(config: Config) -> Settings:
    return _by_key(config.debug, "dump_to_file", "gops")


def _limits(limits: LimitsConfig) -> Settings:
    same_names = [field.name for field in fields(limits) if field.name != "future_seconds"]
    return {**_by_key(limits, *same_names), "future": duration_text(limits.future_seconds)}


def _by_key(part: object, *names: str) -> Settings:
    """Fields of a part whose keys in the file have the same names."""
    return {name.replace("_", "-"): getattr(part, name) for name in names}
