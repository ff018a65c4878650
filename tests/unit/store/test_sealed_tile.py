import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccms_server.store.layout import PAGE_ROWS, PHASE_UNSET, TILE_ROWS, WINDOW_SLOTS
from ccms_server.store.sealed_tile import SealedTile, as_stored

finite = st.floats(allow_nan=False, allow_infinity=False)


def seal(values, phases=None):
    phases = np.zeros(len(values), np.int32) if phases is None else phases
    return SealedTile.seal(as_stored(values), phases)


def test_a_full_tile_opens_as_it_was():
    values = np.random.default_rng(1).normal(size=(TILE_ROWS, WINDOW_SLOTS)).round(3)
    tile = seal(values)
    assert tile.n_samples == values.size
    np.testing.assert_array_equal(tile.read_all(), values)


def test_a_page_opens_alone():
    values = np.arange(TILE_ROWS * WINDOW_SLOTS, dtype=float).reshape(TILE_ROWS, WINDOW_SLOTS)
    rows = np.zeros((2 * PAGE_ROWS, WINDOW_SLOTS))
    seal(values).read_pages([3, 0], rows)
    np.testing.assert_array_equal(rows, np.concatenate([values[3 * PAGE_ROWS : 4 * PAGE_ROWS], values[:PAGE_ROWS]]))


def test_a_tile_without_samples_is_all_missing():
    tile = seal(np.full((5, WINDOW_SLOTS), np.nan), np.full(5, PHASE_UNSET, np.int32))
    assert tile.n_samples == 0
    assert np.isnan(tile.read_all()).all()
    assert tile.read_all().shape == (5, WINDOW_SLOTS)


def test_phases_differ_by_row():
    values = np.ones((6, WINDOW_SLOTS))
    phases = np.array([0, 7, -3, 0, PHASE_UNSET, 59], np.int32)
    tile = seal(values, phases)
    np.testing.assert_array_equal(tile.read_phases(), phases)
    assert [tile.read_phase(row) for row in range(6)] == phases.tolist()


def test_one_phase_is_stored_once():
    values = np.ones((64, WINDOW_SLOTS))
    shared, own = np.full(64, 36, np.int32), np.arange(64, dtype=np.int32)
    assert len(seal(values, own).payload) - len(seal(values, shared).payload) == 63 * 4
    assert seal(values, shared).read_phase(63) == 36


def test_real_measurements_take_little_room():
    """Two-decimal values that wander, as power and clock sensors give them."""
    rng = np.random.default_rng(7)
    values = (2000 + rng.normal(0, 3, (32, WINDOW_SLOTS)).cumsum(axis=1)).round(1)
    assert len(seal(values).payload) / values.size < 1.5


@pytest.mark.parametrize("extreme", [5e-324, -5e-324, 1.7976931348623157e308, -0.0, 0.1 + 0.2, float(2**53 + 2)])
def test_every_bit_is_kept(extreme):
    values = np.full((1, WINDOW_SLOTS), np.nan)
    values[0, 17] = extreme
    back = seal(values).read_all()
    assert back[0, 17].tobytes() == np.float64(extreme).tobytes()
    assert np.isnan(back).sum() == WINDOW_SLOTS - 1


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, TILE_ROWS),
    cells=st.lists(st.tuples(st.integers(0, TILE_ROWS - 1), st.integers(0, WINDOW_SLOTS - 1), finite), max_size=80),
    filled=st.lists(st.tuples(st.integers(0, TILE_ROWS - 1), finite), max_size=6),
)
def test_any_pattern_of_gaps_survives(rows, cells, filled):
    values = np.full((rows, WINDOW_SLOTS), np.nan)
    for row, value in filled:
        values[row % rows] = value
    for row, slot, value in cells:
        values[row % rows, slot] = value
    tile = seal(values)
    back = tile.read_all()
    assert back.view(np.uint64)[~np.isnan(values)].tolist() == values.view(np.uint64)[~np.isnan(values)].tolist()
    assert (np.isnan(back) == np.isnan(values)).all()
    assert tile.n_samples == int((~np.isnan(values)).sum())
