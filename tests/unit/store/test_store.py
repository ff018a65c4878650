"""What the store keeps, rejects and answers; seconds are counted from an arbitrary START on a slot's centre."""

import numpy as np
import pytest

from ccms_server.errors import RejectReason
from ccms_server.store import series
from ccms_server.store.append import NO_SAMPLE, STORED
from ccms_server.store.layout import TILE_ROWS, WINDOW_SLOTS
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

START = 1_700_000_000
FOREVER = 1 << 61
NAN = np.nan
METRICS = [
    Metric("load", 60),
    Metric("flops", 60, Aggregation.SUM),
    Metric("ipc", 60, Aggregation.AVG),
    Metric("fast", 1),
]


@pytest.fixture
def store():
    return Store(METRICS, series_max=1000, open_window_bytes=64 * TILE_BYTES)


def append(store, metric, path, times, values, oldest=-FOREVER, newest=FOREVER):
    series = store.series_id(store.metric_id(metric), path)
    ids = np.full(len(times), series, np.int32)
    return store.append(ids, np.array(times, np.int64), np.array(values, float), oldest=oldest, newest=newest)


def read(store, metric, path, start, end):
    """(values, start, end) of a level."""
    number = store.metric_id(metric)
    table, reader, group = store.tables[number], store.reader(), store.group(number, path)
    span = reader.span(table, group, start, end)
    host = store.tree.find(path) if len(path) == 2 else None
    return reader.values(table, span, host).tolist(), span.start, span.end(table.metric.interval)


def same(values, expected):
    np.testing.assert_array_equal(np.array(values), np.array(expected, float))


HOST = ("alpha", "n1")


def test_samples_come_back(store):
    assert append(store, "load", HOST, [START, START + 60, START + 120], [1, 2, 3])[0] == 3
    assert read(store, "load", HOST, START, START + 600) == ([1, 2, 3], START, START + 180)


def test_a_later_sample_of_a_slot_replaces_the_earlier_one(store):
    append(store, "load", HOST, [START, START + 60, START + 70], [1, 2, 3])
    assert read(store, "load", HOST, START, START + 600)[0] == [1, 3]
    assert store.size().samples_open == 2


def test_a_gap_is_missing(store):
    append(store, "load", HOST, [START, START + 180], [1, 4])
    same(read(store, "load", HOST, START, START + 600)[0], [1, NAN, NAN, 4])


def test_jitter_of_less_than_half_an_interval_stays_in_its_slot(store):
    append(store, "load", HOST, [START, START + 60 + 29, START + 120 - 30, START + 180 + 15], [0, 1, 2, 3])
    assert read(store, "load", HOST, START, START + 600)[0] == [0, 1, 2, 3]


def test_order_of_arrival_does_not_matter(store):
    append(store, "load", HOST, [START + 60 * k for k in (7, 3, 900, 0, 1)], [7, 3, 900, 0, 1])
    values, start, _ = read(store, "load", HOST, START, START + 60 * 2000)
    assert start == START
    assert len(values) == 901
    assert [k for k, value in enumerate(values) if not np.isnan(value)] == [0, 1, 3, 7, 900]


def test_samples_before_the_epoch(store):
    append(store, "load", HOST, [-120, -60, 0], [1, 2, 3])
    assert read(store, "load", HOST, -1000, 1000) == ([1, 2, 3], -120, 60)


@pytest.mark.parametrize(("start", "first"), [(600, 10), (629, 10), (630, 11), (659, 11)])
def test_a_range_off_the_grid_begins_with_the_nearest_slot(store, start, first):
    append(store, "load", HOST, [START + 60 * k for k in range(50)], range(50))
    values, begin, end = read(store, "load", HOST, START + start, START + start + 600)
    assert values == [first + k for k in range(10)]
    assert (begin, end) == (START + start, START + start + 600)


def test_ranges_without_samples(store):
    append(store, "load", HOST, [START, START + 60], [1, 2])
    assert read(store, "load", HOST, START - 600, START - 300) == ([], START, START)
    assert read(store, "load", HOST, START + 600, START + 900) == ([], START + 600, START + 600)
    assert read(store, "load", HOST, START + 60, START + 60) == ([], START + 60, START + 60)


def test_times_outside_the_limits_are_rejected(store):
    stored, outcome = append(store, "load", HOST, [99, 100, 200, 201], [1, 2, 3, 4], oldest=100, newest=200)
    assert stored == 2
    assert outcome.tolist() == [RejectReason.TOO_OLD, STORED, STORED, RejectReason.TOO_NEW]


