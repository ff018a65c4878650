"""Writes that have an id are stored once, and those of a stream in their order."""

import asyncio

import numpy as np
import pytest

from ccms_server.durability.keeper import MemoryKeeper
from ccms_server.durability.known_writes import NameKind, WriteId
from ccms_server.errors import DiskUnavailableError, RejectReason, SequenceGapError
from ccms_server.ingest.batches import LineBatch, NumberedBatch
from ccms_server.ingest.numbered_series import NumberedSeries
from ccms_server.ingest.writer import Writer
from ccms_server.model import SeriesName, WriteReport
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES
from ccms_server.watches import Watches

NOW = 1_700_000_000


class TroubledKeeper(MemoryKeeper):
    """Refuses samples when told to."""

    is_full = False

    def put(self, placements, writes=()):
        if self.is_full:
            raise DiskUnavailableError("No space left on device")
        super().put(placements, writes)


@pytest.fixture
def store():
    return Store([Metric("load", 60)], series_max=100, open_window_bytes=16 * TILE_BYTES)


@pytest.fixture
def keeper(store):
    return TroubledKeeper(store)


@pytest.fixture
def writer(store, keeper):
    return Writer(
        store,
        keeper,
        Watches(store),
        clock=lambda: float(NOW),
        retention_seconds=0,
        kept_from=lambda oldest: oldest,
        future_seconds=3600,
        queue_bytes=1 << 20,
        line_bytes=65536,
    )


@pytest.fixture
async def running(writer):
    task = asyncio.create_task(writer.run())
    yield writer
    writer.close()
    await task


def lines(value, minute=0):
    return LineBatch(f"load,cluster=c,hostname=n value={value} {NOW + 60 * minute}\n".encode(), "")


def request(name="r"):
    return WriteId(NameKind.REQUEST, name, 1)


def batch(number, name="s"):
    return WriteId(NameKind.STREAM, name, number)


def held(store):
    reader, group = store.reader(), store.group(0, ("c", "n"))
    span = reader.span(store.tables[0], group, 0, NOW + 1_000_000)
    return reader.values(store.tables[0], span, None).tolist()


async def test_a_request_that_is_repeated_is_answered_as_before_and_does_nothing(running, store):
    bad = LineBatch(lines(1).payload + b"load,cluster=c value=1\n", "")
    first = await running.write(bad, request())
    await running.write(lines(2))
    again = await running.write(bad, request())
    assert (first.stored, first.already_stored) == (1, False)
    assert (again.stored, again.rejected, again.first_rejected) == (
        1,
        {RejectReason.MISSING_HOST: 1},
        first.first_rejected,
    )
    assert again.already_stored
    assert held(store) == [2.0]
    assert running.counters.stored == 2


async def test_a_request_and_its_repetition_may_be_written_together(writer, store):
    tasks = [asyncio.create_task(writer.write(lines(value), request())) for value in (1, 2)]
    await asyncio.sleep(0)  # both are in the queue before the writer starts
    running = asyncio.create_task(writer.run())
    reports = await asyncio.gather(*tasks)
    assert [report.already_stored for report in reports] == [False, True]
    assert held(store) == [1.0]
    writer.close()
    await running


async def test_requests_without_an_id_or_with_another_one_are_stored(running, store):
    for write_id in (request("a"), request("b"), None, None):
        assert not (await running.write(lines(1), write_id)).already_stored
    assert running.counters.stored == 4


async def test_a_request_that_failed_can_be_sent_again(running, keeper, store):
    keeper.is_full = True
    with pytest.raises(DiskUnavailableError):
        await running.write(lines(1), request())
    keeper.is_full = False
    assert (await running.write(lines(1), request())).stored == 1


async def test_batches_of_a_stream_that_are_repeated_are_stored_once(running, store):
    assert await running.resume("s", 1) == 0
    for number in (1, 2):
        await running.write(lines(number, number), batch(number))
    await running.write(lines(9, 1))
    assert await running.resume("s", 1) == 2
    reports = [await running.write(lines(number, number), batch(number)) for number in (1, 2, 3)]
    assert [report.already_stored for report in reports] == [True, True, False]
    assert held(store) == [9.0, 2.0, 3.0]


