"""What is the same around every call: retries, tokens, compression, deadlines, and the end of a client."""

import asyncio
import contextlib

import pytest
from grpc import StatusCode
from helpers.scripted import HANGS, UNAVAILABLE, Refusal, scripted_server
from helpers.waiting import eventually

from ccms_client import (
    AsyncClient,
    ClientError,
    DeadlineError,
    InvalidRequestError,
    ServerBusyError,
    ServerUnavailableError,
    TokenFileError,
)

BUSY = Refusal(StatusCode.RESOURCE_EXHAUSTED, "behind", (("grpc-retry-pushback-ms", "20"),))
BUSY_FOR_GOOD = Refusal(StatusCode.RESOURCE_EXHAUSTED, "behind", (("grpc-retry-pushback-ms", "-1"),))


@contextlib.asynccontextmanager
async def client_of(*refusals, **settings):
    async with scripted_server(*refusals) as (script, address), AsyncClient(address, **settings) as client:
        yield script, client


@pytest.mark.parametrize("refusal", [UNAVAILABLE, BUSY])
async def test_a_write_is_made_again_by_the_same_name(refusal):
    async with client_of(refusal, refusal) as (script, client):
        await client.write([])
        names = [request.request_id for request in script.requests]
        assert len(names) == 3
        assert len(set(names)) == 1
        assert names[0]
        await client.write_lines(b"")
        assert script.requests[-1].request_id not in {"", names[0]}


async def test_a_write_may_have_a_name_of_its_own():
    async with client_of() as (script, client):
        await client.write([], request_id="mine")
        await client.write_lines(b"", request_id="mine too")
        assert [request.request_id for request in script.requests] == ["mine", "mine too"]


async def test_queries_and_watches_are_made_again_when_the_server_is_out_of_reach():
    async with client_of(UNAVAILABLE, UNAVAILABLE) as (script, client):
        [series] = await client.query("alex", 0, 60)
        assert series.metric == "load"
        async with client.watch():
            pass
        assert len(script.requests) == 4


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refusal(StatusCode.INVALID_ARGUMENT), InvalidRequestError),
        (BUSY_FOR_GOOD, ServerBusyError),
    ],
)
async def test_what_will_not_work_later_is_not_tried_again(refusal, error):
    async with client_of(refusal) as (script, client):
        with pytest.raises(error):
            await client.write([])
        assert len(script.requests) == 1


async def test_retries_may_be_turned_off():
    async with client_of(UNAVAILABLE, retries=False) as (script, client):
        with pytest.raises(ServerUnavailableError):
            await client.write([])
        assert len(script.requests) == 1


async def test_a_token_file_is_read_again_when_it_has_changed(tmp_path):
    path = tmp_path / "token"
    path.write_text("first\n")
    async with client_of(token_file=path) as (script, client):
        await client.write([])
        renewed = tmp_path / "renewed"
        renewed.write_text("other\n")
        renewed.replace(path)
        await client.query("alex", 0, 60)
        assert [each["authorization"] for each in script.metadata] == ["Bearer first", "Bearer other"]


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff"])
async def test_a_token_file_that_is_no_use_is_named(tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    async with client_of(token_file=path) as (script, client):
        with pytest.raises(TokenFileError, match=str(path)):
            await client.write([])
        assert script.requests == []


def test_a_token_and_a_file_with_one_contradict_each_other():
    with pytest.raises(ValueError, match="leave one of them out"):
        AsyncClient("localhost:1", token="a", token_file="b")


async def test_compression_of_answers_is_asked_for():
    async with client_of(compression=True) as (script, client):
        await client.write_lines(b"load value=1\n" * 1000)
        [metadata] = script.metadata
        assert metadata["ccms-response-compression"] == "gzip"
    async with client_of() as (script, client):
        await client.write([])
        assert "ccms-response-compression" not in script.metadata[0]


@pytest.mark.parametrize("settings", [({"deadline_seconds": 0.05}, {}), ({}, {"deadline_seconds": 0.05})])
async def test_a_deadline_is_that_of_the_call_or_of_the_client(settings):
    of_client, of_call = settings
    async with client_of(HANGS, HANGS, **of_client) as (script, client):
        with pytest.raises(DeadlineError):
            await client.write([], **of_call)
        await asyncio.wait_for(script.cancelled.wait(), 30)
        with pytest.raises(DeadlineError):
            await client.query("alex", 0, 60, **of_call)


async def test_a_call_may_be_longer_than_the_client_allows_others():
    async with client_of(HANGS, deadline_seconds=0.01) as (script, client):
        call = asyncio.create_task(client.write([], deadline_seconds=float("inf")))
        await asyncio.wait_for(script.called.wait(), 30)
        done, _ = await asyncio.wait((call,), timeout=0.1)
        assert not done
        call.cancel()
        await asyncio.wait_for(script.cancelled.wait(), 30)


async def test_calls_end_with_an_error_when_their_client_is_closed():
    async with client_of(HANGS, HANGS) as (script, client):
        write = asyncio.create_task(client.write([]))
        query = asyncio.create_task(client.query("alex", 0, 60))
        await eventually(lambda: len(script.requests) == 2, "the calls to arrive")
        await client.close()
        for call in (write, query):
            with pytest.raises(ClientError, match="closed while a call ran"):
                await call


async def test_a_call_that_is_cancelled_stays_cancelled():
    async with client_of(HANGS) as (script, client):
        call = asyncio.create_task(client.query("alex", 0, 60))
        await asyncio.wait_for(script.called.wait(), 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(script.cancelled.wait(), 30)


async def test_a_closed_client_says_so():
    async with client_of() as (_, client):
        await client.close()
        await client.close()
        with pytest.raises(RuntimeError, match="closed: make another one"):
            await client.write([])


async def test_a_client_belongs_to_one_event_loop():
    async with client_of() as (_, client):
        await client.write([])
        with pytest.raises(RuntimeError, match="one for each loop"):
            await asyncio.to_thread(asyncio.run, client.write([]))


async def test_an_iterator_that_is_left_cancels_its_call():
    async with client_of(HANGS) as (script, client):
        stream = client.stream("alex", 0, 60)
        reading = asyncio.create_task(anext(stream))
        await asyncio.wait_for(script.called.wait(), 30)
        reading.cancel()
        await asyncio.wait_for(script.cancelled.wait(), 30)