def test_what_is_no_number_is_not_stored(store):
    stored, outcome = append(store, "load", HOST, [START] * 3, [NAN, np.inf, -np.inf])
    assert stored == 0
    assert outcome.tolist() == [NO_SAMPLE, RejectReason.INVALID_NUMBER, RejectReason.INVALID_NUMBER]
    assert not len(store.group(0, HOST))


def test_no_more_series_than_allowed():
    store = Store(METRICS, series_max=2, open_window_bytes=TILE_BYTES)
    assert store.series_id(0, ("c", "h1")) == 0
    assert store.series_id(0, ("c", "h2")) == 1
    assert store.series_id(0, ("c", "h3")) is None
    assert store.series_id(0, ("c", "h1")) == 0
    assert store.hosts("c") == ["h1", "h2"]


def test_sealing_changes_no_answer(store):
    times = [START + 60 * k for k in range(0, 3000, 3)]
    append(store, "load", HOST, times, range(len(times)))
    before = read(store, "load", HOST, START, START + 60 * 4000)
    store.seal_all()
    assert store.size().open_tiles == 0
    assert store.size().samples_sealed == len(times)
    after = read(store, "load", HOST, START, START + 60 * 4000)
    same(after[0], before[0])
    assert after[1:] == before[1:]


def test_late_samples_open_a_sealed_window_again(store):
    append(store, "load", HOST, [START + 60 * k for k in range(600)], range(600))
    store.seal_all()
    append(store, "load", HOST, [START + 60 * 5], [-5])
    values = read(store, "load", HOST, START, START + 60 * 600)[0]
    assert values == [*range(5), -5, *range(6, 600)]
    assert store.size().open_tiles == 1
    store.seal_all()
    assert read(store, "load", HOST, START, START + 60 * 600)[0] == values


def test_quiet_windows_are_sealed_and_busy_ones_are_not(store):
    append(store, "load", HOST, [START], [1])
    append(store, "load", HOST, [START + 60 * (WINDOW_SLOTS + k) for k in range(40)], range(40))
    for _ in store.maintain(oldest=-FOREVER):
        pass
    assert store.size().sealed_tiles == 0, "what came since the last look stays open"
    append(store, "load", HOST, [START + 60 * (WINDOW_SLOTS + 50)], [1])
    for _ in store.maintain(oldest=-FOREVER):
        pass
    assert (store.size().sealed_tiles, store.size().open_tiles) == (1, 1)


def test_a_full_pool_seals_what_was_written_longest_ago():
    store = Store(METRICS, series_max=100, open_window_bytes=16 * TILE_BYTES)
    append(store, "load", HOST, [START + 60 * k for k in range(WINDOW_SLOTS * 40)], range(WINDOW_SLOTS * 40))
    size = store.size()
    assert size.open_tiles <= 16
    assert size.samples_open + size.samples_sealed == WINDOW_SLOTS * 40
    assert read(store, "load", HOST, START, FOREVER)[0] == list(range(WINDOW_SLOTS * 40))


def test_retention_drops_whole_windows(store):
    append(store, "load", HOST, [START + 60 * k for k in range(WINDOW_SLOTS * 4)], range(WINDOW_SLOTS * 4))
    append(store, "load", ("alpha", "gone"), [START], [1])
    store.seal_all()
    oldest = START + 60 * WINDOW_SLOTS * 2
    for _ in store.maintain(oldest=oldest):
        pass
    values, start, _ = read(store, "load", HOST, START, FOREVER)
    assert values[-1] == WINDOW_SLOTS * 4 - 1
    assert start <= oldest
    assert len(values) < WINDOW_SLOTS * 3 + 1
    assert values[0] == (start - START) / 60
    assert not len(store.group(0, ("alpha", "gone")))


def test_freed_slots_do_not_exist(store):
    append(store, "load", HOST, [START + 60 * k for k in range(10)], range(10))
    append(store, "load", ("alpha", "n2"), [START], [1])
    assert store.free(HOST, START + 60 * 4) == 1
    assert read(store, "load", HOST, START, FOREVER) == ([4, 5, 6, 7, 8, 9], START + 240, START + 600)
    assert append(store, "load", HOST, [START + 60 * 3], [1])[1].tolist() == [RejectReason.FREED]
    assert read(store, "load", ("alpha", "n2"), START, FOREVER)[0] == [1]


