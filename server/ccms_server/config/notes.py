"""What a configuration asks for in vain: no mistakes, but seldom what is meant."""

from typing import Final

from ccms_server.config.keys import KEYS
from ccms_server.config.model import ArchiveConfig, AuthConfig, CheckpointsConfig, Config, Layout

MEMORY_CAP_SENSIBLE: Final = 500_000_000
"""Bytes; below it, windows are sealed and opened again all the time."""


def inactive_features(config: Config) -> list[str]:
    """What the configuration asks for and does not get: a sentence each, the gravest first."""
    key = KEYS[config.layout].named
    sentences: list[tuple[bool, str]] = [
        (
            config.auth != AuthConfig() and config.jwt_public_key == "",
            f"`auth` is set, but without `{key('jwt-public-key')}` nobody is asked who they are",
        ),
        (
            any(not nats.subscriptions for nats in config.nats),
            "`nats` is set, but without `metric-store.nats-subscriptions` nothing is taken from it",
        ),
        *_about_archive(config),
        (
            config.backend_url == "" and config.backend_token_file != "",
            f"`{key('backend-token-file')}` is set, but without `{key('backend-url')}` there is nobody to show it to",
        ),
        (
            config.backend_url != "" and config.retention_seconds == 0,
            f"`{key('backend-url')}` is set, but samples are kept for ever: nobody is asked which nodes are in use",
        ),
        (
            0 < config.memory_cap_bytes < MEMORY_CAP_SENSIBLE,
            f"`{key('memory-cap')}` is below half a gigabyte, but the server takes 0.2 itself: expect it to be slow",
        ),
        (
            config.debug.gops,
            f"`{key('debug.gops')}` is set, but it is for programs written in Go, and this is none",
        ),
    ]
    return [sentence for asked_for, sentence in sentences if asked_for]


def _about_archive(config: Config) -> list[tuple[bool, str]]:
    archive, checkpoints = config.archive or ArchiveConfig(), config.checkpoints or CheckpointsConfig()
    has_directory = checkpoints.directory != ""
    if config.layout is Layout.OF_1_5:
        asked_for = not archive.delete_instead
        return [
            (
                asked_for and not has_directory,
                "`metric-store.cleanup` is set, but without `metric-store.checkpoints.directory` there is nothing to "
                "archive",
            ),
            (
                asked_for and has_directory and config.retention_seconds == 0,
                "`metric-store.cleanup.mode` is `archive`, but samples are kept for ever: nothing is archived",
            ),
            (
                not asked_for and archive.directory != "",
                "`metric-store.cleanup.directory` is set, but nothing is archived unless `mode` is `archive`: old "
                "samples are deleted",
            ),
        ]
    return [
        (
            archive != ArchiveConfig() and not has_directory,
            "`archive` is set, but without `checkpoints.directory` there is nothing to archive",
        ),
        (
            archive.directory != "" and archive.interval == 0 and not archive.delete_instead,
            "`archive.directory` is set, but without `archive.interval` nothing is archived: old samples are deleted",
        ),
        (
            archive.interval != 0 and has_directory and config.retention_seconds == 0,
            "`archive.interval` is set, but samples are kept for ever: nothing is archived",
        ),
    ]
