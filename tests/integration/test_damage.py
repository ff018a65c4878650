"""Every byte of a small store damaged, every file cut anywhere: what is left is served, and nothing else.

What must be left is worked out from what was logged, which records are left, and which tiles.
"""

import logging
import math
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers.durable import DurableStore

from ccms_server import opening
from ccms_server.durability.block import Block
from ccms_server.durability.block_format import FRAME_BYTES, SUMMARY_BYTES
from ccms_server.durability.damage import DamageLog
from ccms_server.durability.damage import logger as damage_logger
from ccms_server.durability.records import HEADER_BYTES, Scan
from ccms_server.durability.sample_codec import SAMPLES, decode, decode_floors
from ccms_server.durability.state import COLUMNS
from ccms_server.errors import DirectoryError
from ccms_server.store.layout import WINDOW_SLOTS

METRICS = {
    "load": {"frequency": 60, "aggregation": "sum"},
    "power": {"frequency": 60},
    "energy": {"frequency": 10},
}
INTERVALS = {name: metric["frequency"] for name, metric in METRICS.items()}
WINDOW_SECONDS = 60 * WINDOW_SLOTS
ORIGIN = 110_676 * WINDOW_SECONDS  # a window begins here, for 60 s and for 10 s
THREADS = [("load", ("c", "n0", f"hwthread{thread}")) for thread in range(8)]
SERIES = [*THREADS, ("load", ("c", "n1")), ("power", ("c", "n0")), ("power", ("c", "n1")), ("energy", ("c", "n0"))]
SEGMENT_BYTES = 300
STRIDE = 23
"""Of so many damaged stores, one is written to and started again."""


@pytest.fixture(scope="module", autouse=True)
def short_segments_on_a_fast_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "SEGMENTS", (1 << 30) // SEGMENT_BYTES)
        for name in ("fsync", "fdatasync"):  # no power fails here
            patch.setattr(os, name, lambda descriptor: None)
        yield


class Collector(logging.Handler):
    """Files and offsets of logged damage."""

    def __init__(self):
        super().__init__()
        self.places = []

    def emit(self, record):
        self.places.append((record.args[0], int(record.args[1].replace(",", ""))))


@pytest.fixture(scope="module")
def logged():
    collector = Collector()
    damage_logger.addHandler(collector)
    damage_logger.propagate = False  # thousands of them are expected
    yield collector
    damage_logger.propagate = True
    damage_logger.removeHandler(collector)


@dataclass
class Store:
    """A directory, and all that was ever logged in it."""

    files: dict[str, bytes]
    log: list[tuple[int, int, bytes]]
    kept_numbers: set[int] = field(default_factory=set)
    """Records the WAL still has."""
    record_at: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    """By segment: begin, end and number of its records."""
    tile_at: dict[str, list[tuple[int, int, tuple[int, int, int]]]] = field(default_factory=dict)
    """By block: begin and end of the payloads of its tiles, and (interval, window, band) of each."""
    covered: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """The last record in each stored tile."""
    bands: list[int] = field(default_factory=list)
    keys: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """Metric and path of each series."""
    floors_in_state: dict[int, int] = field(default_factory=dict)

    def expected(self, numbers=None, *, lost_tiles=(), has_state=True):
        """Samples of all series by time, as `DurableStore.held` gives them."""
        numbers = self.kept_numbers if numbers is None else numbers
        floors = dict(self.floors_in_state) if has_state else {}
        slots = defaultdict(dict)
        for number, kind, payload in self.log:
            if kind != SAMPLES:
                for series, floor in zip(*map(list, decode_floors(payload)), strict=True):
                    if number in numbers:
                        floors[series] = max(floor, floors.get(series, floor))
                continue
            for series, slot, phase, value in zip(*(column.tolist() for column in decode(payload)), strict=True):
                tile = INTERVALS[self.keys[series][0]], slot // WINDOW_SLOTS, self.bands[series]
                covered = 0 if tile in lost_tiles else self.covered.get(tile, 0)
                if number in numbers or number <= covered:
                    slots[series][slot] = phase + slot * tile[0], value
        answers = {}
        for series, samples in slots.items():
            alive = dict(place for slot, place in samples.items() if slot >= floors.get(series, slot))
            if alive:
                answers[self.keys[series]] = alive
        return answers


