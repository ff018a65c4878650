"""The client for scripts and notebooks: that of asyncio, behind methods that wait."""

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ccms_client.blocking import Blocking, blocking, iterating, making
from ccms_client.client import AsyncClient
from ccms_client.event_loop_thread import EventLoopThread
from ccms_client.keys import SeriesKey
from ccms_client.samples import Sample, WriteResult
from ccms_client.stream_writer import StreamWriter
from ccms_client.tls import Tls
from ccms_client.watch import Watch, WatchedSamples


class BlockingStreamWriter(Blocking[StreamWriter]):
    """A `StreamWriter` whose methods wait. A thread sends what it has taken, while the caller does other things."""

    @property
    def stream_id(self) -> str:
        """What the stream is called."""
        return self._inner.stream_id

    @property
    def result(self) -> WriteResult:
        """What became of the samples that are acknowledged."""
        return self._inner.result

    @property
    def unreported_samples(self) -> int:
        """See `StreamWriter`."""
        return self._inner.unreported_samples

    def __enter__(self) -> Self:
        self._thread.run(self._inner.__aenter__())
        return self

    def __exit__(
        self,
        error_class: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.run(self._inner.__aexit__(error_class, error, traceback))

    def define(self, keys: Sequence[SeriesKey]) -> NDArray[np.uint32]:
        """See `StreamWriter.define`."""

        async def defined() -> NDArray[np.uint32]:
            return self._inner.define(keys)

        return self._thread.run(defined())

    def write_all(self, samples: Iterable[Sample]) -> None:
        """Writes samples one after another, as they come; see `StreamWriter.write_all`."""
        for chunk in self._inner.chunks(samples):  # here, so that an iterable that waits does not hold up the thread
            self.write(*chunk)

    write = blocking(StreamWriter.write)
    write_numbers = blocking(StreamWriter.write_numbers)
    write_columns = blocking(StreamWriter.write_columns)
    write_lines = blocking(StreamWriter.write_lines)
    flush = blocking(StreamWriter.flush)


class BlockingWatch(Blocking[Watch]):
    """A `Watch` that waits for samples."""

    def __enter__(self) -> Self:
        self._thread.run(self._inner.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch; closing again does nothing."""
        self._thread.run(self._inner.aclose())

    def __iter__(self) -> Iterator[WatchedSamples]:
        return self

    __next__ = blocking(Watch.__anext__)


class Client(Blocking[AsyncClient]):
    """Writes samples to a server and reads them; each method does what that of `AsyncClient` does, and waits for it.

    It may be used by several threads at once. Ctrl-C ends a call.

    >>> from ccms_client import Client, queries_of
    >>> client = Client(address)
    >>> result = client.query("emmy", 1608923076, 1608926676, queries_of(["rapl_power", "mem_bw"], ["e0102", "e0103"]))
    >>> result.raise_for_errors()
    >>> result.to_pandas()["rapl_power"].mean().round(1).tolist()
    [221.9, 224.7]
    >>> client.close()
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        token_file: str | PathLike[str] | None = None,
        tls: Tls | None = None,
        compression: bool = False,
        retries: bool = True,
        deadline_seconds: float | None = None,
    ) -> None:
        """Makes a client, with the arguments of `AsyncClient`, and a thread for it."""
        client = AsyncClient(
            address,
            token=token,
            token_file=token_file,
            tls=tls,
            compression=compression,
            retries=retries,
            deadline_seconds=deadline_seconds,
        )
        super().__init__(client, EventLoopThread(f"ccms_client {address}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancels the calls that run, and closes the connection for good; closing again does nothing."""
        if self._thread.is_open:
            self._thread.run(self._inner.close())
            self._thread.close()

    write = blocking(AsyncClient.write)
    write_lines = blocking(AsyncClient.write_lines)
    writer = making(AsyncClient.writer, BlockingStreamWriter)

    query = blocking(AsyncClient.query)
    stream = iterating(AsyncClient.stream)
    stream_parts = iterating(AsyncClient.stream_parts)
    watch = making(AsyncClient.watch, BlockingWatch)

    clusters = iterating(AsyncClient.clusters)
    hosts = iterating(AsyncClient.hosts)
    components = iterating(AsyncClient.components)
    metrics = iterating(AsyncClient.metrics)
    series = iterating(AsyncClient.series)

    free = blocking(AsyncClient.free)
    dump = iterating(AsyncClient.dump)
    host_health = blocking(AsyncClient.host_health)
    checkpoint = blocking(AsyncClient.checkpoint)
    status = blocking(AsyncClient.status)
