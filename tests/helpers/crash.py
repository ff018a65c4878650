"""Torture: a server is killed again and again while it is written to, and must still have what it acknowledged.

`python -m helpers.crash --rounds 300` runs rounds until the first mistake; each one starts the server on the directory
the last one left behind, compares all it has with what it was sent, writes over HTTP, gRPC and NATS, and kills it.

What may be where is decided by the order of events: a write that was acknowledged replaces every write that was decided
before it was sent. A write whose fate is not known was decided at the kill at the latest. A sample that a query
answered counts as acknowledged by then. What a restarted server has is a fact for all rounds that follow.
"""

import argparse
import asyncio
import math
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

import aiohttp
import numpy as np

from ccms_client import ClientError, Component, SampleColumn, SeriesQuery, ServerBusyError
from helpers.launch import launched
from helpers.nats import delivered, nats_server, publisher

BASE = 1_699_999_744
"""Time of the first slot: where windows of one second begin."""
THREADS = 8
METRICS = {
    "bandwidth": {"frequency": 1, "aggregation": "sum"},
    "clock": {"frequency": 1},
    "power": {"frequency": 10, "aggregation": "sum"},
}
N_SLOTS = {"bandwidth": 12 * 256, "clock": 6 * 256, "power": 3 * 256}
END = BASE + 12 * 256 * 10
CLUSTERS = ("alex", "fritz")
HOSTS = ("http1", "http2", "columns1", "lines1", "nats1", "nats2")
RUN_MAX = {"http": 24, "columns": 200, "lines": 24, "nats": 24}
"""Slots in one write."""
CAMPAIGN_ROUNDS = 10
"""Rounds in one directory."""
FRACTION = 1 << 20

PENDING, ACKNOWLEDGED, REFUSED = "pending", "acknowledged", "refused"


@dataclass(eq=False, slots=True)
class Write:
    """All threads of a host in some consecutive slots."""

    number: int
    first: int
    end: int
    sent: int
    decided: float = math.inf
    state: str = PENDING


@dataclass(eq=False)
class Group:
    """The threads of one host for one metric: every write is for all of them.

    Attributes:
        known: By slot, the number of the write that was found there when the server was started; 0 for none.
        writes: Those since then, by slot.
        head: Slots before this one have been written.
        is_ordered: Writes take effect in the order they are sent.
    """

    cluster: str
    host: str
    metric: str
    known: np.ndarray
    writes: dict[int, list[Write]] = field(default_factory=dict)
    head: int = 0

    @property
    def protocol(self):
        return self.host[:-1]

    @property
    def is_ordered(self):
        return self.protocol == "nats"

    @property
    def interval(self):
        return METRICS[self.metric]["frequency"]

    @property
    def start(self):
        """Time of slot 0: hosts report at different seconds."""
        return BASE + int(self.host[-1]) % self.interval

    def add(self, write):
        for slot in range(write.first, write.end):
            self.writes.setdefault(slot, []).append(write)

    def legal(self, slot, at=math.inf):
        """Numbers of the writes that a query sent at a time may find in a slot."""
        writes = [write for write in self.writes.get(slot, ()) if write.state != REFUSED]
        done = [write for write in writes if write.state == ACKNOWLEDGED and write.decided < at]
        if self.is_ordered:
            last = max((write.number for write in done), default=0)
            legal = {write.number for write in writes if write.number >= last}
        else:
            last = max((write.sent for write in done), default=-math.inf)
            legal = {write.number for write in writes if write.decided >= last}
        if not done:
            legal.add(int(self.known[slot]))
        return legal

    def values(self, numbers, thread):
        """What writes say of a thread: float64 array, NaN where the number is 0.

        The number stands before the point; what follows makes half of the values hard to compress.
        """
        fractions = numbers * 40_503 % FRACTION / FRACTION if int(self.host[-1]) % 2 else 0.0
        return np.where(numbers == 0, np.nan, numbers * THREADS + thread + fractions)


class MistakeError(AssertionError):
    """The server has something else than it must."""


