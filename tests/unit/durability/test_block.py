import mmap
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c

from ccms_server.durability.block import (
    NO_HOST,
    AggregateEntry,
    Block,
    DamagedFileError,
    TileEntry,
    block_path,
    write_block,
)
from ccms_server.durability.damage import DamageLog
from ccms_server.errors import NewerFormatError
from ccms_server.store.layout import WINDOW_SLOTS
from ccms_server.store.sealed_tile import SealedTile, as_stored

INTERVAL, WINDOW = 60, 110_000
BANDS = (3, 4, 9, 70_000)
METRICS = (2, 5)


class Damages(DamageLog):
    """Keeps what is reported."""

    def __init__(self):
        super().__init__()
        self.found = []

    def add(self, damage):
        self.count += 1
        self.found.append(damage)


def sealed(seed, n_rows=1, n_samples=9):
    values = np.full((n_rows, WINDOW_SLOTS), np.nan)
    values.flat[:n_samples] = np.random.default_rng(seed).normal(size=n_samples).round(2)
    return SealedTile.seal(as_stored(values), np.full(n_rows, 17, np.int32))


def tile_entry(band, seed=None, number=None, **shape):
    tile = sealed(band if seed is None else seed, **shape)
    number = 1000 + band if number is None else number
    return TileEntry(band=band, number=number, payload=tile.payload, n_samples=tile.n_samples)


def members(host):
    return host.to_bytes(8, "little")


def aggregate_entry(metric, hosts):
    rows = [(host, members(host)) for host in hosts]
    return AggregateEntry(metric=metric, rows=rows, payload=sealed(100 + metric, len(hosts), 5).payload)


TILES = [tile_entry(band) for band in reversed(BANDS)]
AGGREGATES = [aggregate_entry(5, [0, NO_HOST, 7]), aggregate_entry(2, [1]), aggregate_entry(5, [8])]


@pytest.fixture
def path(tmp_path):
    path = block_path(tmp_path, INTERVAL, WINDOW)
    path.parent.mkdir()
    write_block(path, INTERVAL, WINDOW, TILES, AGGREGATES)
    return path


@pytest.fixture
def damages():
    return Damages()


def frames(path):
    """Of each frame: offset of its head, of its payload, of its end; those of tiles by band."""
    content, tiles, aggregates = path.read_bytes(), {}, []
    for entry in TILES:
        at = content.index(entry.payload)
        tiles[entry.band] = (at - 32, at, at + len(entry.payload))
    for entry in AGGREGATES:
        at = content.index(entry.payload)
        aggregates.append((at - 32 - 12 * len(entry.rows), at - 12 * len(entry.rows), at + len(entry.payload)))
    return tiles, aggregates


def read(block):
    """Everything in a block, in plain form; the tiles were opened."""
    tiles, aggregates = {}, {}
    for band in BANDS:
        tile = block.tile(band)
        if tile is not None:
            tile.read_all()
            tiles[band] = (*block.entry(band), bytes(tile.payload))
    for metric in METRICS:
        for host, row in block.aggregates(metric).items():
            aggregates[metric, host] = (bytes(row.tile.payload), row.row, row.members)
    return tiles, aggregates


WRITTEN = (
    {entry.band: (entry.number, entry.n_samples, entry.payload) for entry in TILES},
    {
        (entry.metric, host): (entry.payload, row, members)
        for entry in AGGREGATES
        for row, (host, members) in enumerate(entry.rows)
        if host != NO_HOST
    },
)


# --- a file that is whole


