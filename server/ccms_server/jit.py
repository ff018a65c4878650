"""The one way a kernel is compiled here: without the GIL, and kept on disk for the next start.

numba notices when the file of a kernel changes, but not when a constant or another kernel does that was compiled into
it. So machine code is kept in a folder named after the text of everything kernels are made of.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
from numba.core import event
from numba.core.caching import NullCache

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., object])

PACKAGE: Final = Path(__file__).parent
SOURCE_PATTERNS: Final = (
    "jit.py",
    "errors.py",
    "model.py",
    "names.py",
    "answer_*.py",
    "rpc/part_kernels.py",
    "store/*.py",
    "ingest/*.py",
    "durability/*.py",
)
"""Where kernels and what they refer to are defined."""
SOURCES: Final = frozenset(path for pattern in SOURCE_PATTERNS for path in PACKAGE.glob(pattern))
FOLDER_PREFIX: Final = "kernels-"

_kernels: Final[list[Any]] = []


class NotKeptError(Exception):
    """A kernel was called whose machine code is not on disk."""


def kernel(function: Function) -> Function:
    """Compiles a function over plain arrays and numbers with numba, when it is first called.

    Division follows numpy: no exception for a zero divisor.

    It is compiled for each combination of types it is called with, and to numba a constant is a type of its own, as is
    a variable whose first value is one: `get(data, 0)` in a kernel compiles `get` once more. Where the callee is large,
    pass what was computed, or `np.int64(0)`.
    """
    if IS_KEPT and Path(function.__code__.co_filename) not in SOURCES:
        raise AssertionError(f"kept machine code would outlive changes of {function.__code__.co_filename}")
    njit = cast("Any", numba.njit)  # its types leave out the last option
    # Without a second entry point, for C, which takes time to compile and which nobody calls.
    compiled = njit(nogil=True, cache=IS_KEPT, error_model="numpy", no_cfunc_wrapper=True)(function)
    _kernels.append(compiled)
    return cast("Function", compiled)


def number_of_kernels() -> int:
    """How many kernels there are, compiled or not."""
    return len(_kernels)


@contextmanager
def refusing_to_compile() -> Iterator[None]:
    """Makes kernels raise NotKeptError that would have to be compiled; those on disk are loaded."""
    with event.install_listener("numba:compile", _Refusing()):
        yield


@contextmanager
def telling_what_is_compiled(tell: Callable[[str], None]) -> Iterator[None]:
    """Calls a function with the name of each kernel that has been compiled."""
    with event.install_listener("numba:compile", _Telling(tell)):
        yield


def forget_kept() -> None:
    """Removes what is kept of all kernels.

    Raises:
        OSError: It cannot be removed.
    """
    for folder in {compiled._cache.cache_path for compiled in _kernels} - {None}:  # noqa: SLF001  numba has no other way
        shutil.rmtree(folder)


def keep_no_more() -> None:
    """What is compiled from now on is not kept: the folder may not be ours to write to any more, or have no room."""
    for compiled in _kernels:
        compiled._cache = NullCache()  # noqa: SLF001  numba has no other way


class _Refusing(event.Listener):
    def on_start(self, event: Any) -> None:  # noqa: ANN401
        raise NotKeptError(event.data["dispatcher"].py_func.__qualname__)

    def on_end(self, event: Any) -> None:  # noqa: ANN401
        pass


class _Telling(event.Listener):
    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def on_start(self, event: Any) -> None:  # noqa: ANN401
        pass

    def on_end(self, event: Any) -> None:  # noqa: ANN401
        compiled = event.data["dispatcher"]
        if compiled in _kernels:  # rather than a part of numba
            function = compiled.py_func
            self._tell(f"{function.__module__}.{function.__qualname__}")


def _keep_machine_code() -> bool:
    """Tells numba where to keep machine code; whether there is such a place."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    for parent in [Path(given)] if given else [PACKAGE / "__pycache__", _user_cache() / "cc-metric-store"]:
        folder = parent / f"{FOLDER_PREFIX}{_fingerprint()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # a read-only installation, or a user without a home
            continue
        if os.access(folder, os.W_OK):
            for outdated in parent.glob(f"{FOLDER_PREFIX}*"):
                if outdated != folder:
                    shutil.rmtree(outdated, ignore_errors=True)
            numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
            return True
    logger.warning("no folder to keep compiled code in: every start will compile; set NUMBA_CACHE_DIR to one")
    return False


def _user_cache() -> Path:
    home = os.path.expanduser("~")  # noqa: PTH111  pathlib raises where there is no home
    return Path(os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache")


def _fingerprint() -> str:
    """Identifies the text of all sources, and how they are compiled."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr((numba.__version__, numba.config.BOUNDSCHECK)).encode())  # type: ignore[attr-defined]
    for path in sorted(SOURCES):
        digest.update(path.read_bytes())
    return digest.hexdigest()


IS_KEPT: Final = _keep_machine_code()
"""Whether there is a place for machine code."""