async def test_a_stream_that_is_not_known_goes_on_where_its_sender_says(running):
    assert await running.resume("s", 5) == 4
    assert (await running.write(lines(1), batch(5))).stored == 1
    assert await running.resume("s", 6) == 5
    assert await running.resume("s", 8) == 7  # those between were acknowledged, as their sender knows best


async def test_a_batch_does_not_overtake_another_one(running, store):
    await running.resume("s", 1)
    with pytest.raises(SequenceGapError, match="batch 2 cannot be stored before those from 1 on"):
        await running.write(lines(1), batch(2))
    assert running.counters.failed == 0


async def test_batches_behind_one_that_failed_fail_as_well(writer, keeper, store):
    tasks = [asyncio.create_task(writer.write(lines(number), batch(number))) for number in (1, 2)]
    await asyncio.sleep(0)
    keeper.is_full = True
    running = asyncio.create_task(writer.run())
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [DiskUnavailableError, DiskUnavailableError]
    keeper.is_full = False
    with pytest.raises(SequenceGapError):
        await writer.write(lines(3), batch(3))
    for number in (1, 2, 3):
        assert (await writer.write(lines(number, number), batch(number))).stored == 1
    writer.close()
    await running


async def test_batches_behind_one_that_finds_no_place_fail_as_well(writer, store, monkeypatch):
    """They are placed together: a defect costs the batch that has it, those of its stream behind it, and no others."""
    place = store.place

    def fails_for_a_value(series, timestamps, values, **bounds):
        if 2.0 in values:
            raise MemoryError("no more")
        return place(series, timestamps, values, **bounds)

    monkeypatch.setattr(store, "place", fails_for_a_value)
    ids = [batch(1), batch(2), batch(3), batch(1, "other"), None, request()]
    tasks = [asyncio.create_task(writer.write(lines(number + 1, number), name)) for number, name in enumerate(ids)]
    await asyncio.sleep(0)
    running = asyncio.create_task(writer.run())
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        WriteReport, MemoryError, SequenceGapError, WriteReport, WriteReport, WriteReport,
    ]  # fmt: skip
    assert outcomes[2].last == 1
    monkeypatch.setattr(store, "place", place)
    for number in (2, 3):
        report = await writer.write(lines(number, number - 1), batch(number))
        assert (report.stored, report.already_stored) == (1, False)
    assert held(store) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    writer.close()
    await running


async def test_a_repeated_batch_still_defines_its_series_for_those_behind_it(running, store):
    await running.resume("s", 1)

    def numbered(known, value, definitions):
        return NumberedBatch(
            known, definitions, np.zeros(1, np.uint32), np.array([NOW + 60 * int(value)]), np.array([value])
        )

    definition = [(0, SeriesName("load", "c", "n"))]
    await running.write(numbered(NumberedSeries(), 1.0, definition), batch(1))
    known = NumberedSeries()
    assert (await running.write(numbered(known, 1.0, definition), batch(1))).already_stored
    assert (await running.write(numbered(known, 2.0, ()), batch(2))).stored == 1
    assert held(store) == [1.0, 2.0]


async def test_samples_of_numbers_without_a_series_are_counted_and_cost_no_others(running, store):
    names = [(0, SeriesName("load", "c", "n")), (1, SeriesName("nope", "c", "n")), (2, SeriesName("load", "c", ".."))]
    numbers = np.array([0, *[1] * 20, *[2] * 20, 0], np.uint32)
    times = np.full(42, NOW)
    times[-1] += 60
    report = await running.write(NumberedBatch(NumberedSeries(), names, numbers, times, np.arange(42.0)))
    assert report.stored == 2
    assert report.rejected == {RejectReason.UNKNOWN_METRIC: 20, RejectReason.INVALID_NAME: 20}
    assert [rejection.index for rejection in report.first_rejected] == list(range(1, 17))
    assert "'nope' is not configured" in report.first_rejected[0].message
    assert held(store) == [0.0, 41.0]