def test_what_is_written_is_read(path, damages):
    block = Block.open(path, damages)
    assert (block.path, block.interval, block.window, block.number) == (path, INTERVAL, WINDOW, 71_000)
    assert (block.n_tiles, block.n_samples) == (4, 36)
    assert block.file_bytes == path.stat().st_size
    prefixes = sum(12 * len(entry.rows) for entry in AGGREGATES)
    assert block.payload_bytes == sum(len(entry.payload) for entry in [*TILES, *AGGREGATES]) + prefixes
    assert block.bands().tolist() == list(BANDS)
    assert block.tile_counts() == {entry.band: (entry.n_samples, len(entry.payload)) for entry in TILES}
    assert read(block) == WRITTEN
    assert block.tile(5) is block.entry(5) is block.tile(80_000) is None
    assert block.aggregates(3) == {}
    assert damages.count == 0


def test_a_block_may_be_empty(tmp_path, damages):
    path = tmp_path / "empty.block"
    assert write_block(path, 1, -5, [], []) == path.stat().st_size
    block = Block.open(path, damages)
    assert (block.interval, block.window, block.number, block.n_samples, block.payload_bytes) == (1, -5, 0, 0, 0)
    assert block.tile(0) is None
    assert len(block.bands()) == len(block.aggregates(0)) == damages.count == 0


def test_tiles_stay_the_same_until_they_are_released(path, damages):
    block = Block.open(path, damages)
    tile, aggregates = block.tile(3), block.aggregates(5)
    assert block.tile(3) is tile
    assert block.aggregates(5) is aggregates
    assert aggregates[0].tile is aggregates[7].tile
    assert isinstance(tile.payload, memoryview)
    assert tile.payload.readonly
    block.release()
    assert block.tile(3) is not tile
    assert bytes(tile.payload) == bytes(block.tile(3).payload)


def test_a_block_is_written_again_from_its_entries(path, damages):
    """In place of the file it is read from, with one tile changed."""
    old = Block.open(path, damages)
    changed = tile_entry(9, seed=1, number=80_000)
    kept = [entry for entry in old.tile_entries() if entry.band != 9]
    size = write_block(path, INTERVAL, WINDOW, [changed, *kept], old.aggregate_entries())
    new = Block.open(path, damages)
    tiles, aggregates = WRITTEN
    assert read(new) == (tiles | {9: (80_000, 9, changed.payload)}, aggregates)
    assert (new.number, new.file_bytes) == (80_000, size)
    assert read(old) == WRITTEN, "the old file stays readable"
    assert damages.count == 0


def test_a_deleted_file_stays_readable_without_a_descriptor(path, damages):
    before = len(list(Path("/proc/self/fd").iterdir()))
    blocks = [Block.open(path, damages) for _ in range(20)]
    path.unlink()
    assert [read(block) for block in blocks] == [WRITTEN] * 20
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_tile_outlives_its_block(path, damages):
    tile = Block.open(path, damages).tile(4)
    assert bytes(tile.payload) == WRITTEN[0][4][2]
    np.testing.assert_array_equal(tile.read_all(), sealed(4).read_all())


