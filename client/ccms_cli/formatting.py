"""Numbers for people, and series as a line of small bars."""

import math
from collections.abc import Sequence
from typing import Final

BARS: Final = "▁▂▃▄▅▆▇█"
_SI: Final = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def show_value(value: float) -> str:
    """A value with four digits that count; large ones with a prefix; `-` for none.

    >>> show_value(150.17), show_value(23456789.0), show_value(0.00012), show_value(float("nan"))
    ('150.2', '23.46M', '0.00012', '-')
    """
    if math.isnan(value):
        return "-"
    for factor, prefix in _SI:
        if abs(value) >= factor * 10:
            return f"{value / factor:.4g}{prefix}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def show_bytes(n_bytes: float) -> str:
    """A size.

    >>> show_bytes(512), show_bytes(5 << 20)
    ('512 B', '5.0 MiB')
    """
    unit = 0
    while n_bytes >= 1024 and unit < len(_BYTES) - 1:
        n_bytes /= 1024
        unit += 1
    return f"{n_bytes:.1f} {_BYTES[unit]}" if unit else f"{n_bytes:.0f} B"


def show_duration(seconds: float) -> str:
    """A length of time, by its two largest units.

    >>> show_duration(93_784), show_duration(59.4)
    ('1d 2h', '59s')
    """
    rest = round(seconds)
    shown: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or (unit == "s" and not shown):
            shown.append(f"{count}{unit}")
        elif shown:
            break
    return " ".join(shown[:2])


def sparkline(values: Sequence[float], width: int) -> str:
    """A series as a line of bars: the mean of each of `width` parts between its smallest and largest value.

    Args:
        values: NaN where there is no sample.
        width: Characters, at least one; a shorter series has fewer.

    Returns:
        A bar for each part, or a space where it has no samples.

    >>> sparkline([0, 1, 2, 3, float("nan"), 7], 6)
    '▁▂▃▄ █'
    """
    width = min(width, len(values))
    means = [_mean(values[part * len(values) // width : (part + 1) * len(values) // width]) for part in range(width)]
    known = [mean for mean in means if not math.isnan(mean)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if math.isnan(mean) else BARS[round((mean - low) * scale)] for mean in means)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
