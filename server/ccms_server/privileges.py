"""Giving up the rights of root, for good: what needs them, as binding a low port does, is done before."""

import grp
import logging
import os
import pwd
from typing import Final

from ccms_server.errors import ConfigError

logger = logging.getLogger(__name__)

ROOT: Final = 0
ID_MAX: Final = 2**32 - 2
"""The largest number of a user or a group; system calls take the next one for "none"."""


def drop_privileges(user: str, group: str) -> None:
    """Makes all threads of this process a user's, with no way back; does nothing if they are already.

    Args:
        user: Name or number; empty: stay the user, and only change the group.
        group: Name or number; empty: the user's own. The further groups that the user is in are taken on as well.

    Raises:
        ConfigError: There is no such user or group, or this process may not become it.
        OSError: The rights are still there afterwards.
    """
    if not user and not group:
        return
    user_id, group_id, groups = _resolve(user, group)
    if _ids() == (user_id, group_id):
        return
    try:
        # The user comes last: only root may change the groups.
        os.setgroups(groups)
        os.setgid(group_id)
        os.setuid(user_id)
    except OSError as error:
        key, value = ("group", group) if user_id == os.geteuid() else ("user", user)
        why = f"cannot be taken on by user {os.geteuid()}: {error.strerror}"
        raise ConfigError(key, value, f"{why}; start the server as root, or as that {key}") from error
    if _ids() != (user_id, group_id) or {*os.getgroups()} != {*groups} or (user_id != ROOT and _can_be_root()):
        raise OSError(f"the rights of root could not be given up for user {user_id} and group {group_id}")
    logger.info("running as user %d, group %d", user_id, group_id)


def _resolve(user: str, group: str) -> tuple[int, int, list[int]]:
    """Numbers of the user, the group, and all groups.

    Raises:
        ConfigError: There is no such user or group.
    """
    group_id = _group_id(group) if group else None
    entry = _user_entry(user) if user else None
    if entry is not None:
        group_id = entry.pw_gid if group_id is None else group_id
        return entry.pw_uid, group_id, os.getgrouplist(entry.pw_name, group_id)
    if group_id is None:
        raise ConfigError("user", user, "is not among the users of this machine, so `group` is required with it")
    return int(user) if user else os.getuid(), group_id, [group_id]


def _user_entry(user: str) -> pwd.struct_passwd | None:
    """What the machine knows of a user; None: nothing, but it is a number."""
    try:
        return pwd.getpwnam(user)
    except (KeyError, ValueError):  # the latter for characters that no name may have
        if not _is_number(user):
            raise ConfigError("user", user, "is no user of this machine") from None
    try:
        return pwd.getpwuid(int(user))
    except KeyError:
        return None


def _group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        if not _is_number(group):
            raise ConfigError("group", group, "is no group of this machine") from None
        return int(group)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(ID_MAX)) and int(text) <= ID_MAX


def _ids() -> tuple[int, int] | None:
    """The user and the group of this process; None if it has several, to change between."""
    users, groups = {*os.getresuid()}, {*os.getresgid()}
    return (users.pop(), groups.pop()) if len(users) == len(groups) == 1 else None


def _can_be_root() -> bool:
    try:
        os.setuid(ROOT)
    except PermissionError:
        return False
    return True