def start_of(window):
    return ORIGIN + window * WINDOW_SECONDS


def write(store, window, slots, value, series=SERIES):
    """A record with some slots of a window of all series; each value is another one."""
    writes = []
    for metric, path in series:
        interval = INTERVALS[metric]
        times = [start_of(window) + interval * slot for slot in slots]
        writes.append((metric, path, times, [value + at + math.pi for at in range(len(times))]))
        value += 100
    store.write_all(writes)


def build(directory, *, segment_bytes):
    """A store with stored windows, late data, overwritten slots and freed ones; killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "SEGMENTS", (1 << 30) // segment_bytes)
        return _build(directory)


def _build(directory):
    store = DurableStore(directory, metrics=METRICS)
    log = []
    commit = store.keeper._wal.commit

    def observed(kind, parts):
        number = commit(kind, parts)
        log.append((number, kind, b"".join(parts)))
        return number

    store.keeper._wal.commit = observed
    write(store, 0, [0, 1, 2, 3], 10_000.0)
    store.keeper.free(("c", "n1"), start_of(0) + 60)
    write(store, 0, [2, 5], 20_000.0)
    write(store, 1, [0, 1, 7], 30_000.0)
    store.seal_and_store()
    write(store, 1, [4], 40_000.0, SERIES[4:])
    store.seal_and_store()
    write(store, 0, [1, 6], 50_000.0, SERIES[6:])  # late
    store.keeper.free(("c", "n0", "hwthread0"), start_of(0) + 120)
    write(store, 2, [0, 2], 60_000.0)
    write(store, 2, [2, 3], 70_000.0, SERIES[2:10])
    left = store.killed(directory.with_name("killed")) / "cc-metric-store"
    built = Store(read(left), log)
    built.bands = store.store.bands_of(range(store.store.n_series)).tolist()
    built.keys = sorted(SERIES, key=lambda key: store.series_id(*key))
    store.close()
    silent = DamageLog()
    for path in sorted((left / "wal").iterdir()):
        records = list(Scan(path, path.read_bytes(), silent))
        built.record_at[f"wal/{path.name}"] = [
            (record.offset, record.offset + 28 + len(record.payload), record.number) for record in records
        ]
        built.kept_numbers |= {record.number for record in records}
    for path in sorted((left / "blocks").rglob("*.block")):
        block = Block.open(path, silent)
        for row in block._loaded().tiles.tolist():
            band, length, _, _, number, offset = row
            tile = block.interval, block.window, band
            built.covered[tile] = number
            built.tile_at.setdefault(str(path.relative_to(left)), []).append((offset, offset + length, tile))
    assert silent.count == 0
    if "state" in built.files:
        for series, floor in zip(*map(list, decode_floors(log[1][2])), strict=True):
            built.floors_in_state[int(series)] = int(floor)
    return built


def read(directory):
    files = [Path(parent) / name for parent, _, names in os.walk(directory) for name in names]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    return build(tmp_path_factory.mktemp("cut") / "0", segment_bytes=SEGMENT_BYTES)


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    return build(tmp_path_factory.mktemp("uncut") / "0", segment_bytes=2500)


@pytest.fixture
def disk(tmp_path, logged):
    return Disk(tmp_path / "0", logged)


class Disk:
    """Where damaged stores are started."""

    def __init__(self, directory, logged):
        self.directory = directory
        self.root = directory / "cc-metric-store"
        self.logged = logged
        self.cases = 0

    def lay_out(self, files):
        there = read(self.root)  # most of them are as they should be, and making files takes longest
        for name in there.keys() - files.keys():
            (self.root / name).unlink()
        for name, content in files.items():
            if there.get(name) != content:
                path = self.root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        self.logged.places.clear()

    def start(self):
        return DurableStore(self.directory, metrics=METRICS)

    def check(self, store, name, content, expected, *, at, is_reported=True, is_everything=None):
        """Starts with a file as it is given, and checks what is there, and that it can be worked with."""
        self.lay_out({**store.files, name: content})
        recovered = self.start()
        held = recovered.held()
        assert held == expected, (name, at)
        hosts = {None: self.check_host(recovered, store, expected, is_everything)}
        places = [offset for path, offset in self.logged.places if path == self.root / name and offset <= at]
        if is_reported:
            assert places, (name, at)
            assert recovered.damage.count > 0
        elif is_reported is False:
            assert recovered.damage.count == 0, (name, at)
        copies = [(self.root / copy).read_bytes() for copy in ("series.a", "series.b")]
        assert copies == [store.files["series.a"]] * 2
        self.cases += 1
        if self.cases % STRIDE == 0:
            recovered = self.work_on(recovered, held)
        recovered.close()
        return hosts

    def check_host(self, recovered, store, expected, everything):
        """What a host answers is the sum of all its threads, if it answers."""
        threads = [expected.get(key, {}) for key in THREADS]
        allowed = [threads] if everything is None else [threads, [everything.get(key, {}) for key in THREADS]]
        for time, total in recovered.samples("load", ("c", "n0")).items():
            sums = []
            for rows in allowed:
                present = [row for row in rows if row]
                if all(time in row for row in present):
                    sums.append(sum(row[time] for row in present))
            assert total in sums, time

    def work_on(self, recovered, held):
        """Writes late and new samples, has them stored, and starts again, in between and afterwards."""
        value = 1e6
        for window, seals in ((1, False), (0, True), (3, False)):
            value += 1e5
            write(recovered, window, [9, 10], value)
            for at, key in enumerate(SERIES):
                samples = held.setdefault(key, {})
                for slot in (0, 1):
                    time = start_of(window) + INTERVALS[key[0]] * (9 + slot)
                    samples[time] = value + 100 * at + slot + math.pi
            assert recovered.held() == held
            if seals:
                recovered.seal_and_store()
                assert recovered.held() == held
            recovered.close()
            recovered = self.start()
            assert recovered.held() == held
        return recovered


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :]


def is_last_segment(store, name):
    return name == max(store.record_at)


def test_what_was_built_is_what_it_should_be(cut, uncut, disk):
    assert "state" in cut.files
    assert len(cut.record_at) >= 3
    assert min(cut.kept_numbers) > 3  # the first windows are in blocks alone
    assert len(uncut.kept_numbers) == len(uncut.log)
    for store in (cut, uncut):
        assert len(store.tile_at) == 4
        disk.lay_out(store.files)
        recovered = disk.start()
        assert recovered.held() == store.expected()
        assert recovered.damage.count == 0
        assert len(recovered.samples("load", ("c", "n0"))) == 8
        disk.check_host(recovered, store, store.expected(), None)
        recovered.close()


# --- the WAL


@pytest.mark.parametrize("step", [0, 1])
def test_a_damaged_byte_of_the_wal_costs_its_record(cut, disk, step):
    for name, records in cut.record_at.items():
        content = cut.files[name]
        for at in range(step, len(content), 2):
            lost = {number for begin, end, number in records if begin <= at < end}
            is_tail = is_last_segment(cut, name) and at >= records[-1][0]
            expected = cut.expected(cut.kept_numbers - lost)
            reported = None if is_tail or at >= records[-1][1] else True
            disk.check(cut, name, flipped(content, at), expected, at=at, is_reported=reported)


def test_a_wal_that_is_cut_has_what_is_before(cut, disk):
    for name, records in cut.record_at.items():
        content = cut.files[name]
        for at in range(len(content)):
            lost = {number for _, end, number in records if end > at}
            expected = cut.expected(cut.kept_numbers - lost)
            is_last = is_last_segment(cut, name)
            disk.check(cut, name, content[:at], expected, at=at, is_reported=not is_last and bool(lost))


# --- blocks


@pytest.mark.parametrize("kind", ["cut", "uncut"])
def test_a_damaged_byte_of_a_block_costs_its_tile_at_most(kind, disk, request):
    store = request.getfixturevalue(kind)
    everything = store.expected()
    for name, tiles in store.tile_at.items():
        content = store.files[name]
        for at in range(0, len(content), 1 if kind == "cut" else 7):
            lost = {tile for begin, end, tile in tiles if begin <= at < end}
            expected = store.expected(lost_tiles=lost)
            if kind == "uncut":
                assert expected == everything
            reported = True if lost else None
            disk.check(
                store, name, flipped(content, at), expected, at=at, is_reported=reported, is_everything=everything
            )


@pytest.mark.parametrize("kind", ["cut", "uncut"])
def test_a_block_that_is_cut_has_what_is_before(kind, disk, request):
    store = request.getfixturevalue(kind)
    everything = store.expected()
    for name, tiles in store.tile_at.items():
        content = store.files[name]
        for at in range(0, len(content), 1 if kind == "cut" else 7):
            lost = {tile for _, end, tile in tiles if end > at}
            left = content[:at]
            expected = store.expected(lost_tiles=lost)
            if kind == "uncut":
                assert expected == everything
            disk.check(store, name, left, expected, at=max(at, SUMMARY_BYTES), is_everything=everything)


# --- the catalogue, the state, the format


@pytest.mark.parametrize("name", ["series.a", "series.b"])
def test_a_damaged_copy_of_the_catalogue_costs_nothing(cut, disk, name):
    content, expected = cut.files[name], cut.expected()
    for at in range(len(content)):
        is_tail = at >= last_record(cut, name)
        disk.check(cut, name, flipped(content, at), expected, at=at, is_reported=None if is_tail else True)
        disk.check(cut, name, content[:at], expected, at=at, is_reported=None)


def last_record(store, name):
    *_, last = Scan(name, store.files[name], DamageLog())
    return last.offset


def test_a_damaged_state_costs_what_was_freed_at_most(cut, disk):
    content, expected = cut.files["state"], cut.expected()
    without = cut.expected(has_state=False)
    assert without != expected
    floors_at, floors_end = 52 + (4 + 4 + 1 + 8 + 8) * len(SERIES), 52 + (4 + 4 + 1 + 8 + 8 + 8) * len(SERIES)
    assert len(content) > floors_end
    for at in range(len(content)):
        is_lost = at < 52 or floors_at <= at < floors_end
        disk.check(cut, "state", flipped(content, at), without if is_lost else expected, at=at)
        disk.check(cut, "state", content[:at], without if at < floors_end else expected, at=at)


def test_without_a_state_only_what_was_freed_is_lost(cut, disk):
    disk.lay_out({name: content for name, content in cut.files.items() if name != "state"})
    recovered = disk.start()
    assert recovered.held() == cut.expected(has_state=False)
    recovered.close()


def test_a_damaged_format_is_refused_with_a_clear_message(cut, disk):
    content = cut.files["format"]
    for damaged in [
        *(flipped(content, at) for at in range(len(content))),
        *(content[:at] for at in range(len(content))),
    ]:
        disk.lay_out({**cut.files, "format": damaged})
        before = read(disk.root)
        try:
            recovered = disk.start()
        except DirectoryError as error:
            assert str(disk.root / "format") in str(error)  # noqa: PT017  a flipped space does no harm
            assert read(disk.root) == before
        else:
            assert recovered.held() == cut.expected()
            recovered.close()


# --- together


def test_a_damaged_tile_is_not_carried_into_the_next_block(cut, disk):
    name = min(cut.tile_at)
    assert name.startswith("blocks/10s/")
    for name, tiles in cut.tile_at.items():
        begin, _, tile = tiles[-1]
        disk.lay_out({**cut.files, name: flipped(cut.files[name], begin + 9)})
        recovered = disk.start()
        held = recovered.held()
        assert held == cut.expected(lost_tiles={tile})
        window = tile[1] * WINDOW_SLOTS * tile[0]
        metric, path = next(key for key, band in zip(cut.keys, cut.bands, strict=True) if INTERVALS[key[0]] == tile[0])
        recovered.write(metric, path, [window + tile[0] * 20], [7.0])  # another tile of the same block
        held[metric, path][window + tile[0] * 20] = 7.0
        recovered.seal_and_store()
        assert recovered.held() == held
        assert (disk.root / name, begin) in disk.logged.places
        recovered.close()
        disk.logged.places.clear()
        recovered = disk.start()
        assert recovered.held() == held
        assert recovered.damage.count == 0, disk.logged.places
        recovered.close()


def test_sizes_are_those_that_are_assumed_here():
    assert (HEADER_BYTES, FRAME_BYTES, len(COLUMNS)) == (32, 32, 6)
