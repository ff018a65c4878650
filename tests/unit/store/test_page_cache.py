"""Pages that stay open: what they hold, how many they are, and what becomes of those of tiles that are gone."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccms_server.store.layout import PAGE_ROWS, WINDOW_SLOTS
from ccms_server.store.page_cache import NO_ROW, PageCache
from ccms_server.store.sealed_tile import SealedTile, as_stored

PAGE_BYTES = 8 * PAGE_ROWS * WINDOW_SLOTS


def values_of(number, n_rows):
    values = np.random.default_rng(number).random((n_rows, WINDOW_SLOTS)).round(3)
    values[:, number % WINDOW_SLOTS] = np.nan
    return values


def sealed(number, n_rows=64):
    return SealedTile.seal(as_stored(values_of(number, n_rows)), np.zeros(n_rows, np.int32))


def lanes(opened):
    return set(np.flatnonzero(opened.row_of_lane != NO_ROW).tolist())


@settings(deadline=None)  # the first one loads kernels, perhaps while other tests compile theirs
@given(st.integers(1, 64), st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=5))
def test_opened_rows_are_those_of_the_tile(n_rows, asked):
    tile, values, cache = sealed(1, n_rows), values_of(1, n_rows), PageCache()
    for pages in asked:
        opened = cache.open(tile, pages)
        wanted = {lane for lane in range(n_rows) if pages >> lane // PAGE_ROWS & 1}
        assert lanes(opened) >= wanted
        for lane in lanes(opened):
            np.testing.assert_array_equal(opened.rows[opened.row_of_lane[lane]], values[lane])


def test_what_is_open_is_not_opened_again():
    tile, cache = sealed(1), PageCache()
    first = cache.open(tile, 0b0110)
    assert cache.n_opened == 2
    assert cache.open(tile, 0b0010) is first
    assert cache.n_opened == 2
    cache.open(tile, 0b1010)
    assert cache.n_opened == 3
    assert lanes(cache.open(tile, 0b1110)) == set(range(4, 16))
    assert cache.n_opened == 3


def test_what_somebody_holds_stays_as_it_is_when_more_is_opened():
    tile, cache = sealed(1), PageCache()
    held = cache.open(tile, 1)
    before = held.rows.copy()
    cache.open(tile, 0xFFFF)
    assert lanes(held) == set(range(4))
    np.testing.assert_array_equal(held.rows, before)


def test_those_that_were_not_used_for_longest_are_forgotten():
    tiles, cache = [sealed(number) for number in range(4)], PageCache(3 * PAGE_BYTES)
    for tile in tiles[:3]:
        cache.open(tile, 1)
    cache.open(tiles[0], 1)
    cache.open(tiles[3], 1)
    assert (cache.n_bytes, cache.n_opened) == (3 * PAGE_BYTES, 4)
    for tile in (tiles[0], tiles[2], tiles[3]):
        cache.open(tile, 1)
    assert cache.n_opened == 4
    cache.open(tiles[1], 1)
    assert cache.n_opened == 5


def test_a_tile_that_is_larger_than_the_cache_is_opened_all_the_same():
    tile, cache = sealed(1), PageCache(PAGE_BYTES)
    assert lanes(cache.open(tile, 0xFFFF)) == set(range(64))
    assert cache.n_bytes == 0


@pytest.mark.parametrize("n_rows", [1, 3, 4, 63])
def test_pages_a_tile_does_not_have_hold_nothing(n_rows):
    cache = PageCache()
    assert lanes(cache.open(sealed(1, n_rows), 0xFFFF)) == set(range(n_rows))
    assert lanes(cache.open(sealed(2, n_rows), 0)) == set()


def test_a_tile_that_is_gone_is_not_kept_and_not_taken_for_another():
    cache = PageCache()
    for number in range(50):  # memory of one that is gone is soon that of another
        tile = sealed(number, 4)
        np.testing.assert_array_equal(cache.open(tile, 1).rows, values_of(number, 4))
        del tile
        gc.collect()
    assert cache.n_bytes <= 50 * PAGE_BYTES


def test_threads_open_pages_of_the_same_tiles():
    tiles, cache = [sealed(number) for number in range(8)], PageCache(40 * PAGE_BYTES)
    expected = [values_of(number, 64) for number in range(8)]

    def read(seed):
        random = np.random.default_rng(seed)
        for _ in range(300):
            number, page = random.integers(8), int(random.integers(16))
            opened = cache.open(tiles[number], 1 << page)
            rows = opened.rows[opened.row_of_lane[page * PAGE_ROWS : (page + 1) * PAGE_ROWS]]
            np.testing.assert_array_equal(rows, expected[number][page * PAGE_ROWS : (page + 1) * PAGE_ROWS])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
    assert cache.n_bytes <= 40 * PAGE_BYTES
    assert cache.n_bytes == sum(entry.opened.rows.nbytes for entry in cache._entries.values())
