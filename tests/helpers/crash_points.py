"""The server, with less time between its chores, and perhaps killed in the middle of one.

`python -m helpers.crash_points [--hurry SECONDS] [--kind KIND --after COUNT [--armed FILE]] -config FILE` maintains the
store every so many seconds. Once FILE exists, it lets COUNT calls of a kind to the operating system pass, and kills
itself, as SIGKILL does, before, in the middle of or after the next one.
"""

import argparse
import os
import random
import signal
import sys
from pathlib import Path
from threading import Lock

from ccms_server.__main__ import main
from ccms_server.durability import disk_keeper, wal
from ccms_server.ingest import writer

CALLS = {
    "commit": ("writev", "fdatasync"),
    "file": ("fsync", "replace", "rename", "unlink", "truncate", "ftruncate", "posix_fallocate", "mkdir"),
}


class CrashPoint:
    """Counts calls, and ends the process at one of them."""

    def __init__(self, after, armed):
        self._left = after
        self._armed = armed
        self._lock = Lock()

    def is_reached(self):
        with self._lock:
            if self._armed is None or self._armed.exists():
                self._left -= 1
            return self._left < 0

    def watch(self, name):
        """Puts a function in the place of one of `os`."""
        call = getattr(os, name)

        def watched(*arguments, **options):
            if not self.is_reached():
                return call(*arguments, **options)
            place = random.choice(("before", "during", "after"))
            if name == "writev" and place == "during":  # the system checks for signals between pages
                content = b"".join(arguments[1])
                os.write(arguments[0], content[: random.randrange(len(content))])
            elif place == "after":
                call(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("never reached")

        setattr(os, name, watched)


def _run():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hurry", type=float, default=0.0)
    parser.add_argument("--kind", choices=CALLS)
    parser.add_argument("--after", type=int, default=0)
    parser.add_argument("--armed", type=Path)
    arguments, rest = parser.parse_known_args()
    if arguments.hurry:
        writer.MAINTENANCE_INTERVAL_SECONDS = arguments.hurry
        disk_keeper.DISK_RETRY_SECONDS = arguments.hurry
        wal.RESERVED_BYTES = 4096  # so that records go beyond it
    if arguments.kind:
        point = CrashPoint(arguments.after, arguments.armed)
        for name in CALLS[arguments.kind]:
            point.watch(name)
    return main(rest)


if __name__ == "__main__":
    sys.exit(_run())
