"""The rule for names: clusters, hosts, components and what lies below."""

from typing import Final

NAME_BYTES_MAX: Final = 255
"""What a file system allows for the name of a directory."""


def broken_name_rule(name: str) -> str | None:
    """Why a name cannot be taken, or None if it can.

    Names become directories, so one that could lead elsewhere is refused.
    """
    if not name:
        return "is empty"
    if not name.isprintable():  # nor a lone surrogate, which has no bytes
        return "holds a control character"
    if len(name) > NAME_BYTES_MAX or len(name.encode()) > NAME_BYTES_MAX:
        return f"is longer than {NAME_BYTES_MAX} bytes"
    if "/" in name or "\\" in name or ".." in name:
        return "holds a slash, a backslash or '..'"
    return None