class Model:
    """What was sent, and what is known of it."""

    def __init__(self):
        self.groups = [
            Group(cluster, host, metric, np.zeros(N_SLOTS[metric], np.int64))
            for cluster in CLUSTERS
            for host in HOSTS
            for metric in METRICS
        ]
        self.acknowledged = 0
        self._tick = count(1)
        self._numbers = count(1)

    def now(self):
        return next(self._tick)

    def send(self, random, protocol):
        """Decides on a write, as a collector that has a backlog does: mostly forward, now and then back."""
        group = random.choice([group for group in self.groups if group.protocol == protocol])
        length = random.randint(1, RUN_MAX[protocol])
        n_slots = len(group.known)
        kind = random.random()
        if kind < 0.7 and group.head < n_slots:
            first = group.head
        elif kind < 0.9:
            first = max(0, group.head - random.randint(1, 64))
        else:
            first = random.randrange(max(1, group.head))
        write = Write(next(self._numbers), first, min(first + length, n_slots), self.now())
        group.head = max(group.head, write.end)
        group.add(write)
        return group, write

    def decide(self, write, state):
        write.state, write.decided = state, min(write.decided, self.now())
        if state == ACKNOWLEDGED:
            self.acknowledged += THREADS * (write.end - write.first)

    def observe(self, group, thread, values, asked):
        """Takes note of what a query answered that was sent at a time."""
        numbers = _numbers(group, thread, values)
        for slot in group.writes:
            number = int(numbers[slot])
            if number not in (legal := group.legal(slot, asked)):
                raise MistakeError(f"{group.cluster} {group.host} {group.metric} slot {slot}: {number}, legal: {legal}")
            for write in group.writes[slot]:
                if write.number == number and write.state == PENDING:
                    self.decide(write, ACKNOWLEDGED)

    def check(self, group, answers, total):
        """Compares what a restarted server has; from now on it is known.

        Args:
            group: What it was asked for.
            answers: Values by thread, by slot.
            total: Values of the whole host, by slot; None if they are not to be looked at.
        """
        numbers = _numbers(group, 0, answers[0])
        for thread, values in enumerate(answers):
            if not np.array_equal(group.values(numbers, thread), values, equal_nan=True):
                [different] = np.nonzero(_numbers(group, thread, values) != numbers)
                raise MistakeError(
                    f"{group.cluster} {group.host} {group.metric}: half of a write, in slots {different}"
                )
        if total is not None and not np.array_equal(expected := sum(answers), total, equal_nan=True):
            [different] = np.nonzero(~((expected == total) | (np.isnan(expected) & np.isnan(total))))
            raise MistakeError(
                f"{group.cluster} {group.host} {group.metric}: the sum is not that of the threads in slots {different}:"
                f" {total[different]} rather than {expected[different]}"
            )
        mistakes = [
            f"slot {slot} has {numbers[slot]}, legal: {sorted(legal)}"
            for slot in np.flatnonzero(numbers != group.known).tolist() + list(group.writes)
            if int(numbers[slot]) not in (legal := group.legal(slot))
        ]
        if mistakes:
            raise MistakeError(
                f"{group.cluster} {group.host} {group.metric}: {len(mistakes)} mistakes: {mistakes[:20]}"
            )
        group.known = numbers
        group.writes.clear()


def _numbers(group, thread, values):
    """The writes that values come from: int64 array."""
    numbers = np.nan_to_num(values).astype(np.int64) // THREADS
    if not np.array_equal(group.values(numbers, thread), values, equal_nan=True):
        raise MistakeError(f"{group.cluster} {group.host} {group.metric}: values that were never sent: {values}")
    return numbers


# --- what is sent and asked


async def write_http(server, group, write):
    answer = await server.rest.write(_lines(group, write))
    if answer.status == 503:
        return REFUSED
    assert answer.status == 200, answer
    return ACKNOWLEDGED


async def write_lines(server, group, write):
    return _stored(await server.grpc.write_lines(_lines(group, write)), write)


async def write_columns(server, group, write):
    n_slots = write.end - write.first
    columns = [
        SampleColumn(
            metric=group.metric,
            cluster=group.cluster,
            host=group.host,
            component=Component("hwthread", str(thread)),
            start=group.start + group.interval * write.first,
            values=np.full(n_slots, group.values(np.int64(write.number), thread)),
        )
        for thread in range(THREADS)
    ]
    return _stored(await server.grpc.write(columns), write)


def _stored(result, write):
    assert result.stored == THREADS * (write.end - write.first), result
    return ACKNOWLEDGED


def _lines(group, write):
    return b"".join(
        b"%s,cluster=%s,hostname=%s,type=hwthread,type-id=%d value=%s %d\n"
        % (
            group.metric.encode(),
            group.cluster.encode(),
            group.host.encode(),
            thread,
            repr(float(group.values(np.int64(write.number), thread))).encode(),
            group.start + group.interval * slot,
        )
        for thread in range(THREADS)
        for slot in range(write.first, write.end)
    )


