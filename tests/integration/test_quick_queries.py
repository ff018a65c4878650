"""Small queries: which of them are answered on the event loop, and which on a thread of their own."""

from threading import current_thread, main_thread

import numpy as np
import pytest
from helpers.server import server_inside

from ccms_client import SampleColumn
from ccms_server.model import QueryRequest, SeriesQuery
from ccms_server.store.layout import WINDOW_SLOTS
from ccms_server.store.read import Reader

START = 1_700_000_000 // 60 * 60
SLOTS = 2880
"""Two days."""
RESTARTED = SLOTS - WINDOW_SLOTS - 100
"""The slot before which a collector was restarted out of step."""


def column(host, *, is_restarted=False):
    times = START + 60 * np.arange(SLOTS)
    if is_restarted:
        times[RESTARTED:] += 25
    return SampleColumn(metric="load", cluster="alex", host=host, timestamps=times, values=np.arange(float(SLOTS)))


@pytest.fixture
async def server():
    async with server_inside(metrics={"load": {"frequency": 60}}) as running:
        report = await running.grpc.write([column("n1"), column("restarted", is_restarted=True)])
        assert report.stored == 2 * SLOTS
        yield running


@pytest.fixture
def threads(monkeypatch):
    """Those that find spans, in order."""
    seen = []
    find = Reader.spans

    def spans(reader, *arguments):
        seen.append(current_thread())
        return find(reader, *arguments)

    monkeypatch.setattr(Reader, "spans", spans)
    return seen


async def answered(server, host, start=START, end=START + 60 * SLOTS, **options):
    request = QueryRequest(cluster="alex", start=start, end=end, queries=[SeriesQuery("load", host)], **options)
    return [answer async for chunk in server.service.encoded_query(request, iter) for answer in chunk]


async def test_one_series_over_two_days_is_answered_at_once(server, threads):
    [answer] = await answered(server, "n1")
    assert len(answer.values) == SLOTS
    assert threads == [main_thread()]


async def test_windows_of_different_phases_are_looked_up_by_a_thread(server, threads):
    [answer] = await answered(server, "restarted", end=START + 600)
    assert len(answer.values) == 10
    assert threads[0] is main_thread(), "where it is found out"
    assert threads[1:]
    assert main_thread() not in threads[1:]


async def test_an_answer_that_is_mostly_padding_is_made_by_a_thread(server, threads):
    [answer] = await answered(server, "n1", START - 60 * 5000, START + 60, with_padding=True)
    assert len(answer.values)
    assert threads[0] is main_thread()
    assert main_thread() not in threads[1:]
    assert threads[1:]
