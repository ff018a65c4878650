"""Compiling in processes of their own, each of which leaves machine code on disk.

Within a process, a lock lets one thread compile at a time, and what the compiler takes for it stays taken: more than
100 MB, for good.

Such a process ends with the one that started it: it is killed when that one gives up, and ends by itself when its
input does, as it does however the other one ends.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from subprocess import PIPE, STDOUT, Popen
from threading import Lock, Thread
from time import monotonic
from typing import Final

from ccms_server.errors import reason_of
from ccms_server.jit import IS_KEPT, number_of_kernels, telling_what_is_compiled

logger = logging.getLogger(__name__)

PROGRESS_SECONDS: Final = 3.0
"""Time from one message about the progress to the next."""

SECONDS_MAX: Final = 300.0
"""Time to compile, many times of what it takes; a process that needs longer hangs."""

_COMPILED: Final = "compiled "
"""What a process writes in front of the name of a kernel. Whatever else it writes is about a failure."""

_FAILED: Final = "compiling in another process failed, which makes the start slower: %s"


async def compile_in_processes(modules: Iterable[Sequence[str]]) -> None:
    """Runs modules that compile and keep kernels, all at the same time, and tells how far they are.

    A process that fails costs time and nothing else: who calls a kernel that is missing compiles it then. None is left
    when this returns, or is cancelled.

    Args:
        modules: Name and arguments of each; it compiles within `compiling_for_parent`.
    """
    if not IS_KEPT:  # what they compile would be lost
        return
    progress = _Progress()
    try:
        async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as tasks:
            for module in modules:
                tasks.create_task(progress.follow([sys.executable, "-P", "-m", *module]))
    except TimeoutError:
        logger.warning(_FAILED, f"it took longer than {SECONDS_MAX:g} s")


@contextmanager
def compiling_for_parent() -> Iterator[None]:
    """Tells the process that started this one which kernels have been compiled, and ends this one when that one ends.

    Precondition: the other one keeps standard input open.
    """

    def tell(kernel: str) -> None:
        sys.stdout.write(f"{_COMPILED}{kernel}\n")
        sys.stdout.flush()

    Thread(target=_end_with_input, name="end", daemon=True).start()
    with telling_what_is_compiled(tell):
        yield


def _end_with_input() -> None:
    # Unbuffered: a thread that waits in a buffered read holds a lock, which the end of the interpreter stumbles over.
    while os.read(0, 1):
        pass
    os._exit(1)


def _started(command: Sequence[str]) -> Popen[str]:
    """Starts a process that compiles. Not asyncio's way: uvloop forks this process, which gRPC complains about.

    Raises:
        OSError: There is no such program, or no room for it.
    """
    return Popen(
        command,
        # It finds the modules that this process would find, and nothing in the current directory besides.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=PIPE,  # nothing is written to it: see `compiling_for_parent`
        stdout=PIPE,
        stderr=STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C is for the server, which ends it
    )


class _Progress:
    """What several processes have compiled."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kernels: set[str] = set()
        self._told = monotonic()

    async def follow(self, command: Sequence[str]) -> None:
        """Runs a process to its end, which is now when this is cancelled; logs why if it fails."""
        try:
            process = _started(command)
        except OSError as error:
            logger.warning(_FAILED, reason_of(error))
            return
        with process:
            try:
                complaint = await asyncio.to_thread(self._read, process)
            finally:
                process.kill()  # nothing if it has ended
        if process.returncode:
            logger.warning(_FAILED, complaint or f"it ended with {process.returncode}")

    def _read(self, process: Popen[str]) -> str:
        """Takes note of what a process writes until it ends; returns the last line that is not about progress."""
        assert process.stdout is not None
        complaint = ""
        for line in process.stdout:
            if line.startswith(_COMPILED):
                self._add(line.removeprefix(_COMPILED).strip())
            else:
                complaint = line.strip() or complaint
        process.wait()
        return complaint

    def _add(self, kernel: str) -> None:
        with self._lock:
            self._kernels.add(kernel)
            if monotonic() - self._told >= PROGRESS_SECONDS:
                self._told = monotonic()
                logger.info("compiled %d of %d kernels", len(self._kernels), number_of_kernels())
