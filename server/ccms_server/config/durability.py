"""Checkpoints and archives: what both layouts say of them, and the rules across their keys."""

from typing import Final

from ccms_server.config.json_section import Section
from ccms_server.config.model import ArchiveConfig, ArchiveFormat, CheckpointFormat, CheckpointsConfig
from ccms_server.config.sections import MEMORY_BYTES_MAX
from ccms_server.duration import parse_span

WAL_BYTES_LEAST: Final = 1 << 20


def read_retention_in_memory(owner: Section) -> int:
    """Reads `retention-in-memory`, in seconds; 0 or less is for ever, as with the predecessor."""
    return max(0, owner.seconds("retention-in-memory"))


def read_checkpoints(
    section: Section, owner: Section, *, interval: int, restore: int = 0, directory_default: str = ""
) -> CheckpointsConfig:
    """Reads a section `checkpoints`.

    Args:
        section: It.
        owner: The one with `retention-in-memory`.
        interval: What the layout says of it elsewhere, in seconds.
        restore: The same.
        directory_default: What an absent `directory` stands for.
    """
    defaults = CheckpointsConfig()
    checkpoints = CheckpointsConfig(
        file_format=section.choice(
            "file-format", defaults.file_format, remedy="; what else the predecessor has written is not read here"
        ),
        interval=interval,
        directory=section.text("directory", directory_default),
        restore=restore,
        sync_seconds=_read_sync(section),
        wal_bytes=section.whole_number("wal-bytes", defaults.wal_bytes, least=WAL_BYTES_LEAST, most=MEMORY_BYTES_MAX),
        wal_bytes_per_host=section.whole_number("max-wal-size", 0, least=0, most=MEMORY_BYTES_MAX),
        retention=section.seconds("retention", 0) if section.text("retention", "") else None,
    )
    if checkpoints.file_format is CheckpointFormat.JSON and not checkpoints.directory:
        section.fail("directory", None, "is required with `file-format` `json`")
    if checkpoints.retention is not None:
        _check_retention(section, checkpoints, owner)
    return checkpoints


def _check_retention(section: Section, checkpoints: CheckpointsConfig, owner: Section) -> None:
    assert checkpoints.retention is not None, "it is set"
    text = section.text("retention")
    if not checkpoints.directory:
        section.fail("directory", None, "is required with `retention`")
    if checkpoints.retention < 0:
        section.fail("retention", text, "must not be negative; 0 keeps samples for ever")
    in_memory = read_retention_in_memory(owner)
    if checkpoints.retention and (in_memory == 0 or checkpoints.retention < in_memory):
        least = repr(owner.text("retention-in-memory")) if in_memory else "which is for ever"
        section.fail("retention", text, f"must be at least `{owner.path_of('retention-in-memory')}`, {least}")


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


def read_archive_format(section: Section) -> ArchiveFormat:
    """Reads the `file-format` of archives."""
    return section.choice("file-format", ArchiveConfig().file_format)
