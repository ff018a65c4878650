"""Series that the server has never seen: every line makes one."""

from collections.abc import Callable, Iterator, Sequence

from benchmarks import names, recorded_peers
from benchmarks.figures import Figure, Findings, at_least, rate
from benchmarks.load import Load, over_http, recent_times
from benchmarks.measured_server import MeasuredServer, measured_server
from benchmarks.payloads import Batch, host_batches
from benchmarks.running_peer import RunningPeer
from benchmarks.scale import Scale
from benchmarks.turns import Turns, in_turns

OURS, PEER = "ours", "peer"
GO_SERVER_PARTS = 2
"""The target is to be within so many times what the Go server takes."""


async def measure(scale: Scale, peer: RunningPeer | None) -> Findings:
    """Sends one time step of hosts that are new in each round."""
    async with measured_server() as server:
        servers = {OURS: server} | ({PEER: peer.in_new_cluster()} if peer else {})
        contenders = {name: _new_hosts(each, scale.hosts) for name, each in servers.items()}
        turns = await in_turns(contenders, [recent_times(1)] * scale.rounds)
    return Findings([_figure(turns[OURS])], [_figure(turns[PEER])] if peer else [])


def _new_hosts(server: MeasuredServer, hosts: int) -> Callable[[Sequence[int]], Load]:
    """Sends other hosts at every call."""

    def batches() -> Iterator[list[Batch]]:
        first = 0
        while True:
            yield host_batches(hosts, first=first, cluster=server.cluster)
            first += hosts

    each = batches()
    return lambda times: over_http(server, next(each), times)


def _figure(turns: Turns) -> Figure:
    recorded = recorded_peers.best(names.HTTP_FIRST, larger_is_better=True)
    assert recorded is not None
    target = at_least(recorded[1] / GO_SERVER_PARTS)
    return rate(names.HTTP_FIRST, turns.rate, turns.calibration, target)
