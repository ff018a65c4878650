"""The client's stream writer at the real server, over connections that are lost."""

import asyncio
import logging
from functools import partial

import numpy as np
import pytest
from helpers.launch import served
from helpers.relay import relay_to
from helpers.server import server_inside
from helpers.tokens import Issuer
from helpers.waiting import eventually

from ccms_client import (
    AsyncClient,
    InvalidRequestError,
    Sample,
    SampleColumn,
    SeriesKey,
    SeriesQuery,
    ServerUnavailableError,
    StreamBrokenError,
    UnauthenticatedError,
)

START, INTERVAL = 1_700_000_000 // 60 * 60, 60
METRICS = {"load": {"frequency": INTERVAL}}
KEYS = [SeriesKey("load", "alex", f"n{host}") for host in range(50)]
NEVER = 3600.0


@pytest.fixture
async def server():
    async with server_inside(metrics=METRICS) as running:
        yield running


@pytest.fixture
async def relay(server):
    async with relay_to(server.grpc_address) as relay:
        yield relay


@pytest.fixture
async def client(relay):
    async with AsyncClient(relay.address) as client:
        yield client


async def held(client, host="n0", **selection):
    [series] = await client.query(
        "alex", START, START + 10**6, [SeriesQuery(metric="load", host=host, **selection)], deadline_seconds=30
    )
    return series.values.tolist()


async def write_minutes(writer, minutes):
    """One batch for each minute: one sample of each series, with the number of the minute."""
    numbers = writer.define(KEYS)
    for minute in minutes:
        await writer.write_numbers(numbers, START + INTERVAL * minute, np.full(len(KEYS), float(minute)))


async def test_samples_of_all_forms_are_stored_in_order(client):
    async def later():
        yield Sample(KEYS[0], START + 240, 5.0)

    async with client.writer(linger_seconds=NEVER) as writer:
        await writer.write(KEYS[0], [START, START + 60], [1.0, 2.0])
        await writer.write(KEYS[:2], START + 120, [3.0, 7.0])
        await writer.write_all([Sample(KEYS[0], START + 180.9, 4.0), Sample(KEYS[1], START + 180, np.nan)])
        await writer.write_all(later())
        await writer.write_columns([SampleColumn(metric="load", cluster="alex", host="n0", start=START, values=[10.0])])
        await writer.write_lines(b"load,hostname=n0 value=20 %d" % (START + 60), "alex")
        await writer.write(SeriesKey("load", "alex", "n0", "socket1", "core2"), np.datetime64(START, "s"), 6.0)
    assert (writer.result.stored, writer.result.ignored, writer.result.rejected) == (9, 1, {})
    assert await held(client) == [10.0, 20.0, 3.0, 4.0, 5.0]
    assert await held(client, "n1") == [7.0]
    assert await held(client, "n0", type="socket", type_ids=["1"], subtype="core", subtype_ids=["2"]) == [6.0]


async def test_many_samples_are_cut_into_batches_and_few_are_put_together(client):
    batches = []
    async with client.writer(batch_samples=100, linger_seconds=NEVER, on_acknowledged=batches.append) as writer:
        values = np.arange(250.0)
        await writer.write(KEYS[0], START + INTERVAL * np.arange(250), values)
        for minute in range(250, 300):
            await writer.write(KEYS[0], START + INTERVAL * minute, float(minute))
    assert [(batch.sequence, batch.sample_count, batch.result.stored) for batch in batches] == [
        (1, 100, 100),
        (2, 100, 100),
        (3, 100, 100),
    ]
    assert await held(client) == list(range(300))


async def test_a_batch_that_does_not_fill_up_goes_after_a_while(client):
    async with client.writer(linger_seconds=0.01) as writer:
        await writer.write(KEYS[0], START, 1.0)
        await eventually(lambda: writer.result.stored == 1, "the sample to be acknowledged")


async def test_arrays_may_be_used_again_once_they_were_written(client):
    values = np.array([1.0, 2.0])
    async with client.writer(linger_seconds=NEVER) as writer:
        await writer.write(KEYS[0], [START, START + 60], values)
        values[:] = 9.0
    assert await held(client) == [1.0, 2.0]


