"""The layout of the predecessor's release 1.5, with some keys of our own: `main`, `metrics`, `metric-store`, `nats`."""

from enum import StrEnum
from typing import Final

from ccms_server.config.durability import read_archive_format, read_checkpoints, read_retention_in_memory
from ccms_server.config.json_section import Section
from ccms_server.config.model import ArchiveConfig, CheckpointsConfig, Config, DebugConfig, Layout, NatsConfig
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

CHECKPOINT_SECONDS: Final = 12 * 3600
CHECKPOINT_DIRECTORY: Final = "./var/checkpoints"


class CleanupMode(StrEnum):
    """What becomes of samples that are older than the retention."""

    DELETE = "delete"
    ARCHIVE = "archive"


def read(file: Section) -> Config:
    """Reads a file of this layout."""
    metrics = read_metrics(file)
    main, store = file.required_section("main"), file.required_section("metric-store")
    http_api = read_http_api(main, "addr")
    return Config(
        layout=Layout.OF_1_5,
        metrics=metrics,
        http_api=http_api,
        grpc_api=read_grpc_api(file, http_api.address, "main.addr"),
        nats=_read_nats(file, store),
        retention_in_memory=read_retention_in_memory(store),
        memory_cap_bytes=read_memory_cap(store, None),
        jwt_public_key=read_public_key(main),
        auth=read_auth(file),
        user=main.text("user", ""),
        group=main.text("group", ""),
        backend_url=read_backend_url(main),
        backend_token_file=main.text("backend-token-file", ""),
        num_workers=read_num_workers(store),
        checkpoints=_read_checkpoints(store),
        archive=_read_cleanup(store),
        debug=_read_debug(main, store),
        limits=read_limits(file),
    )


def _read_nats(file: Section, store: Section) -> tuple[NatsConfig, ...]:
    """One server, or a cluster of them; subscriptions are a matter of the store."""
    section = file.section("nats")
    subscriptions = read_subscriptions(store, "nats-subscriptions")
    if section is not None:
        return (read_nats(section, subscriptions),)
    if subscriptions:
        file.fail("nats", None, f"is required with `{store.path_of('nats-subscriptions')}`: it names the server")
    return ()


def _read_checkpoints(store: Section) -> CheckpointsConfig:
    return read_checkpoints(
        store.section_or_empty("checkpoints"),
        store,
        interval=max(0, store.seconds("checkpoint-interval", CHECKPOINT_SECONDS)),
        directory_default=CHECKPOINT_DIRECTORY,
    )


def _read_cleanup(store: Section) -> ArchiveConfig:
    section = store.section_or_empty("cleanup")
    mode = section.choice("mode", CleanupMode.DELETE)
    directory = section.text("directory", "")
    if mode is CleanupMode.ARCHIVE and not directory:
        section.fail("directory", None, "is required with `mode` `archive`")
    return ArchiveConfig(
        interval=read_retention_in_memory(store),
        directory=directory,
        delete_instead=mode is CleanupMode.DELETE,
        file_format=read_archive_format(section),
    )


def _read_debug(main: Section, store: Section) -> DebugConfig:
    """Both sections may have one, with the same meaning."""
    in_main, in_store = read_debug(main), read_debug(store)
    dumps = {debug.dump_to_file for debug in (in_main, in_store) if debug.dump_to_file}
    if len(dumps) > 1:
        store.section_or_empty("debug").fail(
            "dump-to-file", in_store.dump_to_file, "must not differ from `main.debug.dump-to-file`: there is one dump"
        )
    return DebugConfig(dump_to_file=max(dumps, default=""), gops=in_main.gops or in_store.gops)
