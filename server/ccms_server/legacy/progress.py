"""Progress of a long import: a bar where somebody watches, else a line in the log now and then."""

import logging
import sys
from contextlib import ExitStack
from time import monotonic
from types import TracebackType
from typing import Final, Self

from ccms_server.notify import notify

logger = logging.getLogger(__name__)

LOG_SECONDS: Final = 5.0
"""Time between two lines of the log, and between two requests to the service manager for more time."""
BAR_SECONDS: Final = 0.1
"""Time between two pictures of the bar."""
EXTENDED_MICROSECONDS: Final = 60_000_000
"""Time that the service manager is asked for, each time."""


class Progress:
    """Says how far an import is; as a context manager, it shows a bar on a terminal."""

    def __init__(self, n_files: int, n_bytes: int) -> None:
        """Begins at nothing.

        Args:
            n_files: Files that are to be read.
            n_bytes: Their size.
        """
        self._n_files = n_files
        self._n_bytes = n_bytes
        self._begin = monotonic()
        self._next_log = self._begin + LOG_SECONDS
        self._next_bar = 0.0
        self._stack = ExitStack()
        self._bar: _Bar | None = None

    def __enter__(self) -> Self:
        """Shows the bar, if somebody sees it."""
        if sys.stderr.isatty():
            self._bar = self._stack.enter_context(_Bar(self._n_files, self._n_bytes))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the bar."""
        self._stack.close()

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return monotonic() - self._begin

    def show(self, n_files: int, n_bytes: int, n_samples: int) -> None:
        """Shows how much is done, if it is time to.

        Args:
            n_files: Files that were read.
            n_bytes: Their size.
            n_samples: Samples that were stored.
        """
        now, rate = monotonic(), n_samples / max(self.seconds, 1e-9)
        if self._bar is not None and now >= self._next_bar:
            self._next_bar = now + BAR_SECONDS
            self._bar.show(n_files, n_bytes, rate)
        if now < self._next_log:
            return
        self._next_log = now + LOG_SECONDS
        notify(f"EXTEND_TIMEOUT_USEC={EXTENDED_MICROSECONDS}")
        if self._bar is None:
            left = self.seconds * (self._n_bytes - n_bytes) / n_bytes if n_bytes else 0.0
            logger.info(
                "importing: %s of %s files, %s samples, %s a second%s",
                f"{n_files:,}",
                f"{self._n_files:,}",
                f"{n_samples:,}",
                f"{rate:,.0f}",
                f", some {left:,.0f} s left" if left else "",
            )


class _Bar:
    """The bar."""

    def __init__(self, n_files: int, n_bytes: int) -> None:
        from rich import progress  # takes a moment: only where somebody watches
        from rich.console import Console

        self._n_files = n_files
        self._progress = progress.Progress(
            progress.TextColumn("importing"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[files]} files, {task.fields[rate]} samples/s"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,  # it would take a thread
            transient=True,
        )
        self._task = self._progress.add_task("", total=n_bytes, files=f"0/{n_files:,}", rate="0")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, n_files: int, n_bytes: int, rate: float) -> None:
        files = f"{n_files:,}/{self._n_files:,}"
        self._progress.update(self._task, completed=n_bytes, files=files, rate=f"{rate:,.0f}", refresh=True)
