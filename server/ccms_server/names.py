"""The rule for names: clusters, hosts, components and what lies below."""

import re
from typing import Final

NAME_BYTES_MAX: Final = 255
"""What a file system allows for the name of a directory."""

_UNREADABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of characters, which have no bytes."""


def broken_name_rule(name: str, *, is_directory: bool) -> str | None:
    """The rule that a name breaks; None if it is a good one.

    Args:
        name: The name.
        is_directory: Whether it becomes a directory, as clusters and hosts do: then it must not lead elsewhere.
    """
    if not name:
        return "must not be empty"
    if _UNREADABLE.search(name):
        return "must be text without control characters"
    if len(name) > NAME_BYTES_MAX or (not name.isascii() and len(name.encode()) > NAME_BYTES_MAX):
        return f"must be at most {NAME_BYTES_MAX} bytes long"
    if is_directory and (name == "." or "/" in name or "\\" in name or ".." in name):
        return "must not be '.', or hold '/', '\\' or '..'"
    return None