async def test_what_is_rejected_is_counted_and_explained(client):
    async with client.writer() as writer:
        await writer.write(SeriesKey("nope", "alex", "n1"), START, [1.0])
        await writer.write(SeriesKey("load", "alex", "../n1"), START, [1.0])
        await writer.write(KEYS[0], START, [np.inf])
    assert writer.result.rejected == {"UNKNOWN_METRIC": 1, "INVALID_NAME": 1, "INVALID_NUMBER": 1}
    assert len(writer.result.first_rejected) == 3


async def test_writing_waits_while_the_server_is_behind_and_memory_is_bounded(server, relay, client):
    """The answers are held up: what is taken until writing waits does not grow with what is to be written."""
    async with client.writer(batch_samples=len(KEYS), unacknowledged_bytes_max=20_000) as writer:
        await writer.write(KEYS[0], START, 0.0)
        await writer.flush()
        relay.mute()
        writing = asyncio.create_task(write_minutes(writer, range(1000)))
        await eventually(lambda: writer._outbox._buffer.is_full, "the room to be used up")
        assert not writing.done()
        assert writer._outbox._bytes <= 20_000
        relay.cut()
        await writing
    assert server.service.counters.stored == 1000 * len(KEYS) + 1


def has_stored(server, count):
    return server.service.counters.stored >= count


def acknowledges_more_than(writer, count):
    return writer.result.stored + writer.unreported_samples > count


@pytest.mark.parametrize("loses_answers", [False, True])
async def test_connections_that_are_lost_cost_nothing_and_store_nothing_twice(
    server, relay, client, caplog, loses_answers
):
    async with client.writer(batch_samples=len(KEYS)) as writer:
        for life in range(4):
            await write_minutes(writer, range(20 * life, 20 * life + 10))
            await writer.flush()
            if loses_answers:
                relay.mute()
            await write_minutes(writer, range(20 * life + 10, 20 * life + 20))
            stored = (20 * life + 20 if loses_answers else 20 * life + 10) * len(KEYS)
            await eventually(partial(has_stored, server, stored), "the batches to be stored")
            relay.cut()
    assert relay.connections >= 5
    assert server.service.counters.stored == 80 * len(KEYS)
    assert writer.result.stored + writer.unreported_samples == 80 * len(KEYS)
    if loses_answers:
        assert writer.unreported_samples == 40 * len(KEYS)
    assert await held(server.grpc, "n49") == list(range(80))
    assert "is interrupted" in caplog.text


async def test_a_server_that_is_killed_and_comes_back_has_everything_once(tmp_path):
    options = {"metrics": METRICS, "checkpoints": {"directory": str(tmp_path / "store")}}
    async with relay_to() as relay, AsyncClient(relay.address) as client:
        async with client.writer(batch_samples=len(KEYS), stream_id="collector") as writer:
            for life in range(3):
                async with served(tmp_path, **options) as server:
                    relay.target = server.grpc_address
                    before = writer.result.stored + writer.unreported_samples
                    await write_minutes(writer, range(40 * life, 40 * life + 40))
                    await eventually(partial(acknowledges_more_than, writer, before), "an acknowledgement")
                    server.process.kill()
            async with served(tmp_path, **options) as server:
                relay.target = server.grpc_address
                await writer.flush()
                assert await held(server.grpc, "n49") == list(range(120))
        assert writer.result.stored + writer.unreported_samples == 120 * len(KEYS)


async def test_a_server_that_is_not_there_yet_is_waited_for(relay, client, server, caplog):
    relay.target, target = "127.0.0.1:1", relay.target
    async with client.writer() as writer:
        await writer.write(KEYS[0], START, 1.0)
        await eventually(lambda: "is interrupted" in caplog.text, "an attempt")
        relay.target = target
        await writer.flush()
    assert writer.result.stored == 1
    [warning, *_] = [record for record in caplog.records if record.name.startswith("ccms_client")]
    assert warning.levelno == logging.WARNING


async def test_a_writer_may_give_up():
    async with AsyncClient("127.0.0.1:1") as client:
        writer = client.writer(give_up_seconds=0.05)
        with pytest.raises(StreamBrokenError, match="2 samples are not acknowledged") as raised:
            async with writer:
                await writer.write(KEYS[:2], START, [1.0, 2.0])
        assert raised.value.unacknowledged_samples == 2
        assert isinstance(raised.value.__cause__, ServerUnavailableError)


