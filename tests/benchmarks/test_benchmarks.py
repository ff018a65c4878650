"""The benchmarks still run, and find what they wrote; how fast they are is not asked here."""

import asyncio
import json

import numpy as np
import pytest
from benchmarks import names, recorded_peers
from benchmarks.__main__ import main
from benchmarks.figures import table
from benchmarks.load import over_http, post, recent_times
from benchmarks.measured_server import measured_server
from benchmarks.parts import PARTS, two_days
from benchmarks.payloads import Batch, host_batches
from benchmarks.queries import JOB_HOSTS, QueryFailedError, recent_cases, rest_asker
from benchmarks.running_peer import RunningPeer
from benchmarks.scale import QUICK

REST_MEDIANS = {names.median(names.rest_query(query)) for query in two_days.REST_MS_MAX}
COMPARED = {
    "ingest": {names.HTTP, names.HTTP_LARGE, names.RSS_TOTAL, names.RSS_OVER_IDLE},
    "nats": {names.NATS},
    "first-cycle": {names.HTTP_FIRST},
    "two-days": {names.HTTP_SEALING, names.RSS_PER_SAMPLE, *REST_MEDIANS},
}
"""Figures that are compared with what was recorded of peers."""
IN_TURNS = {part: figures for part, figures in COMPARED.items() if part != "nats"}
"""Those that a running peer is measured for."""

NOTHING_YET = {"start": ["restart after SIGKILL, samples in blocks"]}
"""Figures that small inputs are too small for."""


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_runs_on_small_inputs(part):
    findings = await PARTS[part](QUICK, None)

    measured = {figure.name for figure in findings.figures}
    assert measured >= COMPARED.get(part, set())
    assert len(measured) == len(findings.figures)
    assert [figure.name for figure in findings.figures if figure.value <= 0] == NOTHING_YET.get(part, [])
    assert all(name in table(findings) for name in measured)
    assert not findings.peer_figures
    assert not findings.notes


@pytest.mark.parametrize("part", IN_TURNS)
async def test_a_running_peer_is_measured_in_turns(part):
    async with measured_server() as peer:
        findings = await PARTS[part](QUICK, RunningPeer(f"http://127.0.0.1:{peer.port}"))

    assert {figure.name for figure in findings.peer_figures} >= IN_TURNS[part]
    assert all(figure.value > 0 for figure in findings.peer_figures if not figure.name.startswith("RSS over"))
    assert not findings.notes


def test_every_recorded_figure_is_compared():
    recorded = {name for recording in recorded_peers.RECORDINGS for name in recording.figures}
    assert recorded == set().union(*COMPARED.values())


async def test_the_command_prints_a_table_and_writes_it_as_json_and_a_plot(tmp_path, capsys):
    arguments = ["--quick", "--only", "series-count", "--json", f"{tmp_path}/b.json", "--plot", f"{tmp_path}/p.svg"]
    await asyncio.to_thread(main, arguments)

    printed, document = capsys.readouterr().out, json.loads((tmp_path / "b.json").read_text())
    assert document["is_quick"] is True
    assert document["line_rate"] > 0
    assert all(f"| {figure['name']} " in printed for figure in document["figures"])
    assert [cost["series"] for cost in document["series_costs"]] == [426, 852, 1278] * 2
    assert "<svg" in (tmp_path / "p.svg").read_text()


async def test_the_command_finds_the_process_of_a_peer_by_its_port(tmp_path, capsys):
    async with measured_server() as peer:
        where = ["--peer", f"http://127.0.0.1:{peer.port}", "--peer-path", "/api/write?cluster=other"]
        await asyncio.to_thread(main, ["--quick", "--only", "first-cycle", "--json", f"{tmp_path}/b.json", *where])

    [figure] = json.loads((tmp_path / "b.json").read_text())["figures"]
    assert figure["peer"]["value"] > 0
    assert "PEER, in turns" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "--only nothing is none of ingest, nats"),
        (["--peer", "localhost:8428"], "is not like http://host:port"),
        (["--only", "decoder", "--plot", "plot.svg"], "--plot needs the part series-count"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["--quick", *arguments])
    assert message in capsys.readouterr().err


def test_metrics_for_the_configuration_of_a_peer_are_printed(capsys):
    main(["--print-metrics"])
    assert json.loads(capsys.readouterr().out)["metrics"]["flops_any"] == {"frequency": 60, "aggregation": "sum"}


async def test_queries_that_a_peer_cannot_answer_are_left_out_and_noted():
    hosts = QUICK.long_hosts
    async with measured_server() as server, measured_server() as empty:
        await asyncio.to_thread(over_http, server, host_batches(hosts), recent_times(QUICK.long_steps))
        findings = await asyncio.to_thread(two_days.query, QUICK, server, empty)

    assert {figure.name for figure in findings.figures} >= REST_MEDIANS
    assert not findings.peer_figures
    assert len(findings.notes) == len(REST_MEDIANS)


async def test_a_query_without_its_samples_is_not_timed():
    async with measured_server() as server:
        [query, *_] = recent_cases("nowhere", JOB_HOSTS, 10).values()
        with rest_asker(server) as asker, pytest.raises(QueryFailedError):
            asker.size(asker.query(query)())


async def test_lines_that_a_server_refuses_are_not_measured():
    refused = Batch(b"cpu_load value=%.3fx @TS@\n", np.zeros(1), np.zeros(1))
    async with measured_server() as server:
        with pytest.raises(AssertionError, match="400"):
            await asyncio.to_thread(over_http, server, [refused], recent_times(1))


async def test_batches_are_sent_as_slowly_as_asked_for():
    batches_per_second = 50
    async with measured_server() as server:
        seconds = await asyncio.to_thread(
            post, server, host_batches(4), recent_times(2), connections=2, batches_per_second=batches_per_second
        )
    assert seconds >= 2 * 4 / batches_per_second
