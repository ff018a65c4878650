"""A peer that runs already is found, or it is said why not."""

import os
import socket
import time

import pytest
from benchmarks import process, running_peer
from benchmarks.running_peer import PeerError, RunningPeer

PID_MAX = 1 << 22
"""No process of Linux has this number."""


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_process_is_who_listens_on_the_port(listening):
    peer = RunningPeer(f"http://127.0.0.1:{listening}", write_path="/write?precision=s").in_new_cluster()
    assert (peer.host, peer.port, peer.pid) == ("127.0.0.1", listening, os.getpid())
    assert peer.write_path == "/write?precision=s"


def test_every_part_has_a_cluster_of_its_own(listening):
    peer = RunningPeer(f"http://127.0.0.1:{listening}")
    clusters = {peer.in_new_cluster().cluster for _ in range(10)}
    assert len(clusters) == 10
    assert {len(cluster) for cluster in clusters} == {5}


def test_a_process_that_is_not_to_be_seen_has_to_be_named(listening, monkeypatch):
    monkeypatch.setattr(running_peer, "pids_listening_on", lambda port: set())
    with pytest.raises(PeerError, match=f"the process that listens on port {listening} is not to be seen"):
        RunningPeer(f"http://127.0.0.1:{listening}")
    assert RunningPeer(f"http://127.0.0.1:{listening}", pid=os.getpid()).in_new_cluster().pid == os.getpid()


def test_of_several_processes_one_has_to_be_named(listening, monkeypatch):
    monkeypatch.setattr(running_peer, "pids_listening_on", lambda port: {7, 8})
    with pytest.raises(PeerError, match=r"several processes .* \[7, 8\]"):
        RunningPeer(f"http://127.0.0.1:{listening}")


def test_a_process_has_to_exist(listening):
    with pytest.raises(PeerError, match=f"the CPU time of process {PID_MAX} cannot be read"):
        RunningPeer(f"http://127.0.0.1:{listening}", pid=PID_MAX)


@pytest.mark.parametrize("url", ["127.0.0.1:8428", "https://127.0.0.1:8428", "http://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(PeerError, match="is not like http://host:port"):
        RunningPeer(url)


def test_a_peer_has_to_listen():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(PeerError, match="nothing answers"):
        RunningPeer(f"http://127.0.0.1:{port}")


def test_the_cpu_time_of_a_process_is_that_of_all_its_threads():
    before = time.process_time()
    read = process.cpu_seconds(os.getpid())
    assert before <= read <= time.process_time()


def test_a_process_that_is_never_idle_is_not_waited_for_for_ever(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(process, "cpu_seconds", lambda pid: next(clock))
    monkeypatch.setattr(process, "QUIET_SECONDS", 0.001)
    monkeypatch.setattr(process, "QUIET_SECONDS_MAX", 0.02)
    process.wait_until_idle(os.getpid())
    assert next(clock) > 1
