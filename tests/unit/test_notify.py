"""What the service manager hears, over real sockets."""

import logging
import socket
import uuid

import pytest

from ccms_server.notify import notify


@pytest.fixture
def manager():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(10)
        yield manager


def test_states_arrive_at_a_path_one_by_one(manager, tmp_path, monkeypatch):
    path = str(tmp_path / "notify")
    manager.bind(path)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    notify("READY=1\nSTATUS=serving äö")
    notify("STOPPING=1")
    assert manager.recv(1024).decode() == "READY=1\nSTATUS=serving äö"
    assert manager.recv(1024) == b"STOPPING=1"


def test_states_arrive_at_an_abstract_name(manager, monkeypatch):
    name = f"ccms-{uuid.uuid4()}"
    manager.bind(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    notify("EXTEND_TIMEOUT_USEC=30000000")
    assert manager.recv(1024) == b"EXTEND_TIMEOUT_USEC=30000000"


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_service_manager_nothing_happens(value, monkeypatch, caplog):
    if value is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", value)
    notify("READY=1")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "reason"), [("nowhere", "No such file or directory"), ("long" * 50, "AF_UNIX path too long")]
)
def test_a_failure_is_logged_once_and_goes_no_further(name, reason, tmp_path, monkeypatch, caplog):
    path = str(tmp_path / name)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with caplog.at_level(logging.WARNING, "ccms_server"):
        notify("READY=1")
        notify("STOPPING=1")
    assert caplog.messages == [f"the service manager cannot be notified at {path}: {reason}"]


def test_a_full_queue_is_given_up(manager, tmp_path, monkeypatch, caplog):
    path = str(tmp_path / "notify")
    manager.bind(path)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setattr("ccms_server.notify.TIMEOUT_SECONDS", 0.01)
    for _ in range(10_000):
        notify("STATUS=busy")
        if caplog.messages:
            break
    assert caplog.messages == [f"the service manager cannot be notified at {path}: timed out"]
