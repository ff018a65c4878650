"""How far back samples are kept for nodes in use, and what is made of the backend's answers."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from helpers.waiting import eventually

from ccms_server import used_nodes
from ccms_server.used_nodes import HELD_SECONDS_MAX, UsedNodes

NOW = 1_795_000_000
RETENTION = 48 * 3600
OLDEST = NOW - RETENTION
N1, N2 = ("alex", "n1"), ("alex", "n2")


def nodes(**options):
    return UsedNodes("http://127.0.0.1:9/", RETENTION, lambda: float(NOW), **options)


def test_without_an_answer_everything_is_kept_within_bounds():
    assert nodes().kept_from(OLDEST) == OLDEST - HELD_SECONDS_MAX


def test_without_nodes_in_use_samples_are_kept_from_where_the_retention_stood_at_the_last_answer():
    """A job may have reached back beyond the retention since."""
    used = nodes()
    used.take(set(), OLDEST)
    assert used.kept_from(OLDEST + 5) == OLDEST
    used.take(set(), OLDEST + 300)
    assert used.kept_from(OLDEST + 300) == OLDEST + 300


def test_a_job_that_reached_the_retention_while_the_backend_was_away_loses_nothing():
    used = nodes()
    used.take(set(), OLDEST)
    assert used.kept_from(OLDEST + 18_000) == OLDEST
    used.take({N1}, OLDEST + 18_000)
    assert used.kept_from(OLDEST + 20_000) == OLDEST


def test_samples_are_kept_from_where_the_retention_stood_when_a_node_came_into_use():
    used = nodes()
    used.take(set(), OLDEST)
    used.take({N1}, OLDEST + 100)
    used.take({N1, N2}, OLDEST + 200)
    assert used.kept_from(OLDEST + 300) == OLDEST
    used.take({N2}, OLDEST + 400)
    assert used.kept_from(OLDEST + 500) == OLDEST + 100
    used.take({N1}, OLDEST + 600)
    assert used.kept_from(OLDEST + 700) == OLDEST + 400
    used.take(set(), OLDEST + 800)
    assert used.kept_from(OLDEST + 900) == OLDEST + 800


def test_after_a_start_all_that_is_left_is_kept_for_nodes_in_use():
    used = nodes()
    used.take({N1}, OLDEST)
    assert used.kept_from(OLDEST + 10) == OLDEST + 10 - HELD_SECONDS_MAX
    used.take({N2}, OLDEST + 20)
    assert used.kept_from(OLDEST + 30) == OLDEST


def test_nothing_is_kept_for_ever_and_that_is_told_once(caplog):
    used = nodes()
    used.take(set(), OLDEST)
    used.take({N1}, OLDEST)
    late = OLDEST + HELD_SECONDS_MAX
    assert used.kept_from(late) == OLDEST
    assert caplog.text == ""
    assert used.kept_from(late + 50) == OLDEST + 50
    assert used.kept_from(late + 60) == OLDEST + 60
    assert caplog.text.count("30 days") == 1


class Backend:
    """A backend whose answers can be chosen."""

    def __init__(self):
        self.answer = {"usedNodes": {}}
        self.status = 200
        self.requests = []

    async def handle(self, request):
        self.requests.append(request)
        return web.Response(status=self.status, body=json.dumps(self.answer))


@pytest.fixture
async def backend(monkeypatch):
    monkeypatch.setattr(used_nodes, "ASK_SECONDS", 0.001)
    app, backend = web.Application(), Backend()
    app.router.add_get("/api/jobs/used_nodes", backend.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        backend.url = str(server.make_url("/"))
        yield backend


async def asking(used, check, what):
    """Asks until something is so."""
    task = asyncio.create_task(used.run())
    try:
        await eventually(check, what)
    finally:
        task.cancel()


@pytest.mark.parametrize("wrap", [lambda nodes: {"usedNodes": nodes}, lambda nodes: nodes], ids=["wrapped", "plain"])
async def test_the_backend_is_asked_who_is_in_use_since_before_the_retention(backend, wrap):
    used = UsedNodes(backend.url, RETENTION, lambda: float(NOW))
    used.take(set(), OLDEST - 60)
    backend.answer = wrap({"alex": ["n1"], "fritz": None})
    await asking(used, lambda: backend.requests, "a question")
    await asking(used, lambda: used._since == {N1: OLDEST - 60}, "the answer to be heeded")
    assert backend.requests[0].query == {"ts": str(OLDEST)}
    assert "Authorization" not in backend.requests[0].headers


async def test_a_token_is_read_from_its_file_each_time(backend, tmp_path):
    path = tmp_path / "token"
    path.write_text("first\n")
    used = UsedNodes(backend.url, RETENTION, lambda: float(NOW), token_file=str(path))
    await asking(used, lambda: backend.requests, "a question")
    assert backend.requests[-1].headers["Authorization"] == "Bearer first"
    path.write_text("second\n")
    await asking(used, lambda: backend.requests[-1].headers["Authorization"] == "Bearer second", "the new token")


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ({"usedNodes": {}}, 401, "it answered 401"),
        ([], 200, "Expected `object`"),
        ({"usedNodes": {"alex": 5}}, 200, "Expected `"),
        ({"alex": ["n" * 4000]}, 200, "longer than 1,000 bytes"),
    ],
)
async def test_an_answer_that_is_none_leaves_the_last_one_and_is_told_once(
    backend, monkeypatch, caplog, answer, status, reason
):
    monkeypatch.setattr(used_nodes, "ANSWER_BYTES_MAX", 1000)
    caplog.set_level("INFO")
    used = UsedNodes(backend.url, RETENTION, lambda: float(NOW))
    used.take(set(), OLDEST)
    used.take({N1}, OLDEST)
    backend.answer, backend.status = answer, status
    await asking(used, lambda: len(backend.requests) > 3, "some questions")
    assert used._since == {N1: OLDEST}
    assert used.kept_from(OLDEST + 60) == OLDEST
    assert caplog.text.count("cc-backend does not tell") == 1
    assert reason in caplog.text
    assert "nothing is dropped meanwhile" in caplog.text
    backend.answer, backend.status = {"usedNodes": {}}, 200
    await asking(used, lambda: used._since == {}, "an answer")
    assert caplog.text.count("tells again") == 1


async def test_a_backend_that_is_away_is_told_without_what_its_url_holds(caplog):
    used = UsedNodes("http://user:swordfish@127.0.0.1:9", RETENTION, lambda: float(NOW))
    async with aiohttp.ClientSession() as session:
        await used._ask(session)
    assert "nothing is dropped" in caplog.text
    assert "swordfish" not in caplog.text
