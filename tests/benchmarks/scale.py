"""How much is measured: enough for figures to be steady, or little enough for a test."""

from dataclasses import dataclass

from ccms_server.store.layout import WINDOW_SLOTS


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of all parts."""

    rounds: int
    """Of measurements in turns; the median counts."""
    hosts: int
    """Of 426 series each."""
    steps: int
    """Time steps of a round. RSS is read when each series has `rounds` x `steps` samples."""
    long_hosts: int
    long_steps: int
    """Of the samples that are sealed and queried."""
    query_seconds: float
    """For which each query is repeated."""
    starts: int
    """The median counts."""
    reading_seconds: float
    """For which is read while samples come in."""
    emmy_lines: int | None
    """Lines of the real job that are stored; None: all."""
    restart_hosts: int
    restart_steps: int
    """A little more than full windows."""
    series_hosts: tuple[int, ...]
    """Hosts of the servers whose costs are compared."""
    series_rounds: int
    series_round_lines: int
    """Lines that each of them gets in a round, as nearly as full time steps allow."""


FULL = Scale(
    rounds=5,
    hosts=200,
    steps=8,
    long_hosts=20,
    long_steps=2800,
    query_seconds=2.5,
    starts=3,
    reading_seconds=10,
    emmy_lines=None,
    restart_hosts=80,
    restart_steps=6 * WINDOW_SLOTS + 60,
    series_hosts=(24, 75, 235, 704, 2348),
    series_rounds=3,
    series_round_lines=400_000,
)
"""10 k, 32 k, 100 k, 300 k and 1 M series are compared."""

QUICK = Scale(
    rounds=2,
    hosts=4,
    steps=2,
    long_hosts=2,
    long_steps=20,
    query_seconds=0.05,
    starts=1,
    reading_seconds=0.2,
    emmy_lines=20_000,
    restart_hosts=1,
    restart_steps=20,
    series_hosts=(1, 2, 3),
    series_rounds=2,
    series_round_lines=1_000,
)
