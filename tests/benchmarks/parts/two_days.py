"""Two days of samples: sealing on the way, then queries, then a query while more samples come in."""

import asyncio
from contextlib import ExitStack

from benchmarks import calibration, names
from benchmarks.calibration import Calibration, calibrate
from benchmarks.figures import Figure, Findings, at_least, at_most, milliseconds, rate
from benchmarks.load import over_http, rounds_of
from benchmarks.measured_server import MeasuredServer, measured_server
from benchmarks.payloads import LINES_PER_HOST, host_batches
from benchmarks.process import cpu_seconds, rss_megabytes
from benchmarks.queries import QueryFailedError, QueryTime, grpc_asker, recent_cases, rest_asker, time_query
from benchmarks.reading_while_writing import read_while_writing
from benchmarks.running_peer import RunningPeer
from benchmarks.scale import Scale

TURNS = 4
"""In which all samples are sent."""

REST_MS_MAX = {
    "one_series": 0.33,
    "one_host_64_threads": 4,
    "job_16x10": 15,
    "job_16x10_res600": 8,
    "all_nodes_stats": 8,
    "all_nodes_5min": 1.1,
}
"""Targets of the median."""

HALVED_QUERY = "job_16x10"
"""Of which gRPC should take half the time of REST at most."""

SHARE_OF_CAPACITY = 0.5
"""That is written while a query is asked."""


async def measure(scale: Scale, peer: RunningPeer | None) -> Findings:
    """Fills our server, and the peer in turns with it, and queries both."""
    async with measured_server() as server:
        of_peer = peer.in_new_cluster() if peer else None
        findings = await _fill(scale, server, of_peer)
        findings.add(await asyncio.to_thread(query, scale, server, of_peer))
        findings.add(await _read_while_writing(scale, server, of_peer))
    return findings


async def _fill(scale: Scale, server: MeasuredServer, peer: MeasuredServer | None) -> Findings:
    """Sends all samples; what servers do between their turns counts as well."""
    servers = [server, peer] if peer else [server]
    batches = [host_batches(scale.long_hosts, cluster=each.cluster) for each in servers]
    idle = [rss_megabytes(each.pid) for each in servers]
    before = [cpu_seconds(each.pid) for each in servers]
    calibrations = []
    for times in rounds_of(TURNS, scale.long_steps // TURNS):
        calibrations.append(calibrate())
        for each, of_server in zip(servers, batches, strict=True):
            await asyncio.to_thread(over_http, each, of_server, times)
    lines = scale.long_hosts * LINES_PER_HOST * (scale.long_steps // TURNS * TURNS)
    figures = [
        _filled(lines, cpu_seconds(each.pid) - used, rss_megabytes(each.pid) - empty, calibration.median(calibrations))
        for each, used, empty in zip(servers, before, idle, strict=True)
    ]
    return Findings(figures[0], figures[1] if peer else [])


def _filled(lines: int, used: float, megabytes: float, beside: Calibration) -> list[Figure]:
    return [
        rate(names.HTTP_SEALING, lines / used / 1e6, beside, at_least(1.4)),
        Figure(names.RSS_PER_SAMPLE, megabytes * 2**20 / lines, "B", at_most(4)),
    ]


def query(scale: Scale, server: MeasuredServer, peer: MeasuredServer | None) -> Findings:
    """Asks every query over REST and gRPC, and the peer over REST."""
    findings = Findings()
    of_ours = recent_cases(server.cluster, scale.long_hosts, scale.long_steps)
    of_peer = recent_cases(peer.cluster, scale.long_hosts, scale.long_steps) if peer else {}
    with ExitStack() as stack:
        rest, over_grpc = stack.enter_context(rest_asker(server)), stack.enter_context(grpc_asker(server))
        peer_rest = stack.enter_context(rest_asker(peer)) if peer else None
        for name, body in of_ours.items():
            bodies = {rest: body, over_grpc: body}
            if peer_rest:
                try:
                    peer_rest.size(peer_rest.query(of_peer[name])())
                    bodies[peer_rest] = of_peer[name]
                except QueryFailedError as error:
                    findings.notes.append(f"query {name}: of ours alone, as the peer failed: {error}")
            times = time_query(bodies, seconds=scale.query_seconds)
            findings.figures += _of_query(names.rest_query(name), times[rest], REST_MS_MAX[name])
            findings.figures += _of_query(names.grpc_query(name), times[over_grpc])
            if name == HALVED_QUERY:
                share = times[over_grpc].median_ms / times[rest].median_ms
                findings.figures.append(
                    Figure(f"{names.median(names.grpc_query(name))}, beside", share, "x that of REST", at_most(0.5))
                )
            if peer_rest in times:
                findings.peer_figures += _of_query(names.rest_query(name), times[peer_rest])
    return findings


def _of_query(name: str, took: QueryTime, median_ms_max: float | None = None) -> list[Figure]:
    target = None if median_ms_max is None else at_most(median_ms_max)
    return [
        milliseconds(names.median(name), took.median_ms, took.calibration, target),
        milliseconds(f"{name}, server", took.cpu_ms, took.calibration, unit="CPU-ms"),
    ]


async def _read_while_writing(scale: Scale, server: MeasuredServer, peer: MeasuredServer | None) -> Findings:
    """Asks for one series while other hosts send half of what the server can take in."""
    findings = Findings()
    for each in (server, peer) if peer else (server,):
        beside = calibrate()
        body = recent_cases(each.cluster, scale.long_hosts, scale.long_steps)["one_series"]
        try:
            done = await read_while_writing(
                each,
                body,
                hosts=scale.hosts,
                first_host=scale.long_hosts,
                share=SHARE_OF_CAPACITY,
                seconds=scale.reading_seconds,
            )
        except QueryFailedError as error:
            findings.notes.append(f"reading while writing: of ours alone, as the peer failed: {error}")
            continue
        figures = [
            milliseconds(f"{names.rest_query('one_series')}, p50 while writing", done.p50_ms, beside),
            milliseconds(f"{names.rest_query('one_series')}, p99 while writing", done.p99_ms, beside, at_most(10)),
            Figure("HTTP, capacity by the clock on the wall", done.capacity, "M lines/s"),
            Figure("lines written meanwhile", done.written, "M lines/s"),
        ]
        if each is server:
            findings.figures += figures
        else:
            findings.peer_figures += figures
    return findings
