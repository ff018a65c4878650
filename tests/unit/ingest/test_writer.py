"""The writer between its senders and a real store."""

import asyncio
import math

import numpy as np
import pytest
from helpers.waiting import eventually

from ccms_server.durability.keeper import MemoryKeeper
from ccms_server.errors import DiskUnavailableError, NotReadyError, QueueFullError, RejectReason
from ccms_server.ingest import placing, writer_thread
from ccms_server.ingest.batches import OVERHEAD_BYTES, ColumnBatch, LineBatch
from ccms_server.ingest.placing import DECODERS_MAX
from ccms_server.ingest.writer import Writer
from ccms_server.model import REJECTIONS_KEPT_MAX, SampleColumn, SeriesName
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES
from ccms_server.watches import Watches

NOW = 1_700_000_000
HOUR = 3600
QUEUE_BYTES = 10_000


class Clock:
    def __init__(self):
        self.now = float(NOW)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store():
    return Store([Metric("load", 60)], series_max=100, open_window_bytes=16 * TILE_BYTES)


@pytest.fixture
def writer(store, clock):
    return Writer(
        store,
        MemoryKeeper(store),
        Watches(store),
        clock=clock,
        retention_seconds=48 * HOUR,
        kept_from=lambda oldest: oldest,
        future_seconds=HOUR,
        queue_bytes=QUEUE_BYTES,
        line_bytes=65536,
    )


@pytest.fixture
async def running(writer):
    task = asyncio.create_task(writer.run())
    yield writer
    writer.close()
    await task


def line(value, time=NOW, host="n1"):
    return f"load,cluster=c,hostname={host} value={value} {time}\n".encode()


def column(values, **changes):
    name = {"metric": "load", "cluster": "c", "host": "n1"}
    name |= {key: changes.pop(key) for key in list(changes) if key in SeriesName._fields}
    return SampleColumn(**{"series": SeriesName(**name), "start": NOW, "values": np.array(values, float)} | changes)


async def test_a_report_comes_when_the_samples_can_be_read(running, store):
    report = await running.write(LineBatch(line(1) + b"nonsense\n" + line(2, NOW + 60), ""))
    assert (report.stored, report.ignored, report.rejected) == (2, 1, {})
    assert len(store.group(0, ("c", "n1"))) == 1
    assert running.counters.stored == 2


async def test_rejections_of_decoder_and_store_are_merged_in_order_of_their_lines(running):
    payload = line(1, NOW - 50 * HOUR) + b"load value=1\n" + line(2) + line(3, NOW + 2 * HOUR)
    report = await running.write(LineBatch(payload, ""))
    assert report.stored == 1
    assert report.rejected == {RejectReason.TOO_OLD: 1, RejectReason.MISSING_HOST: 1, RejectReason.TOO_NEW: 1}
    assert [rejection.index for rejection in report.first_rejected] == [1, 2, 4]


async def test_a_sample_past_the_retention_is_told_both_times(running):
    report = await running.write(LineBatch(line(1, NOW - 49 * HOUR), ""))
    [rejection] = report.first_rejected
    assert str(NOW - 49 * HOUR) in rejection.message
    assert str(NOW - 48 * HOUR) in rejection.message
    assert "2023-11-12T" in rejection.message


@pytest.mark.parametrize(("held_hours", "is_kept"), [(0, False), (200, True)])
async def test_windows_past_the_retention_are_dropped_unless_they_are_held(
    running, clock, store, monkeypatch, held_hours, is_kept
):
    monkeypatch.setattr(writer_thread, "MAINTENANCE_INTERVAL_SECONDS", 0.001)
    asked = []

    def kept_from(oldest):
        asked.append(oldest)
        return oldest - held_hours * HOUR

    running._thread._kept_from = kept_from
    await running.write(LineBatch(line(1), ""))
    clock.now += 100 * HOUR
    await running.write(LineBatch(line(2, int(clock.now)), ""))
    asked.clear()
    await eventually(lambda: len(asked) > 2, "maintenance, twice to its end")
    assert asked[0] == clock.now - 48 * HOUR
    assert len(store.tables[0].windows) == 1 + is_kept


