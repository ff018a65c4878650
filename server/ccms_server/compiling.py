"""Compiling in processes of their own, each of which leaves machine code on disk.

Within a process, a lock lets one thread compile at a time, and what the compiler takes for it stays taken: more than
100 MB, for good.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Final

from ccms_server.jit import IS_KEPT, number_of_kernels, telling_what_is_compiled

logger = logging.getLogger(__name__)

PROGRESS_SECONDS: Final = 3.0
"""Time from one message about the progress to the next."""

_COMPILED: Final = "compiled "
"""What a process writes in front of the name of a kernel. Whatever else it writes is about a failure."""


def compile_in_processes(modules: Iterable[Sequence[str]]) -> None:
    """Runs modules that compile and keep kernels, all at the same time, and tells how far they are.

    A process that fails costs time and nothing else: who calls a kernel that is missing compiles it then.

    Args:
        modules: Name and arguments of each; it compiles within `telling_progress`.
    """
    if not IS_KEPT:  # what they compile would be lost
        return
    progress = _Progress()
    commands = [[sys.executable, "-P", "-m", *module] for module in modules]
    with ThreadPoolExecutor(len(commands)) as threads:
        for _ in threads.map(progress.follow, commands):
            pass


@contextmanager
def telling_progress() -> Iterator[None]:
    """Tells the process that started this one which kernels have been compiled."""

    def tell(kernel: str) -> None:
        sys.stdout.write(f"{_COMPILED}{kernel}\n")
        sys.stdout.flush()

    with telling_what_is_compiled(tell):
        yield


class _Progress:
    """What several processes have compiled."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kernels: set[str] = set()
        self._told = monotonic()

    def follow(self, command: Sequence[str]) -> None:
        """Runs a process to its end; logs why if it fails."""
        complaint = ""
        try:
            with subprocess.Popen(
                command,
                # It finds the modules that this process would find, and nothing in the current directory besides.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C is for the server, which waits for it
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith(_COMPILED):
                        self._add(line.removeprefix(_COMPILED).strip())
                    else:
                        complaint = line.strip() or complaint
            if not process.returncode:
                return
            complaint = complaint or f"it ended with {process.returncode}"
        except OSError as error:
            complaint = error.strerror or str(error)
        logger.warning("compiling in another process failed, which makes the start slower: %s", complaint)

    def _add(self, kernel: str) -> None:
        with self._lock:
            self._kernels.add(kernel)
            if monotonic() - self._told >= PROGRESS_SECONDS:
                self._told = monotonic()
                logger.info("compiled %d of %d kernels", len(self._kernels), number_of_kernels())
