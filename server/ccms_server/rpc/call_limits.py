"""How many calls may be open at the same time, by kind: those that stay take no place from those that come and go."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ccms.v1.metric_store_service_pb2 import DESCRIPTOR
from ccms_server.errors import TooManyCallsError

_SERVICE: Final = DESCRIPTOR.services_by_name["MetricStoreService"].full_name

WRITE_STREAMS_MAX: Final = 4096
"""One for each collector."""
WATCHES_MAX: Final = 64
"""Each is told of every sample it selects."""
OTHER_CALLS_MAX: Final = 256
"""Those that watch the health among them."""
CALLS_MAX: Final = 8192
"""Beyond so many, gRPC itself refuses calls: more than all limits together, so that refused ones are told why."""


class Places:
    """Places for calls of one kind.

    Attributes:
        limit: Calls there may be at the same time.
        taken: Calls there are.
    """

    def __init__(self, what: str, limit: int) -> None:
        """Makes free places.

        Args:
            what: The calls, for messages.
            limit: How many.
        """
        self.limit = limit
        self.taken = 0
        self._what = what

    def check(self) -> None:
        """Does nothing if a place is free.

        Raises:
            TooManyCallsError: None is.
        """
        if self.taken >= self.limit:
            raise TooManyCallsError(self._what, self.limit)

    @contextmanager
    def one_taken(self) -> Iterator[None]:
        """Takes a place while the context lasts.

        Raises:
            TooManyCallsError: None is free.
        """
        self.check()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class CallLimits:
    """The places of all kinds of calls."""

    def __init__(
        self,
        *,
        write_streams: int = WRITE_STREAMS_MAX,
        watches: int = WATCHES_MAX,
        others: int = OTHER_CALLS_MAX,
    ) -> None:
        """Makes free places.

        Args:
            write_streams: Calls of `WriteStream`.
            watches: Calls of `Watch`.
            others: All other calls.
        """
        self._by_method = {
            f"/{_SERVICE}/WriteStream": Places("calls of WriteStream", write_streams),
            f"/{_SERVICE}/Watch": Places("calls of Watch", watches),
        }
        self._others = Places("calls other than WriteStream and Watch", others)

    def places(self, method: str) -> Places:
        """Where calls of `/package.Service/Method` take their place."""
        return self._by_method.get(method, self._others)