async def test_lines_of_a_metric_are_stored_from_when_it_is_configured(running, store):
    power = b"power,cluster=c,hostname=n1 value=7 1700000000\n"
    assert (await running.write(LineBatch(power, ""))).ignored == 1
    await running.configure([Metric("power", 10)])
    assert (await running.write(LineBatch(power, ""))).stored == 1
    assert store.tables[store.metric_id("power")].metric == Metric("power", 10)


async def test_a_flood_of_rejections_is_counted_and_partly_explained(running):
    report = await running.write(ColumnBatch([column(np.ones(5000), start=NOW - 10_000 * HOUR)]))
    assert report.rejected == {RejectReason.TOO_OLD: 5000}
    assert [rejection.index for rejection in report.first_rejected] == list(range(REJECTIONS_KEPT_MAX))


async def test_columns_with_their_own_times_and_with_regular_ones(running, store):
    report = await running.write(
        ColumnBatch(
            [
                column([1, 2, np.nan, 4]),
                column([9], host="n2", timestamps=np.array([NOW + 120])),
                column([5, 6], host="n3", component="socket0", subcomponent="dimm1", interval=600),
            ]
        )
    )
    assert (report.stored, report.ignored) == (6, 1)
    reader, table = store.reader(), store.tables[0]
    span = reader.span(table, store.group(0, ("c", "n3", "socket0", "dimm1")), NOW, NOW + HOUR)
    assert np.isfinite(reader.values(table, span, None)).nonzero()[0].tolist() == [0, 10]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metric": "nope"}, RejectReason.UNKNOWN_METRIC),
        ({"cluster": ""}, RejectReason.MISSING_CLUSTER),
        ({"host": ""}, RejectReason.MISSING_HOST),
        ({"host": ".."}, RejectReason.INVALID_NAME),
        ({"component": "a\x00"}, RejectReason.INVALID_NAME),
        ({"component": "\ud800"}, RejectReason.INVALID_NAME),
        ({"timestamps": np.array([NOW])}, RejectReason.LENGTH_MISMATCH),
        ({"interval": 1 << 62}, RejectReason.INVALID_TIMESTAMP),
        ({"start": -(1 << 63), "interval": -1}, RejectReason.INVALID_TIMESTAMP),
    ],
)
async def test_a_column_that_cannot_be_stored_costs_no_other(running, changes, reason):
    report = await running.write(ColumnBatch([column([1, 2], **changes), column([3])]))
    assert report.rejected == {reason: 2}
    assert report.stored == 1
    assert [rejection.index for rejection in report.first_rejected] == [0, 1]


async def test_times_without_values_are_rejected_one_by_one(running):
    mismatched = column([], timestamps=np.array([NOW, NOW + 60]))
    report = await running.write(ColumnBatch([mismatched, column([1], host="..")]))
    assert report.stored == 0
    assert report.rejected == {RejectReason.LENGTH_MISMATCH: 2, RejectReason.INVALID_NAME: 1}
    assert [rejection.index for rejection in report.first_rejected] == [0, 1, 2]


async def test_a_column_without_samples_does_nothing(running, store):
    report = await running.write(
        ColumnBatch([column([]), column([], timestamps=np.zeros(0, np.int64)), column([], host="")])
    )
    assert (report.stored, report.ignored, report.rejected) == (0, 0, {})
    assert store.size().series == 0


async def test_times_without_values_fill_the_queue(writer):
    task = asyncio.create_task(writer.write(ColumnBatch([column([], timestamps=np.zeros(1000, np.int64))])))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await writer.write(LineBatch(line(1), ""))
    task.cancel()


async def test_a_full_queue_refuses_requests_and_makes_subscriptions_wait(writer):
    """The writer does not run yet, so nothing leaves the queue."""
    waiting = [asyncio.create_task(writer.admit_lines(line(1) * 100, "")) for _ in range(4)]
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, True, True, False]
    with pytest.raises(QueueFullError):
        await writer.write(LineBatch(line(1), ""))
    task = asyncio.create_task(writer.run())
    await asyncio.gather(*waiting)
    writer.close()
    await task
    assert writer.counters.stored == 400


async def test_empty_batches_fill_the_queue_too(writer):
    waiting = [asyncio.create_task(writer.admit_lines(b"", "")) for _ in range(100)]
    await asyncio.sleep(0)
    assert sum(task.done() for task in waiting) == math.ceil(QUEUE_BYTES / OVERHEAD_BYTES)
    writer.close()
    assert isinstance((await asyncio.gather(*waiting, return_exceptions=True))[-1], NotReadyError)


