"""A store and a dict, driven side by side: whatever is written, sealed, freed or dropped, both must answer the same."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from ccms_server.store.layout import WINDOW_SLOTS
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

INTERVAL = 60
ORIGIN = 1_700_000_040  # a slot's centre
HOSTS = ["n0", "n1"]
COMPONENTS = [f"hwthread{thread}" for thread in range(10)]
FOREVER = 1 << 61

slots = st.integers(0, 3 * WINDOW_SLOTS)
host_names = st.sampled_from(HOSTS)
# Enough components of the first host to make stored aggregates, few of the second.
paths = st.one_of(
    st.builds(lambda component: ("c", "n0", component), st.sampled_from(COMPONENTS)),
    st.builds(lambda component: ("c", "n1", component), st.sampled_from(COMPONENTS[:3])),
)


class StoreAgainstModel(RuleBasedStateMachine):
    written = Bundle("written")

    def __init__(self):
        super().__init__()
        self.store = self.new_store()
        self.model: dict[tuple[str, ...], dict[int, float]] = {}
        self.floor: dict[tuple[str, ...], int] = {}
        self.first: dict[tuple[str, ...], int] = {}
        self.value = 0.0
        self.oldest = -FOREVER

    def new_store(self):
        # Sixteen tiles: the pool is full now and then.
        return Store([Metric("m", INTERVAL, Aggregation.SUM)], series_max=100, open_window_bytes=16 * TILE_BYTES)

    def put(self, *columns, oldest):
        return self.store.append(*columns, oldest=oldest, newest=FOREVER)

    def drop(self, path, before):
        self.store.free(path, before)

    def maintain(self):
        return self.store.maintain(self.oldest)

    def append(self, path, at):
        self.value += 1
        series = self.store.series_id(0, path)
        values = self.value + np.arange(len(at))
        ids = np.full(len(at), series, np.int32)
        times = ORIGIN + INTERVAL * np.array(at, np.int64)
        stored, _ = self.put(ids, times, values, oldest=self.oldest)
        samples = self.model.setdefault(path, {})
        kept = 0
        for slot, value in zip(at, values.tolist(), strict=True):
            if slot >= self.floor.get(path, -1) and ORIGIN + INTERVAL * slot >= self.oldest:
                appeared = all(before < self.floor.get(path, -1) for before in samples)
                self.first[path] = slot if appeared else min(slot, self.first[path])
                samples[slot] = value
                kept += 1
        self.value = values[-1]
        assert stored == kept

    @rule(target=written, path=paths, first=slots, length=st.integers(1, 400), step=st.integers(1, 3))
    def write_run(self, path, first, length, step):
        self.append(path, list(range(first, first + length * step, step)))
        return path

    @rule(target=written, path=paths, at=st.lists(slots, min_size=1, max_size=20))
    def write_scattered(self, path, at):
        self.append(path, at)
        return path

    @rule(first=slots, length=st.integers(100, 600))
    def write_all_threads(self, first, length):
        for component in COMPONENTS:
            self.append(("c", "n0", component), list(range(first, first + length)))

    @rule()
    def seal_everything(self):
        self.store.seal_all()

    @rule(pieces=st.integers(1, 40))
    def maintain_for_a_while(self, pieces):
        maintenance = self.maintain()
        for _ in range(pieces):
            next(maintenance, None)

    @rule(slot=slots)
    def maintain_while_writing(self, slot):
        for piece, _ in enumerate(self.maintain()):
            self.append(("c", "n0", COMPONENTS[piece % len(COMPONENTS)]), [slot + piece])

    @rule(path=written, slot=slots)
    def free(self, path, slot):
        self.drop(path, ORIGIN + INTERVAL * slot)
        samples = self.model[path]
        alive = [s for s in samples if s >= self.floor.get(path, -1)]
        if alive:
            floor = min(slot, max(alive) + 1)
            if floor > max(self.floor.get(path, -1), self.first[path]):
                self.floor[path] = floor

    def expected(self, members):
        """(values, first slot) of the members together, over the time they share."""
        spans = []
        for path in members:
            alive = {s: v for s, v in self.model.get(path, {}).items() if s >= self.floor.get(path, -1)}
            if alive:
                # The floor hides samples; the span begins with it, or with the first sample since all were hidden.
                first = max(self.first[path], self.floor.get(path, -1))
                spans.append((first, max(alive), alive))
        if not spans:
            return None
        first, last = max(span[0] for span in spans), min(span[1] for span in spans)
        rows = [[alive.get(s, np.nan) for s in range(first, last + 1)] for _, _, alive in spans]
        return [sum(column) for column in zip(*rows, strict=True)] if first <= last else [], first

    def check(self, path, members):
        group = self.store.group(0, path)
        expected = self.expected(members)
        if expected is None:
            assert len(group) == 0
            return
        reader, table = self.store.reader(), self.store.tables[0]
        span = reader.span(table, group, ORIGIN - 10 * INTERVAL, ORIGIN + 10_000 * INTERVAL)
        host = self.store.tree.find(path) if len(path) == 2 else None
        np.testing.assert_array_equal(reader.values(table, span, host), np.array(expected[0], float))
        assert span.start == ORIGIN + INTERVAL * expected[1]

    @invariant()
    def every_series_answers_like_the_model(self):
        for path in self.model:
            self.check(path, [path])

    @invariant()
    def every_host_answers_like_the_model(self):
        for host in HOSTS:
            self.check(("c", host), [path for path in self.model if path[1] == host])

    @invariant()
    def no_sample_is_counted_twice_or_lost(self):
        size = self.store.size()
        assert size.samples_open + size.samples_sealed == sum(map(len, self.model.values()))
