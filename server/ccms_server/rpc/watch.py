"""`Watch`: what the service keeps for a client, as messages of bounded size."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Final

import numpy as np

from ccms.v1.metric_store_service_pb2 import WatchRequest, WatchResponse
from ccms.v1.sample_pb2 import Component, SampleBatch, SeriesDefinition, SeriesSelector
from ccms_server.errors import NotReadyError
from ccms_server.model import SeriesName
from ccms_server.rpc.columns import set_packed
from ccms_server.rpc.matcher import read_matcher
from ccms_server.service import MetricService
from ccms_server.watches import Watch, WatchedSamples

SAMPLES_MAX: Final = 16_384
"""Samples in one message."""
NEW_SERIES_MAX: Final = 2_048
"""Samples in one message as long as there may be series among them that the client does not know."""


async def watch(service: MetricService, request: WatchRequest) -> AsyncGenerator[WatchResponse, None]:
    """Sends samples as they are stored, until the client goes away.

    Raises:
        RequestError: The selection breaks a rule, or has come to more series than may be watched.
        NotReadyError: The server is starting or stopping.
    """
    arrived = asyncio.Event()
    draining = asyncio.create_task(service.draining.wait())
    draining.add_done_callback(lambda _: arrived.set())
    try:
        async with service.watching(read_matcher(request.matcher), arrived) as watched:
            yield WatchResponse()
            told = _Told(watched)
            while not service.draining.is_set():
                await arrived.wait()
                arrived.clear()
                samples, missed = watched.take()
                if samples is not None:
                    for batch in told.batches(samples):
                        yield WatchResponse(samples=batch)
                if missed:
                    yield WatchResponse(missed_samples=missed)
        raise NotReadyError("stopping")
    finally:
        draining.cancel()


class _Told:
    """Knows which series the client has been told of."""

    def __init__(self, watched: Watch) -> None:
        self._watched = watched
        self._is_told = np.zeros(1024, np.bool_)

    def batches(self, samples: WatchedSamples) -> Iterator[SampleBatch]:
        """Messages for samples, with definitions of series that are new to the client."""
        n_series = len(self._watched.names)
        if n_series > len(self._is_told):
            grown = np.zeros(2 * n_series, np.bool_)
            grown[: len(self._is_told)] = self._is_told
            self._is_told = grown
        first = 0
        while first < len(samples.numbers):
            size = SAMPLES_MAX if self._is_told[samples.numbers[first : first + SAMPLES_MAX]].all() else NEW_SERIES_MAX
            yield self._batch(samples.some(slice(first, first + size)))
            first += size

    def _batch(self, samples: WatchedSamples) -> SampleBatch:
        new = np.unique(samples.numbers[~self._is_told[samples.numbers]])
        self._is_told[new] = True
        names = self._watched.names
        batch = SampleBatch(new_series=[_definition(number, names[number]) for number in new.tolist()])
        set_packed(batch, SampleBatch.SERIES_NUMBERS_FIELD_NUMBER, samples.numbers.astype("<u4"))
        set_packed(batch, SampleBatch.TIMESTAMPS_SECONDS_FIELD_NUMBER, samples.timestamps.astype("<i8"))
        set_packed(batch, SampleBatch.VALUES_FIELD_NUMBER, samples.values.astype("<f8"))
        return batch


def _definition(number: int, name: SeriesName) -> SeriesDefinition:
    # Where the type of a component ends and its id begins is not known any more; run together, they name it as well.
    return SeriesDefinition(
        number=number,
        metric=name.metric,
        selector=SeriesSelector(
            cluster=name.cluster,
            host=name.host,
            component=Component(type=name.component) if name.component else None,
            subcomponent=Component(type=name.subcomponent) if name.subcomponent else None,
        ),
    )