async def test_what_the_server_refuses_for_good_ends_the_stream(client):
    writer = client.writer(linger_seconds=NEVER)

    async def write():
        async with writer:
            await writer.write_lines(b"load,cluster=alex,hostname=n1 value=1 %d\n" % START)
            await writer.flush()
            await writer.write_lines(bytes(5 << 20))
            await writer.write(KEYS[0], START, 1.0)

    with pytest.raises(StreamBrokenError, match=r"5,242,8\d\d bytes, the server takes at most") as raised:
        await write()
    with pytest.raises(StreamBrokenError):
        await writer.write(KEYS[0], START, 1.0)
    assert isinstance(raised.value.__cause__, InvalidRequestError)
    assert raised.value.unacknowledged_samples == 2
    assert writer.result.stored == 1


async def test_a_stream_without_a_token_is_not_tried_again():
    async with (
        server_inside(metrics=METRICS, **{"jwt-public-key": Issuer().public_key}) as server,
        AsyncClient(server.grpc_address) as client,
    ):
        with pytest.raises(StreamBrokenError) as raised:
            async with client.writer() as writer:
                await writer.write(KEYS[0], START, 1.0)
        assert isinstance(raised.value.__cause__, UnauthenticatedError)


async def test_a_context_that_fails_waits_for_nothing(caplog):
    async with AsyncClient("127.0.0.1:1") as client:

        async def fail():
            async with client.writer(linger_seconds=NEVER) as writer:
                await writer.write(KEYS[0], START, 1.0)
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
    assert "is given up, 1 samples are not acknowledged" in caplog.text


async def test_a_callback_that_fails_ends_the_stream(client):
    def fail(batch):
        raise KeyError(batch.sequence)

    writer = client.writer(on_acknowledged=fail)
    async with writer:
        await writer.write(KEYS[0], START, 1.0)
        await writer.flush()
        await eventually(writer._sending.done, "the end")
    with pytest.raises(StreamBrokenError) as raised:
        await writer.write(KEYS[0], START, 1.0)
    assert isinstance(raised.value.__cause__, KeyError)


async def test_a_client_that_is_closed_ends_its_writers(client):
    async with client.writer() as writer:
        await writer.write(KEYS[0], START, 1.0)
        await writer.flush()
        await client.close()
        await eventually(writer._sending.done, "the end")
        with pytest.raises(StreamBrokenError, match="was closed"):
            await writer.write(KEYS[0], START, 1.0)


@pytest.mark.parametrize(
    ("numbers", "timestamps", "values", "message"),
    [
        ([50], START, [1.0], "numbered from 0 to 49"),
        ([-1], START, [1.0], "numbered from 0 to 49"),
        ([0.5], START, [1.0], "numbered from 0 to 49"),
        ([0, 1], START, [1.0, 2.0, 3.0], r"`series` has the shape \(2,\), for 3 values"),
        (0, [START, START], [1.0, 2.0, 3.0], r"`timestamps` has the shape \(2,\), for 3 values"),
        (0, START, [[1.0]], r"`values` has the shape \(1, 1\)"),
        (0, [np.nan], [1.0], "NaN or infinite"),
        (0, np.array(["NaT"], "datetime64[s]"), [1.0], "NaT"),
        (0, ["now"], [1.0], "seconds since the epoch"),
    ],
)
async def test_arrays_that_do_not_fit_together_are_refused(client, numbers, timestamps, values, message):
    async with client.writer() as writer:
        writer.define(KEYS)
        with pytest.raises(ValueError, match=message):
            await writer.write_numbers(numbers, timestamps, values)


async def test_misuse_is_told(client):
    writer = client.writer()
    with pytest.raises(RuntimeError, match="context manager"):
        await writer.write(KEYS[0], START, 1.0)
    with pytest.raises(TypeError, match="SeriesKey"):
        writer.define([("load", "alex")])
    async with writer:
        pass
    with pytest.raises(RuntimeError, match="used already"):
        await writer.__aenter__()
    with pytest.raises(ValueError, match="1 to 100,000"):
        client.writer(batch_samples=0)