async def test_what_was_taken_in_is_written_before_the_end(writer):
    reports = [asyncio.create_task(writer.write(LineBatch(line(value), ""))) for value in range(5)]
    await asyncio.sleep(0)
    task = asyncio.create_task(writer.run())
    writer.close()
    await asyncio.gather(task, *reports)
    assert [report.result().stored for report in reports] == [1] * 5
    with pytest.raises(NotReadyError):
        await writer.write(LineBatch(line(1), ""))


async def test_closing_while_a_batch_is_written_does_not_wait_for_maintenance(writer, monkeypatch):
    monkeypatch.setattr("ccms_server.ingest.writer_thread.MAINTENANCE_INTERVAL_SECONDS", 3600.0)
    task = asyncio.create_task(writer.run())
    report = asyncio.create_task(writer.write(LineBatch(line(1) * 50, "")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writer.close()
    async with asyncio.timeout(60):  # includes the time that compiling may take
        await asyncio.gather(task, report)


async def test_a_batch_that_fails_costs_no_other_and_its_sender_is_told(running, store, monkeypatch, caplog):
    place = store.place

    def fails_for_one_sample(series, timestamps, values, **bounds):
        if 1.0 in values:
            raise MemoryError("no more")
        return place(series, timestamps, values, **bounds)

    monkeypatch.setattr(store, "place", fails_for_one_sample)
    bad, good = await asyncio.gather(
        running.write(LineBatch(line(1), "")), running.write(LineBatch(line(2) + line(3), "")), return_exceptions=True
    )
    assert isinstance(bad, MemoryError)
    assert good.stored == 2
    assert running.counters.failed == 1
    assert "could not be written" in caplog.text


async def test_rejections_are_counted_once_when_a_later_batch_of_the_group_fails(running, monkeypatch, caplog):
    explain, failures = placing._explain, [MemoryError("no more")]

    def fails_once(reason, timestamp, *others):
        if reason == RejectReason.TOO_NEW and failures:
            raise failures.pop()
        return explain(reason, timestamp, *others)

    monkeypatch.setattr(placing, "_explain", fails_once)
    reports = await asyncio.gather(
        running.write(LineBatch(line(1) + line(2, NOW - 50 * HOUR), "")),
        running.write(LineBatch(line(3, host="n2") + line(4, NOW + 50 * HOUR), "")),
    )
    assert not failures
    assert [report.stored for report in reports] == [1, 1]
    assert [report.rejected for report in reports] == [{RejectReason.TOO_OLD: 1}, {RejectReason.TOO_NEW: 1}]
    assert [len(report.first_rejected) for report in reports] == [1, 1]
    assert "MemoryError: no more" in caplog.text


async def test_senders_are_told_when_the_writer_is_gone(writer, store, monkeypatch):
    monkeypatch.setattr(writer, "_finish", lambda *_: 1 / 0)  # a defect of the writer itself
    task = asyncio.create_task(writer.run())
    with pytest.raises(NotReadyError):
        await writer.write(LineBatch(line(1), ""))
    with pytest.raises(ZeroDivisionError):
        await task


async def test_decoders_of_many_clusters_are_forgotten(running):
    for cluster in range(70):
        await running.write(LineBatch(b"load,hostname=h value=1\n", f"c{cluster}"))
    assert len(running._placer._decoders) <= DECODERS_MAX
    report = await running.write(LineBatch(b"load,hostname=h value=1\n", "c0"))
    assert report.stored == 1


async def test_decoders_that_know_many_templates_are_forgotten(running, monkeypatch):
    """Keys of one series that differ in a tag nobody asks for: few series, and few keys, but each makes a template."""
    monkeypatch.setattr(placing, "KEYS_MAX", 1000)
    for cluster in ("a", "b"):
        keys = (b"load,hostname=h,serial=%d value=1\n" % number for number in range(50))
        await running.write(LineBatch(b"".join(keys), cluster))
    running._placer.forget_decoders()
    assert list(running._placer._decoders) == ["b"]


async def test_what_is_rejected_of_a_subscription_is_logged_with_an_example(writer, caplog):
    await writer.admit_lines(line(1) + b"load,cluster=c value=1\n" + line(2, NOW - 50 * HOUR), "")
    task = asyncio.create_task(writer.run())
    writer.close()
    await task
    [message] = [record.getMessage() for record in caplog.records if "subscriptions" in record.getMessage()]
    assert "2 lines" in message
    assert "MISSING_HOST 1, TOO_OLD 1" in message
    assert "1 stored" in message
    assert "line 2" in message


async def test_senders_that_are_told_are_not_logged(running, caplog):
    report = await running.write(LineBatch(b"load,cluster=c value=1\n", ""))
    assert report.rejected == {RejectReason.MISSING_HOST: 1}
    assert caplog.text == ""


class FullDisk(MemoryKeeper):
    """Refuses samples until there is room."""

    def __init__(self, store):
        super().__init__(store)
        self.refused = 0
        self.has_room = False

    def put(self, placements, writes=()):
        if not self.has_room:
            self.refused += 1
            raise DiskUnavailableError("No space left on device")
        super().put(placements, writes)

    def free(self, path, before):
        raise DiskUnavailableError("No space left on device")


@pytest.fixture
def disk(store):
    return FullDisk(store)


@pytest.fixture
async def on_a_full_disk(store, disk, clock, monkeypatch):
    monkeypatch.setattr("ccms_server.ingest.writer_thread.SUBSCRIPTION_RETRY_SECONDS", 0.001)
    writer = Writer(
        store,
        disk,
        Watches(store),
        clock=clock,
        retention_seconds=48 * HOUR,
        kept_from=lambda oldest: oldest,
        future_seconds=HOUR,
        queue_bytes=QUEUE_BYTES,
        line_bytes=65536,
    )
    task = asyncio.create_task(writer.run())
    yield writer
    writer.close()
    await task


async def test_a_full_disk_refuses_requests_and_is_asked_again_for_subscriptions(on_a_full_disk, disk, store):
    writer = on_a_full_disk
    await writer.admit_lines(line(1, host="subscribed"), "")
    with pytest.raises(DiskUnavailableError, match="No space left"):
        await writer.write(LineBatch(line(2, host="requested"), ""))
    with pytest.raises(DiskUnavailableError):
        await writer.free((), NOW)
    await eventually(lambda: disk.refused > 3, "subscriptions are tried again")
    assert store.size().samples_open == 0
    disk.has_room = True
    await eventually(lambda: writer.counters.stored == 1, "the sample of the subscription is stored")
    assert len(store.group(0, ("c", "subscribed"))) == 1
    assert len(store.group(0, ("c", "requested"))) == 0


async def test_a_full_disk_does_not_refuse_what_has_nothing_to_store(on_a_full_disk):
    report = await on_a_full_disk.write(LineBatch(b"nothing_known,hostname=h value=1\n", ""))
    assert (report.stored, report.ignored) == (0, 1)


async def test_what_waits_for_a_full_disk_is_given_up_at_the_end(on_a_full_disk, disk, caplog):
    writer = on_a_full_disk
    await writer.admit_lines(line(1), "")
    await eventually(lambda: disk.refused, "it was tried")
    writer.close()
    await eventually(lambda: writer.counters.failed == 1, "it is given up")
    assert "a batch of a subscription is lost: No space left on device" in caplog.text


async def test_a_checkpoint_that_nobody_waits_for_any_more_is_forgotten(running, monkeypatch):
    monkeypatch.setattr(running._keeper, "is_checkpointed", lambda _: False)
    waiting = asyncio.create_task(running.checkpoint())
    await eventually(lambda: running._thread.checkpoints, "the checkpoint to be begun")
    waiting.cancel()
    await eventually(lambda: not running._thread.checkpoints, "it to be forgotten")


async def test_checkpoints_end_with_the_writer(writer, monkeypatch):
    monkeypatch.setattr(writer._keeper, "is_checkpointed", lambda _: False)
    task = asyncio.create_task(writer.run())
    first = asyncio.create_task(writer.checkpoint())
    await eventually(lambda: writer._thread.checkpoints, "the first one to be begun")
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(writer._keeper, "begin_checkpoint", lambda: loop.call_soon_threadsafe(writer.close) and 1)
    for waiting in (writer.checkpoint(), first):
        with pytest.raises(NotReadyError):
            await waiting
    await task


async def test_a_checkpoint_seals_what_came_before(running, store):
    await running.write(LineBatch(line(1), ""))
    assert store.size().open_tiles == 1
    await running.checkpoint()
    assert store.size().open_tiles == 0
