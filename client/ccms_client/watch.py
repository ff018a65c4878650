"""The live tail: samples as they are stored."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ccms.v1.metric_store_service_pb2 import WatchRequest, WatchResponse
from ccms.v1.sample_pb2 import SampleBatch
from ccms_client.connection import Connection
from ccms_client.errors import ServerUnavailableError
from ccms_client.keys import SeriesKey, SeriesMatcher, key_of_definition, matcher_message
from ccms_client.samples import Sample

_Number = TypeVar("_Number", np.uint32, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedSamples:
    """Samples that were stored, in that order."""

    numbers: NDArray[np.uint32]
    """uint32 array of shape (n_samples,): number of each sample's series, which it keeps as long as the watch lasts."""
    timestamps: NDArray[np.int64]
    """int64 array of shape (n_samples,), seconds since the epoch: the times of the slots, as a query returns them."""
    values: NDArray[np.float64]
    """float64 array of shape (n_samples,)."""
    missed: int
    """Samples before these that were not sent, because they were read too slowly."""
    keys: Mapping[int, SeriesKey]
    """Name of the series that each number stands for; shared by all samples of the watch, do not change it."""

    @property
    def series(self) -> list[SeriesKey]:
        """Name of each sample's series."""
        return [self.keys[number] for number in self.numbers.tolist()]

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Sample]:
        """The samples one by one."""
        return map(Sample, self.series, self.timestamps.tolist(), self.values.tolist())


class Watch:
    """Iterates over samples as they are stored; see `AsyncClient.watch`."""

    def __init__(self, connection: Connection, matcher: SeriesMatcher | None) -> None:
        self._connection = connection
        self._request = WatchRequest(matcher=matcher_message(matcher))
        self._responses: AsyncGenerator[WatchResponse, None] | None = None
        self._keys: dict[int, SeriesKey] = {}

    async def __aenter__(self) -> Self:
        """Waits until the watch has begun.

        Raises:
            ClientError: It cannot begin.
        """
        if self._responses is not None:
            raise RuntimeError("this watch has begun already: call `watch` again for another one")
        self._responses = self._connection.stream(self._connection.store.Watch, self._request, float("inf"))
        try:
            if await anext(self._responses, None) is None:
                raise ServerUnavailableError("the server ended the watch before it began")
        except BaseException:
            await self._responses.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the watch; closing again does nothing."""
        if self._responses is not None:
            await self._responses.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchedSamples:
        """The next samples.

        Raises:
            ClientError: The connection is lost, or the server ends.
        """
        if self._responses is None:
            await self.__aenter__()
            assert self._responses is not None
        response = await anext(self._responses)
        for definition in response.samples.new_series:
            self._keys[definition.number] = key_of_definition(definition)
        return _watched(response.samples, response.missed_samples, self._keys)


def _watched(samples: SampleBatch, missed: int, keys: Mapping[int, SeriesKey]) -> WatchedSamples:
    values = np.array(samples.values, np.float64)
    return WatchedSamples(
        numbers=_for_each(np.array(samples.series_numbers, np.uint32), len(values)),
        timestamps=_for_each(np.array(samples.timestamps_seconds, np.int64), len(values)),
        values=values,
        missed=missed,
        keys=keys,
    )


def _for_each(column: NDArray[_Number], n_samples: int) -> NDArray[_Number]:
    """A column with an entry for each sample; a single one is for all of them."""
    return np.full(n_samples, column[0]) if len(column) == 1 != n_samples else column
