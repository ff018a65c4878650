"""Becoming another user: processes that do so tell who they are afterwards."""

import grp
import json
import os
import pwd
import subprocess
import sys

import pytest

from ccms_server.errors import ConfigError
from ccms_server.privileges import drop_privileges

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")

NOBODY = pwd.getpwnam("nobody")
UNKNOWN_ID = 54_321

NO_SETUID_FIXUP = """
# Has the kernel leave all capabilities to those who were root (prctl(2): PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP).
import ctypes
assert ctypes.CDLL(None).prctl(28, 4, 0, 0, 0) == 0
"""

TELL = """
import json, os, sys, threading
from ccms_server.errors import ConfigError
from ccms_server.privileges import drop_privileges

go, seen, error = threading.Event(), [], None
def look():
    go.wait()
    seen.append(os.getresuid())
thread = threading.Thread(target=look)
thread.start()
try:
    for user, group in json.loads(sys.argv[1]):
        drop_privileges(user, group)
except (ConfigError, OSError) as refusal:
    error = str(refusal)
go.set()
thread.join()
print(json.dumps({"users": os.getresuid(), "groups": os.getresgid(), "all": sorted(os.getgroups()),
    "other_thread": seen[0], "error": error}))
"""


def dropped(*steps, prepare=""):
    """Who a process is that took on users and groups, one pair after the other."""
    result = subprocess.run(
        [sys.executable, "-c", prepare + TELL, json.dumps([[str(user), str(group)] for user, group in steps])],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(result.stdout)


def other_group():
    return next(group for group in grp.getgrall() if group.gr_gid not in (0, NOBODY.pw_gid))


@as_root
@pytest.mark.parametrize("user", ["nobody", NOBODY.pw_uid])
def test_a_user_is_taken_on_with_its_own_groups_in_all_threads(user):
    who = dropped((user, ""))
    assert who["error"] is None
    assert who["users"] == who["other_thread"] == [NOBODY.pw_uid] * 3
    assert who["groups"] == [NOBODY.pw_gid] * 3
    assert who["all"] == sorted(set(os.getgrouplist("nobody", NOBODY.pw_gid)))


@as_root
@pytest.mark.parametrize("is_named", [True, False])
def test_a_group_is_taken_on_instead_of_the_users_own(is_named):
    group = other_group()
    who = dropped(("nobody", group.gr_name if is_named else group.gr_gid))
    assert who["error"] is None
    assert (who["users"], who["groups"]) == ([NOBODY.pw_uid] * 3, [group.gr_gid] * 3)
    assert NOBODY.pw_gid not in who["all"]


@as_root
def test_a_group_alone_changes_no_user():
    who = dropped(("", NOBODY.pw_gid))
    assert who["error"] is None
    assert (who["users"], who["groups"], who["all"]) == ([0] * 3, [NOBODY.pw_gid] * 3, [NOBODY.pw_gid])


@as_root
def test_a_number_without_a_name_needs_a_group():
    who = dropped((UNKNOWN_ID, UNKNOWN_ID))
    assert who["error"] is None
    assert (who["users"], who["groups"], who["all"]) == ([UNKNOWN_ID] * 3, [UNKNOWN_ID] * 3, [UNKNOWN_ID])
    who = dropped((UNKNOWN_ID, ""))
    assert (
        who["error"] == f"user: '{UNKNOWN_ID}' is not among the users of this machine, so `group` is required with it"
    )
    assert who["users"] == [0] * 3


@as_root
@pytest.mark.parametrize(("user", "group"), [("nobody", ""), ("", NOBODY.pw_gid), ("nobody", NOBODY.pw_gid)])
def test_who_is_that_user_already_may_stay_it(user, group):
    who = dropped(("nobody", ""), (user, group))
    assert who["error"] is None
    assert who["users"] == [NOBODY.pw_uid] * 3


@as_root
@pytest.mark.parametrize(
    ("user", "group", "key"),
    [("root", "", "user"), ("", "0", "group"), ("root", NOBODY.pw_gid, "user"), ("nobody", "0", "group")],
)
def test_what_was_given_up_is_not_given_back(user, group, key):
    who = dropped(("nobody", ""), (user, group))
    value = user if key == "user" else group
    assert who["error"] == (
        f"{key}: '{value}' cannot be taken on by user {NOBODY.pw_uid}: Operation not permitted; start the server as "
        f"root, or as that {key}"
    )
    assert who["users"] == [NOBODY.pw_uid] * 3


@as_root
def test_rights_that_stay_are_an_error(monkeypatch):
    who = dict.fromkeys(("setgroups", "setgid", "setuid"), 0)
    for name in who:
        monkeypatch.setattr(os, name, lambda _, name=name: who.update({name: who[name] + 1}))
    with pytest.raises(OSError, match=r"^the rights of root could not be given up"):
        drop_privileges("nobody", "")
    assert min(who.values()) > 0


@as_root
def test_a_way_back_to_root_is_an_error():
    try:
        who = dropped(("nobody", ""), prepare=NO_SETUID_FIXUP)
    except subprocess.CalledProcessError:
        pytest.skip("this machine allows no securebits")
    assert who["error"].startswith("the rights of root could not be given up for user ")


@pytest.mark.parametrize("name", ["no-such-user", "-1", "4294967295", "99999999999", "1_0", "\u0663", "a\0b", "\ud800"])
def test_an_unknown_user_is_named(name):
    with pytest.raises(ConfigError) as caught:
        drop_privileges(name, "")
    assert (caught.value.key, caught.value.value) == ("user", name)


@pytest.mark.parametrize("name", ["no-such-group", "-1", "4294967295", "a\0b"])
def test_an_unknown_group_is_named(name):
    with pytest.raises(ConfigError) as caught:
        drop_privileges("", name)
    assert str(caught.value) == f"group: {name!r} is no group of this machine"


def test_nothing_asked_for_changes_nothing(monkeypatch):
    monkeypatch.delattr(os, "setuid")
    monkeypatch.delattr(os, "setgroups")
    drop_privileges("", "")
    drop_privileges(pwd.getpwuid(os.getuid()).pw_name, str(os.getgid()))
