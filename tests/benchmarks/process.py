"""What the system says of a process: its CPU time, its memory, and which one listens on a port."""

import time
from collections.abc import Iterator
from pathlib import Path

QUIET_SECONDS = 0.15
QUIET_CPU_SECONDS = 0.005
"""A process that uses no more in QUIET_SECONDS has nothing to do."""
QUIET_SECONDS_MAX = 30
"""After so long a process is taken for one that always has something to do."""

_LISTENING = "0A"
"""State of a listening socket in /proc/net/tcp."""


def cpu_seconds(pid: int) -> float:
    """CPU time a process has used so far, user and system, to the nanosecond (/proc/PID/stat counts in 10 ms)."""
    return time.clock_gettime(_cpu_clock(pid))


def rss_megabytes(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def wait_until_idle(pid: int) -> None:
    """Returns once a process has used (almost) no CPU time for a while: what it was sent is done."""
    last, until = cpu_seconds(pid), time.monotonic() + QUIET_SECONDS_MAX
    while time.monotonic() < until:
        time.sleep(QUIET_SECONDS)
        now = cpu_seconds(pid)
        if now - last < QUIET_CPU_SECONDS:
            break
        last = now


def pids_listening_on(port: int) -> set[int]:
    """Processes that listen on a TCP port of this machine, as far as this user may see them; usually one."""
    inodes = set(_listening_inodes(port))
    return {
        int(path.parts[2])
        for path in _open_files()
        if path.parts[2].isdecimal() and _target(path) in {f"socket:[{inode}]" for inode in inodes}
    }


def _cpu_clock(pid: int) -> int:
    """The clock of a process's CPU time, as clock_getcpuclockid(3) makes it on Linux."""
    return ~pid << 3 | 2


def _listening_inodes(port: int) -> Iterator[str]:
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if table.exists():
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, *_ = fields = line.split()
                if state == _LISTENING and int(local.rsplit(":", 1)[1], 16) == port:
                    yield fields[9]


def _open_files() -> Iterator[Path]:
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            yield from folder.iterdir()
        except OSError:  # it has ended, or belongs to another user
            continue


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # closed meanwhile
        return ""