async def ask(server, cluster, groups, threads=range(THREADS), *, with_total=True):
    """What the server has of some groups: of each, values by thread and of the host, by slot.

    The latter are None for metrics that are not aggregated, and if they are not asked for.
    """
    ids = [str(thread) for thread in threads]
    queries, asked = [], []
    for group in groups:
        queries.append(SeriesQuery(metric=group.metric, host=group.host, type="hwthread", type_ids=ids))
        asked.append(group)
        if with_total and "aggregation" in METRICS[group.metric]:
            queries.append(SeriesQuery(metric=group.metric, host=group.host))
            asked.append(group)
    answers = {id(group): [] for group in groups}
    for series in await server.grpc.query(cluster, BASE, END, queries, with_statistics=False):
        group = asked[series.query_index]
        answers[id(group)].append(_by_slot(group, series))
    return [(answers[id(group)][: len(ids)], (answers[id(group)][len(ids) :] or [None])[0]) for group in groups]


def _by_slot(group, series):
    """The values of an answer: float64 array."""
    values = np.full(len(group.known), np.nan)
    if series.error is None:
        slots, off = np.divmod(series.timestamps - group.start, group.interval)
        if len(slots) and (off.any() or slots[0] < 0 or slots[-1] >= len(values)):
            raise MistakeError(f"{group.cluster} {group.host} {group.metric}: times {series.timestamps}")
        values[slots] = series.values
    elif series.error.reason != "NOT_FOUND":
        raise MistakeError(str(series.error))
    return values


async def compare(model, server):
    """Compares all that a server has which was just started."""
    for cluster in CLUSTERS:
        groups = [group for group in model.groups if group.cluster == cluster]
        for group, (answers, total) in zip(groups, await ask(server, cluster, groups), strict=True):
            model.check(group, answers, total)


# --- load


class Load:
    """Writers and readers of one round, until the server is gone."""

    def __init__(self, model, server, nats, seed):
        self._model, self._server, self._nats, self._seed = model, server, nats, seed

    async def run(self):
        async with asyncio.TaskGroup() as tasks:
            for name in ("http", "http", "lines", "columns"):
                tasks.create_task(self._write(name, self._random()))
            tasks.create_task(self._publish(self._random()))
            tasks.create_task(self._read(self._random()))

    def _random(self):
        self._seed += 1
        return Random(self._seed)

    @property
    def _is_up(self):
        return self._server.process.returncode is None

    async def _write(self, protocol, random):
        how = {"http": write_http, "lines": write_lines, "columns": write_columns}[protocol]
        while self._is_up:
            group, write = self._model.send(random, protocol)
            try:
                state = await how(self._server, group, write)
            except ServerBusyError:
                state = REFUSED
            except (ClientError, aiohttp.ClientError, OSError):
                return  # whether it is stored is not known
            self._model.decide(write, state)
            if state == REFUSED:
                await asyncio.sleep(0.01)

    async def _publish(self, random):
        while self._is_up:
            for _ in range(4):
                group, write = self._model.send(random, "nats")
                await self._nats.publish(f"cc.{group.cluster}", _lines(group, write))
            await delivered(self._nats)

    async def _read(self, random):
        while self._is_up:
            group = random.choice([group for group in self._model.groups if group.writes] or self._model.groups)
            thread, asked = random.randrange(THREADS), self._model.now()
            try:
                [([values], _)] = await ask(self._server, group.cluster, [group], [thread], with_total=False)
            except ClientError:
                return
            self._model.observe(group, thread, values, asked)
            await asyncio.sleep(0)


# --- rounds


@dataclass(frozen=True)
class Plan:
    """How the server of a round is run and killed."""

    module: tuple[str, ...]
    seconds: float
    """Time of writing after which it is killed, if it has not killed itself."""
    killed_at_start: tuple[tuple[str, ...], ...]
    """How servers before it are run that kill themselves while they start."""


def plan(random, armed):
    """Decides on a round: a third of the servers run as shipped, the others with less time between their chores."""
    hurry = random.choice((0.0, 0.02, 0.1))
    module = ("ccms_server",) if hurry == 0 else ("helpers.crash_points", "--hurry", str(hurry))
    if hurry and random.random() < 0.6:
        kind = random.choice(("commit", "file"))
        after = int(math.exp(random.uniform(0, math.log(400 if kind == "commit" else 60))))
        module += ("--kind", kind, "--after", str(after), "--armed", str(armed))
    starts = [random.choice((("file", 5), ("commit", 5), ("file", 15))) for _ in range(random.choice((0, 0, 1, 2)))]
    return Plan(
        module,
        random.uniform(0.05, 1.6) if hurry else random.choice((0.3, 1.0, 2.2)) * random.uniform(0.9, 1.3),
        tuple(
            ("helpers.crash_points", "--kind", kind, "--after", str(random.randrange(most))) for kind, most in starts
        ),
    )