def resident_pages(block):
    """Pages of a block's map that are in this process's page table, by the kernel's count."""
    address = np.frombuffer(block._data, np.uint8).ctypes.data
    n_pages = -(-block.file_bytes // mmap.PAGESIZE)
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        entries = os.pread(file.fileno(), 8 * n_pages, address // mmap.PAGESIZE * 8)
    return int((np.frombuffer(entries, "<u8") >> np.uint64(63)).sum())


def test_release_gives_memory_back(tmp_path, damages):
    path = tmp_path / "large.block"
    payload = sealed(0).payload + bytes(300_000)
    write_block(path, 1, 0, [TileEntry(band, 1, payload, 9) for band in range(20)], [])
    block = Block.open(path, damages)
    assert resident_pages(block) == 0, "opening a block reads header and footer alone"
    tiles = [block.tile(band) for band in range(20)]
    assert resident_pages(block) > 20 * 70
    block.release()
    assert resident_pages(block) == 0
    assert all(bytes(tile.payload) == payload for tile in tiles)
    assert block.tile(7).payload == payload
    assert damages.count == 0


def test_unused_maps_are_given_up(path, damages):
    def maps():
        return Path("/proc/self/maps").read_text().count(".block")

    block = Block.open(path, damages)
    tile = block.tile(3)
    assert maps() == 1
    del block
    assert maps() == 1
    del tile
    assert maps() == 0


def test_threads_get_the_same_tile_while_others_release(path, damages):
    block = Block.open(path, damages)
    differing, start = [], threading.Barrier(4)

    def work(is_releasing):
        start.wait()
        for _ in range(200):
            if is_releasing:
                block.release()
            elif read(block) != WRITTEN:
                differing.append(True)

    threads = [threading.Thread(target=work, args=(number == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not differing
    assert damages.count == 0


# --- damage


def test_a_flipped_byte_costs_at_most_its_tile(path):
    tile_frames, aggregate_frames = frames(path)
    content = path.read_bytes()
    for offset in range(len(content)):
        flipped = bytearray(content)
        flipped[offset] ^= 0xFF if offset % 2 else 0x10
        path.write_bytes(flipped)
        tiles, aggregates = dict(WRITTEN[0]), dict(WRITTEN[1])
        for band, (_, begin, end) in tile_frames.items():
            if begin <= offset < end:
                del tiles[band]
        for entry, (_, begin, end) in zip(AGGREGATES, aggregate_frames, strict=True):
            if begin <= offset < end:
                aggregates = {
                    key: row for key, row in aggregates.items() if key not in {(entry.metric, h) for h, _ in entry.rows}
                }
        damages = Damages()
        block = Block.open(path, damages)
        assert read(block) == read(block) == (tiles, aggregates), offset
        assert (block.interval, block.window, block.number, block.n_tiles) == (INTERVAL, WINDOW, 71_000, 4)
        block.release()
        assert read(block) == (tiles, aggregates), offset
        assert {entry.band for entry in block.tile_entries()} == tiles.keys()
        (damage,) = damages.found
        assert damage.path == path
        assert damage.offset <= offset < damage.offset + damage.length
        assert damage.length <= 7 * 32, "the index is the longest part"


def test_a_cut_file_has_the_tiles_that_are_whole(path):
    tile_frames, aggregate_frames = frames(path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        damages = Damages()
        if length < 64:
            with pytest.raises(DamagedFileError):
                Block.open(path, damages)
        else:
            block = Block.open(path, damages)
            tiles, aggregates = read(block)
            assert tiles == {band: WRITTEN[0][band] for band in BANDS if tile_frames[band][2] <= length}, length
            whole = [entry for entry, frame in zip(AGGREGATES, aggregate_frames, strict=True) if frame[2] <= length]
            assert aggregates == {
                key: row for key, row in WRITTEN[1].items() if any(row[0] == entry.payload for entry in whole)
            }
            assert (block.interval, block.window, block.number) == (INTERVAL, WINDOW, 71_000)
            assert (block.n_tiles, block.n_samples, block.file_bytes) == (len(tiles), 9 * len(tiles), length)
            assert any(damage.offset == length for damage in damages.found)
        assert damages.count >= 1


def damage_at(path, *spans):
    content = bytearray(path.read_bytes())
    for begin, end in spans:
        content[begin:end] = bytes(byte ^ 0x5A for byte in content[begin:end])
    path.write_bytes(content)


def test_without_index_a_damaged_head_costs_its_tile(path, damages):
    begin, _, end = frames(path)[0][4]
    index_at = max(end for _, _, end in frames(path)[1])
    damage_at(path, (begin, begin + 1), (index_at + 40, index_at + 41))
    tiles, aggregates = read(Block.open(path, damages))
    assert tiles.keys() == set(BANDS) - {4}
    assert aggregates == WRITTEN[1]
    assert [(damage.offset, damage.length) for damage in damages.found] == [(index_at, 7 * 32), (begin, end - begin)]


def test_frames_are_enough(path, damages):
    """Without header, footer and index, the name of the file tells what it is."""
    index_at, size = max(end for _, _, end in frames(path)[1]), path.stat().st_size
    damage_at(path, (0, 64), (index_at, size))
    block = Block.open(path, damages)
    assert read(block) == WRITTEN
    assert (block.interval, block.window, block.number) == (INTERVAL, WINDOW, 71_000)
    assert (block.n_tiles, block.n_samples) == (4, 36)
    assert {damage.offset for damage in damages.found} == {0, index_at, size - 64}


@pytest.mark.parametrize("content", [b"", b"x", bytes(64), bytes(5000), b"TILE" * 100])
def test_a_file_without_anything_is_refused(path, damages, content):
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"\.block: nothing in it can be read"):
        Block.open(path, damages)
    assert damages.count >= 1


def test_a_file_that_grew_is_read(path, damages):
    content = path.read_bytes()
    path.write_bytes(content + b"more")
    assert read(Block.open(path, damages)) == WRITTEN
    assert [(damage.offset, damage.length) for damage in damages.found] == [(len(content) - 64, 68)]


def test_damaged_tiles_are_not_written_again(path, damages):
    _, begin, _ = frames(path)[0][9]
    damage_at(path, (begin + 5, begin + 6))
    old = Block.open(path, damages)
    write_block(path, INTERVAL, WINDOW, old.tile_entries(), old.aggregate_entries())
    assert damages.count == 1
    new = Block.open(path, damages)
    assert new.bands().tolist() == [3, 4, 70_000]
    assert read(new) == ({band: entry for band, entry in WRITTEN[0].items() if band != 9}, WRITTEN[1])
    assert damages.count == 1


@pytest.mark.parametrize("at", ["header", "footer", "both"])
def test_a_later_version_is_refused(path, damages, at):
    content = bytearray(path.read_bytes())
    for place in {"header": [0], "footer": [len(content) - 64], "both": [0, len(content) - 64]}[at]:
        content[place + 8] = 2
        content[place + 60 : place + 64] = crc32c(content[place : place + 60]).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(NewerFormatError) as error:
        Block.open(path, damages)
    assert (error.value.path, error.value.version, error.value.known) == (path, 2, 1)
    assert path.read_bytes() == content


# --- writing that fails


def test_a_vanished_directory_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_block(tmp_path / "gone" / "0.block", 1, 0, TILES, AGGREGATES)


def failing_entries():
    yield TILES[0]
    raise OSError("the source fails")


@pytest.mark.parametrize("tiles", [failing_entries, lambda: [TILES[0], TILES[0]]], ids=["source", "same band twice"])
def test_nothing_is_left_of_a_failed_write(path, tiles):
    before = path.read_bytes()
    with pytest.raises((OSError, AssertionError)):
        write_block(path, INTERVAL, WINDOW, tiles(), AGGREGATES)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_left_when_the_disk_is_full(path):
    """As a limit on the length of files shows it, in a process of its own."""
    before = path.read_bytes()
    program = (
        "import resource, sys, pathlib\n"
        "from ccms_server.durability.block import TileEntry, write_block\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "tiles = [TileEntry(band, 1, bytes(20_000), 1) for band in range(int(sys.argv[2]))]\n"
        "try:\n"
        "    write_block(pathlib.Path(sys.argv[1]), 60, 0, tiles, [])\n"
        "except OSError as error:\n"
        "    print(type(error).__name__, error.errno)\n"
    )
    for n_tiles in ("3", "100"):
        done = subprocess.run(
            [sys.executable, "-c", program, path, n_tiles], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["OSError", "27"], done  # EFBIG
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


def test_a_map_that_the_system_refuses_is_an_error(path, damages):
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # takes no room on the disk, but more addresses than are allowed below
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 39, hard))
    try:
        with pytest.raises(OSError, match="Cannot allocate memory"):
            Block.open(path, damages)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
