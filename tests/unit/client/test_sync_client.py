"""The synchronous client waits for that of asyncio, and is interrupted as other calls are."""

import _thread
import asyncio
import gc
import inspect
import threading
from contextlib import contextmanager

import pytest
from helpers.scripted import HANGS, scripted_server

from ccms_client import (
    AsyncClient,
    BlockingStreamWriter,
    Client,
    Sample,
    SeriesKey,
    ServerUnavailableError,
    StreamWriter,
)
from ccms_client.blocking import iterating
from ccms_client.event_loop_thread import EventLoopThread

KEY = SeriesKey("load", "alex", "n1")


@contextmanager
def client_of(*refusals):
    """A client, and a server that plays a script in a thread of its own."""
    thread = EventLoopThread("server")
    serving = scripted_server(*refusals)
    script, address = thread.run(serving.__aenter__())
    try:
        with Client(address) as client:
            yield client, script, thread
    finally:
        thread.run(serving.__aexit__(None, None, None))
        thread.close()


def is_set(event, thread):
    """Waits for an event of the server."""
    return thread.run(asyncio.wait_for(event.wait(), 30))


@pytest.mark.parametrize(("blocking", "asynchronous"), [(Client, AsyncClient), (BlockingStreamWriter, StreamWriter)])
def test_nothing_is_missing(blocking, asynchronous):
    public = {name for name in dir(asynchronous) if not name.startswith("_")} - {"chunks"}
    assert public <= set(dir(blocking))


@pytest.mark.parametrize("name", [name for name, _ in inspect.getmembers(AsyncClient, inspect.isfunction)])
def test_arguments_and_documentation_are_the_same(name):
    if name in ("__aenter__", "__aexit__") or (name.startswith("_") and name != "__init__"):
        return
    blocking, asynchronous = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(blocking).parameters == inspect.signature(asynchronous).parameters
    assert name == "__init__" or blocking.__doc__ == asynchronous.__doc__


def test_calls_and_iterators():
    with client_of() as (client, script, _):
        client.write([])
        [series] = client.query("alex", 0, 60)
        assert [series.metric] == [series.metric for series in client.stream("alex", 0, 60)] == ["load"]
        assert len(script.requests) == 3


def test_ctrl_c_ends_a_call_and_cancels_it():
    with client_of(HANGS) as (client, script, thread):

        def interrupt():
            is_set(script.called, thread)
            _thread.interrupt_main()

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            client.query("alex", 0, 60)
        interrupting.join()
        is_set(script.cancelled, thread)
        assert client.query("alex", 0, 60)[0].metric == "load"


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_an_iterator_that_is_left_ends(leave):
    ended = threading.Event()

    async def numbers(_):
        try:
            for number in range(10):
                yield number
        finally:
            ended.set()

    with client_of() as (client, _, _):
        iterator = iterating(numbers)(client)
        assert next(iterator) == 0
        assert not ended.is_set()
        if leave == "close":
            iterator.close()
        del iterator
        gc.collect()
        assert ended.wait(30)


def test_a_closed_client_says_so():
    with client_of() as (client, _, _):
        client.close()
        client.close()
        with pytest.raises(RuntimeError, match="closed: make another one"):
            client.write([])
        with pytest.raises(RuntimeError, match="closed: make another one"):
            next(client.stream("alex", 0, 60))


def test_iterators_may_outlive_their_client():
    with client_of() as (client, _, _):
        stream = client.stream("alex", 0, 60)
        next(stream)
        client.close()
        stream.close()


def test_threads_end_with_their_clients():
    before = threading.active_count()
    with client_of() as (client, _, _):
        client.write([])
    assert threading.active_count() == before


def test_errors_are_those_of_the_other_client():
    with Client("127.0.0.1:1", retries=False) as client, pytest.raises(ServerUnavailableError):
        client.write([])


def test_a_callback_cannot_wait_for_the_thread_it_runs_in():
    told = []

    def call_back(batch):
        with pytest.raises(RuntimeError, match="hand the work to another thread") as error:
            client.write([])
        told.append((batch.sequence, error.value))

    with client_of() as (client, _, _), client.writer(on_acknowledged=call_back) as writer:
        writer.write(KEY, 0, 1.0)
    assert [sequence for sequence, _ in told] == [1]


def test_samples_of_a_slow_source_are_not_held_back():
    """The source does not end before its first sample is acknowledged."""
    acknowledged = threading.Event()

    def source():
        for minute in range(3):
            yield Sample(KEY, 60 * minute, 1.0)
            if minute == 1:
                assert acknowledged.wait(30)

    def seen(batch):
        acknowledged.set()

    with client_of() as (client, _, _), client.writer(linger_seconds=0.0, on_acknowledged=seen) as writer:
        writer.write_all(source())