class Campaign:
    """Rounds in one directory.

    Attributes:
        directory: Of the store, the configuration and what else is needed.
        seed: Decides on everything but the scheduling of processes.
    """

    def __init__(self, directory, seed):
        self.directory = directory
        self.seed = seed
        self.model = Model()
        self._random = Random(seed)
        self._armed = directory / "armed"
        self._log = directory / "server.log"

    async def run(self, rounds, report):
        """Runs rounds; after the last one, the server is stopped regularly and started once more.

        Raises:
            MistakeError: The server lost something, or made something up.
        """
        async with nats_server() as broker, publisher(broker) as client:
            for number in range(rounds):
                began, before = time.monotonic(), self.model.acknowledged
                how = await self._round(broker, client, plan(self._random, self._armed))
                report(
                    f"seed {self.seed} round {number + 1}: {time.monotonic() - began:.1f} s, "
                    f"{self.model.acknowledged - before:,} samples acknowledged, {how}"
                )
            await self._stopped_regularly(broker)

    async def _round(self, broker, client, planned):
        deaths = [await self._die_at_start(broker, module) for module in planned.killed_at_start]
        self._armed.unlink(missing_ok=True)
        async with self._launched(broker, planned.module) as server:
            async with server.clients() as clients:
                await compare(self.model, clients)
                self._armed.touch()
                await self._load_until_killed(clients, client, planned.seconds)
            await server.end()
            tree = sorted(path.name for path in self.directory.rglob("*.wal"))
        blocks = len(list(self.directory.rglob("*.block")))
        return (
            f"WAL of {len(tree)} segments, {blocks} blocks; {sum(deaths)} deaths at start; {' '.join(planned.module)}"
        )

    async def _load_until_killed(self, server, client, seconds):
        def kill():
            if server.process.returncode is None:
                server.process.kill()

        timer = asyncio.get_running_loop().call_later(seconds, kill)
        try:
            await Load(self.model, server, client, self._random.getrandbits(32)).run()
        finally:
            timer.cancel()
            kill()
            await server.process.wait()
        await delivered(client)  # what was published for this server must not reach the next one
        for group in self.model.groups:
            for writes in group.writes.values():
                for write in writes:
                    if write.state == PENDING:
                        write.decided = min(write.decided, self.model.now())

    async def _die_at_start(self, broker, module):
        """Starts a server that kills itself on the way; whether it did. One that does not is killed when it serves."""
        async with self._launched(broker, module) as server:
            return await server.until_logged("serving REST") is None

    async def _stopped_regularly(self, broker):
        for _ in range(2):
            async with self._launched(broker, ("ccms_server",)) as server:
                async with server.clients() as clients:
                    await compare(self.model, clients)
                    code = await clients.terminate()
                if code != 0:
                    raise MistakeError(f"exit code {code}: {server.text}")

    def _launched(self, broker, module):
        return _Logged(
            self._log,
            launched(
                self.directory,
                module=module,
                metrics=METRICS,
                nats=[
                    {
                        "address": broker.url,
                        "subscriptions": [
                            {"subscribe-to": f"cc.{cluster}", "cluster-tag": cluster} for cluster in CLUSTERS
                        ],
                    }
                ],
                checkpoints={"directory": str(self.directory), "wal-bytes": 1 << 20},
            ),
        )


class _Logged:
    """A launched server whose log is kept, and must tell of no damage and no defect."""

    def __init__(self, path, context):
        self._path, self._context = path, context

    async def __aenter__(self):
        self._server = await self._context.__aenter__()
        return self._server

    async def __aexit__(self, *error):
        await self._context.__aexit__(*error)
        with self._path.open("a") as file:
            file.write(f"--- process {self._server.process.pid}\n{self._server.text}")
        for line in self._server.log:
            if any(bad in line for bad in ("damaged", "Traceback", "critical ", "error ")) and error[0] is None:
                raise MistakeError(f"the server says: {line}; see {self._path}")


def _say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def torture(directory, seed, rounds):
    """Runs campaigns, each in a directory of its own, which is kept if it ends with a mistake."""
    done = 0
    while done < rounds:
        with tempfile.TemporaryDirectory(dir=directory, prefix=f"torture-{seed}-") as name:
            some = min(CAMPAIGN_ROUNDS, rounds - done)
            try:
                await Campaign(Path(name), seed).run(some, _say)
            except BaseException:
                kept = Path(f"{name}-kept")
                shutil.copytree(name, kept)
                _say(f"seed {seed} failed; everything is in {kept}")
                raise
        done, seed = done + some, seed + 1


def _main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None, help="of the first directory; the next ones count up")
    parser.add_argument("--directory", default=None, help="where to write")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else Random().randrange(1 << 20)
    asyncio.run(torture(arguments.directory, seed, arguments.rounds))


if __name__ == "__main__":
    _main()