def test_freeing_everything_leaves_room_for_what_comes(store):
    append(store, "load", HOST, [START + 60 * k for k in range(10)], range(10))
    assert store.free(("alpha",), START + 10**9) == 1
    assert not len(store.group(0, HOST))
    assert append(store, "load", HOST, [START + 600], [10])[0] == 1
    assert read(store, "load", HOST, START, FOREVER) == ([10], START + 600, START + 660)


def test_freeing_what_does_not_exist_makes_nothing(store):
    assert store.free(("nobody", "n1"), START) == 0
    assert store.tree.find(("nobody",)) is None


class TestAggregation:
    def threads(self, store, metric="flops", count=12, slots=600, begin=0):
        for thread in range(count):
            times = [START + 60 * (begin + k) for k in range(slots)]
            append(store, metric, (*HOST, f"hwthread{thread}"), times, [thread * 1000 + k for k in range(slots)])

    def sums(self, count, slots):
        return [sum(thread * 1000 + k for thread in range(count)) for k in range(slots)]

    @pytest.mark.parametrize("count", [2, 7, 12, TILE_ROWS + 5])
    @pytest.mark.parametrize("sealed", [False, True])
    def test_sum(self, store, count, sealed):
        self.threads(store, count=count)
        if sealed:
            store.seal_all()
        assert read(store, "flops", HOST, START, FOREVER) == (self.sums(count, 600), START, START + 36000)
        assert read(store, "flops", HOST, START + 60 * 100, START + 60 * 400)[0] == self.sums(count, 600)[100:400]

    @pytest.mark.parametrize("sealed", [False, True])
    def test_average(self, store, sealed):
        self.threads(store, metric="ipc", count=10)
        if sealed:
            store.seal_all()
        assert read(store, "ipc", HOST, START, FOREVER)[0] == [value / 10 for value in self.sums(10, 600)]

    def test_sealed_windows_answer_from_one_row(self, store):
        self.threads(store, count=12)
        store.seal_all()
        windows = store.tables[store.metric_id("flops")].windows.values()
        assert all(list(window.aggregates) == [store.tree.find(HOST)] for window in windows)

    def test_a_late_sample_is_in_the_aggregate_at_once(self, store):
        self.threads(store, count=12)
        store.seal_all()
        append(store, "flops", (*HOST, "hwthread3"), [START + 60 * 7], [0])
        expected = self.sums(12, 600)
        expected[7] -= 3007
        assert read(store, "flops", HOST, START, FOREVER)[0] == expected
        store.seal_all()
        assert read(store, "flops", HOST, START, FOREVER)[0] == expected
        assert not any(window.stale for window in store.tables[1].windows.values())

    def test_other_hosts_keep_their_aggregates(self, store):
        self.threads(store, count=12)
        for thread in range(70):  # ends in another band
            append(
                store, "flops", ("alpha", "n2", f"hwthread{thread}"), [START + 60 * k for k in range(300)], range(300)
            )
        store.seal_all()
        append(store, "flops", (*HOST, "hwthread0"), [START], [5])
        store.seal_all()
        assert read(store, "flops", ("alpha", "n2"), START, FOREVER)[0] == [70 * k for k in range(300)]
        assert read(store, "flops", HOST, START, START + 60)[0] == [self.sums(12, 1)[0] + 5]

    @pytest.mark.parametrize("sealed", [False, True])
    def test_a_gap_in_one_child_is_a_gap(self, store, sealed):
        self.threads(store, count=9, slots=20)
        append(store, "flops", (*HOST, "hwthread9"), [START, START + 60 * 19], [1, 1])
        if sealed:
            store.seal_all()
        values = read(store, "flops", HOST, START, FOREVER)[0]
        assert not np.isnan([values[0], values[19]]).any()
        assert np.isnan(values[1:19]).all()

    @pytest.mark.parametrize("sealed", [False, True])
    def test_children_answer_for_the_time_they_share(self, store, sealed):
        self.threads(store, count=10, slots=500)
        append(store, "flops", (*HOST, "late"), [START + 60 * k for k in range(300, 700)], [0] * 400)
        if sealed:
            store.seal_all()
        values, start, end = read(store, "flops", HOST, START, FOREVER)
        assert (start, end) == (START + 60 * 300, START + 60 * 500)
        assert values == self.sums(10, 500)[300:]

    @pytest.mark.parametrize("sealed", [False, True])
    def test_children_without_samples_in_the_range_take_no_part(self, store, sealed):
        self.threads(store, count=10, slots=600)
        append(store, "flops", (*HOST, "dead"), [START, START + 60], [1, 1])
        if sealed:
            store.seal_all()
        assert read(store, "flops", HOST, START + 60 * 300, FOREVER)[0] == self.sums(10, 600)[300:]

    def test_children_that_share_no_time_answer_with_nothing(self, store):
        append(store, "flops", (*HOST, "early"), [START], [1])
        append(store, "flops", (*HOST, "late"), [START + 600], [1])
        assert read(store, "flops", HOST, START, FOREVER) == ([], START + 600, START + 600)

    @pytest.mark.parametrize("sealed", [False, True])
    def test_children_out_of_step_are_aggregated_by_the_nearest_slot(self, store, sealed):
        for thread in range(10):
            times = [START + 60 * k + 5 * thread for k in range(300)]
            append(store, "flops", (*HOST, f"hwthread{thread}"), times, range(300))
        if sealed:
            store.seal_all()
        values, start, end = read(store, "flops", HOST, START, FOREVER)
        assert start == START + 45
        assert end == START + 45 + 60 * len(values)
        # At START + 45 the slots of threads 0..3 nearest are those one minute later: they are 45 to 30 s away.
        ahead = sum(1 for thread in range(10) if 45 - 5 * thread >= 30)
        assert values == [10 * k + ahead for k in range(299)]


