"""What the gateway needs of the store behind it."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from ccms_server.model import HostHealth, QueryRequest, SeriesAnswers, SeriesExtent, WriteReport

Chunk = TypeVar("Chunk")


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

    def encoded_query(
        self, request: QueryRequest, encode: Callable[[Iterator[SeriesAnswers]], Iterator[Chunk]]
    ) -> AsyncGenerator[Chunk, None]:
        """Answers a query with what is made of it, on the thread that reads.

        Args:
            request: What to answer.
            encode: Makes something of the chunks of the answer, one after another: they are of bounded size, and
                ordered by query and by series within the query.

        Raises:
            RequestError: Before anything is made, when the answer would be larger than allowed.
            NotReadyError: Before anything is made, while the store is starting or stopping.
        """
        ...

    async def free(self, path: Sequence[str], before: int) -> int:
        """Drops the samples of a subtree that are older than a time; a level that does not exist stays so.

        Args:
            path: Cluster, host, component and sub-component, or the beginning of these; empty for everything.
            before: Seconds.

        Returns:
            Number of series that lost samples. See `write_lines` for the errors.
        """
        ...

    def series_extents(self, path: Sequence[str]) -> AsyncGenerator[list[SeriesExtent], None]:
        """The series at a level and below it that have samples, in chunks of bounded size.

        A level's own series come first, then those of each of its children.

        Args:
            path: As in `free`.

        Raises:
            NotFoundError: Before the first chunk: there is no such level.
            NotReadyError: Before the first chunk: the store is starting or stopping.
        """
        ...

    async def host_health(self, cluster: str, hosts: Sequence[str], metrics: Sequence[str]) -> list[HostHealth]:
        """Which metrics of hosts arrive, in the order of `hosts`.

        Raises:
            NotReadyError: The store is starting or stopping.
        """
        ...
