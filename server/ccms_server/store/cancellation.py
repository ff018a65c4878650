"""Telling a thread that nobody waits for what it does."""


class CancelledReadError(Exception):
    """Nobody waits for what is being read. Seen by whoever cancelled it, and by nobody else."""


class Cancellation:
    """Is set on one thread, and looked at on another one now and then.

    Attributes:
        is_set: Whether nobody waits any more.
    """

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False

    def check(self) -> None:
        """Goes on only when somebody waits.

        Raises:
            CancelledReadError: Nobody does.
        """
        if self.is_set:
            raise CancelledReadError