class TestPhase:
    def test_a_collector_that_restarts_out_of_step_gets_a_new_phase_with_the_next_window(self, store):
        """Without it, samples that jitter around a slot's border would take each other's slot for ever."""
        slots = 2 * WINDOW_SLOTS
        in_step = [START + 60 * k for k in range(slots)]
        restarted = [START + 60 * (slots + k) + 30 + (-1) ** k for k in range(2 * WINDOW_SLOTS)]
        append(store, "load", HOST, in_step, range(slots))
        append(store, "load", HOST, restarted, range(slots, slots + len(restarted)))
        values, start, _ = read(store, "load", HOST, START, FOREVER)
        assert start == START
        first_with_new_phase = -(START // 60) % WINDOW_SLOTS + WINDOW_SLOTS * 3  # slots until the next window begins
        late = values[first_with_new_phase + 1 :]
        assert not np.isnan(late).any()
        assert np.diff(late).tolist() == [1] * (len(late) - 1)

    def test_one_late_sample_does_not_move_the_phase(self, store):
        border = (START // 60 // WINDOW_SLOTS + 1) * WINDOW_SLOTS
        first = border * 60 + START % 60
        append(store, "load", HOST, [first - 60, first + 25, first + 60, first + 120], [0, 1, 2, 3])
        assert read(store, "load", HOST, first - 60, FOREVER) == ([0, 1, 2, 3], first - 60, first + 180)

    def test_sealing_keeps_the_phases_of_each_window(self, store):
        border = (START // 60 // WINDOW_SLOTS + 1) * WINDOW_SLOTS
        first = border * 60 + START % 60
        times = [first - 120, first - 60 + 20, first + 20, first + 80]  # off by 20 s since the one before the border
        append(store, "load", HOST, times, [0, 1, 2, 3])
        open_answer = read(store, "load", HOST, first + 49, FOREVER)
        store.seal_all()
        assert read(store, "load", HOST, first + 49, FOREVER) == open_answer
        assert open_answer[0] == [2, 3], "49 s after the old centre, 29 s after the new one"
        assert read(store, "load", HOST, first + 50, FOREVER)[0] == [3]

    def test_an_interval_of_one_second(self, store):
        append(store, "fast", HOST, [START + k for k in range(1000)], range(1000))
        assert read(store, "fast", HOST, START + 300, START + 310)[0] == list(range(300, 310))


def test_a_tile_written_and_sealed_while_its_window_is_added_up_stays_stale(store):
    """Maintenance pauses between its pieces, and a full pool seals tiles at any time."""
    for thread in range(10):
        append(store, "flops", (*HOST, f"hwthread{thread}"), [START + 60 * k for k in range(300)], [1] * 300)
    store.seal_all()
    table = store.tables[store.metric_id("flops")]
    number = min(table.windows)
    append(store, "flops", (*HOST, "hwthread0"), [START], [1])
    store._seal_tile(table, number, table.bands[0])  # as a full pool does: sealed, and not added up
    pieces = store.seal_window(table, number)
    next(pieces)
    next(pieces)  # the host has been added up by now
    append(store, "flops", (*HOST, "hwthread0"), [START + 60], [1000])
    store._seal_tile(table, number, table.bands[0])
    for _ in pieces:
        pass
    assert read(store, "flops", HOST, START, START + 180)[0] == [10, 1009, 10]
    store.seal_all()
    assert not table.unsealed
    assert read(store, "flops", HOST, START, START + 180)[0] == [10, 1009, 10]


def test_sealed_windows_cost_maintenance_nothing(store):
    append(store, "load", HOST, [START + 60 * k for k in range(WINDOW_SLOTS * 10)], range(WINDOW_SLOTS * 10))
    assert store.tables[0].unsealed
    store.seal_all()
    assert not store.tables[0].unsealed
    append(store, "load", HOST, [START], [0])
    assert store.tables[0].unsealed == {START // 60 // WINDOW_SLOTS}


def test_a_tile_opened_again_in_the_pause_after_it_was_sealed_stays_stale(store):
    for thread in range(10):
        append(store, "flops", (*HOST, f"hwthread{thread}"), [START + 60 * k for k in range(20)], [1] * 20)
    table = store.tables[store.metric_id("flops")]
    [number] = table.windows
    for _ in store.seal_window(table, number):
        if not table.windows[number].open_tiles():
            append(store, "flops", (*HOST, "hwthread0"), [START + 60], [1000])
    assert table.windows[number].open_tiles()
    assert number in table.unsealed
    assert read(store, "flops", HOST, START, START + 180)[0] == [10, 1009, 10]
    store.seal_all()
    assert not table.windows[number].open_tiles()
    assert read(store, "flops", HOST, START, START + 180)[0] == [10, 1009, 10]


def test_series_of_a_host_are_registered_together_as_they_would_be_one_by_one():
    metrics = [Metric("load", 60, None), Metric("flops", 60, Aggregation.SUM)]
    threads = [(metric, (f"hwthread{thread}",)) for metric in (1, 0) for thread in range(TILE_ROWS + 3)]
    below_host = [(0, ()), threads[5], *threads, (1, ("socket0", "die1")), threads[0], (0, ())]
    told = {True: [], False: []}
    stores = {}
    for is_together in told:
        store = stores[is_together] = Store(metrics, series_max=1000, open_window_bytes=0)
        store.on_registered.append(
            lambda new, rows=told[is_together]: rows.extend(
                zip(range(new.first, new.first + len(new.paths)), new.metric_ids.tolist(), new.paths, strict=True)
            )
        )
        store.series_id(1, ("c", "other", "hwthread1"))

    together = stores[True].host_series("c", "h", below_host)
    one_by_one = [stores[False].series_id(metric, ("c", "h", *below)) for metric, below in below_host]

    assert together.tolist() == one_by_one
    assert told[True] == told[False]
    assert stores[True].series_free == stores[False].series_free
    assert stores[True].host_series("c", "h", below_host).tolist() == one_by_one, "they are known"
    for together_table, other_table in zip(stores[True].tables, stores[False].tables, strict=True):
        assert list(together_table.hosts.values()) == list(other_table.hosts.values())
        assert together_table.bands == other_table.bands
    _, rows = stores[True].series_columns(["band", "lane"])
    _, expected = stores[False].series_columns(["band", "lane"])
    assert rows["band"].tolist() == expected["band"].tolist()
    assert rows["lane"].tolist() == expected["lane"].tolist()


def test_a_reader_meets_only_series_that_have_a_row():
    """Every series in the tree is in the columns that readers index."""
    store = Store([Metric("load", 60, None)], series_max=5000, open_window_bytes=0)
    seen = []

    class Spying(dict):
        def update(self, new):
            seen.extend(store.is_known(np.array(list(new.values()), np.int32)).tolist())
            super().update(new)

    store.tree.make(("c", "h")).series = Spying()
    store.host_series("c", "h", [(0, ())])

    assert seen == [True]


def test_rows_are_not_taken_for_series_there_is_no_memory_for(monkeypatch):
    store = Store([Metric("load", 60, None)], series_max=5000, open_window_bytes=0)

    def no_more(*_):
        raise MemoryError("no more")

    new = [(0, (f"t{number}",)) for number in range(1025)]  # one more than there is room for at first
    with monkeypatch.context() as patched:
        patched.setattr(series, "_doubled", no_more)
        with pytest.raises(MemoryError):
            store.host_series("c", "h", new)
    assert store.host_series("c", "h", new).tolist() == list(range(1025))
    rows = store._bands.columns.series[store.tables[0].bands]
    assert rows[rows >= 0].tolist() == list(range(1025))
