"""The layout of the predecessor's 2024 release, with some keys of our own: sections side by side."""

from ccms_server.config.durability import read_archive_format, read_checkpoints, read_retention_in_memory
from ccms_server.config.json_section import Section
from ccms_server.config.model import ArchiveConfig, CheckpointsConfig, Config, Layout, NatsConfig
from ccms_server.config.nats import read_nats, read_subscriptions
from ccms_server.config.sections import (
    read_auth,
    read_backend_url,
    read_debug,
    read_grpc_api,
    read_http_api,
    read_limits,
    read_memory_cap,
    read_metrics,
    read_num_workers,
    read_public_key,
)


def read(file: Section) -> Config:
    """Reads a file of this layout."""
    metrics = read_metrics(file)
    http_api = read_http_api(file.required_section("http-api"), "address")
    return Config(
        layout=Layout.OF_2024,
        metrics=metrics,
        http_api=http_api,
        grpc_api=read_grpc_api(file, http_api.address, "http-api.address"),
        nats=tuple(_read_nats_entry(entry) for entry in file.list_of_sections("nats")),
        retention_in_memory=read_retention_in_memory(file),
        memory_cap_bytes=read_memory_cap(file, 0),
        jwt_public_key=read_public_key(file),
        auth=read_auth(file),
        user=file.text("user", ""),
        group=file.text("group", ""),
        backend_url=read_backend_url(file),
        backend_token_file=file.text("backend-token-file", ""),
        num_workers=read_num_workers(file),
        checkpoints=_read_checkpoints(file),
        archive=_read_archive(file),
        debug=read_debug(file),
        limits=read_limits(file),
    )


def _read_nats_entry(entry: Section) -> NatsConfig:
    nats = read_nats(entry, read_subscriptions(entry, "subscriptions"))
    if not nats.subscriptions:
        entry.fail("subscriptions", None, "must hold at least one subscription")
    return nats


def _read_checkpoints(file: Section) -> CheckpointsConfig | None:
    section = file.section("checkpoints")
    if section is None:
        return None
    interval, restore = max(0, section.seconds("interval", 0)), max(0, section.seconds("restore", 0))
    checkpoints = read_checkpoints(section, file, interval=interval, restore=restore)
    if interval and not checkpoints.directory:
        section.fail("directory", None, "is required with `interval`")
    return checkpoints


def _read_archive(file: Section) -> ArchiveConfig | None:
    section = file.section("archive")
    if section is None:
        return None
    archive = ArchiveConfig(
        interval=max(0, section.seconds("interval", 0)),
        directory=section.text("directory", ""),
        delete_instead=section.truth("delete-instead", False),
        file_format=read_archive_format(section),
    )
    if archive.interval and not archive.directory and not archive.delete_instead:
        section.fail("directory", None, "is required with `interval`, unless `delete-instead` is true")
    return archive
