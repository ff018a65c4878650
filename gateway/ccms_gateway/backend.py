"""What the gateway needs of the store behind it."""

from collections.abc import AsyncGenerator
from typing import Protocol

from ccms_server.model import QueryRequest, SeriesAnswer, WriteReport


class Backend(Protocol):
    """A store in this process, or somewhere else: whatever takes lines in and answers queries."""

    async def write_lines(self, payload: bytes, default_cluster: str) -> WriteReport:
        """Stores a batch of line protocol and returns once it is stored.

        Args:
            payload: UTF-8 text, one sample a line.
            default_cluster: Cluster of lines without a `cluster` tag; empty: such lines are rejected.

        Raises:
            RequestError: The batch is larger than allowed.
            QueueFullError: The store is behind.
            NotReadyError: The store is starting or stopping.
        """
        ...

    def query(self, request: QueryRequest) -> AsyncGenerator[list[SeriesAnswer], None]:
        """Answers a query in chunks of bounded size, ordered by query and by series within the query.

        Raises:
            RequestError: Before the first chunk, when the answer would be larger than allowed.
            NotReadyError: Before the first chunk, while the store is starting or stopping.
        """
        ...
