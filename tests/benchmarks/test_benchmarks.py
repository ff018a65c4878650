"""The benchmarks still run, and find what they wrote; how fast they are is not asked here."""

import pytest
from benchmarks.__main__ import MEASUREMENTS, QUICK, measure, table


@pytest.mark.parametrize("name", MEASUREMENTS)
async def test_a_measurement_runs_on_small_inputs(name):
    figures = await measure(QUICK, name)
    assert figures
    assert all(figure.value >= 0 for figure in figures)
    assert all(figure.name in table(figures) for figure in figures)
