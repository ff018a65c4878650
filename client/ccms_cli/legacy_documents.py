"""Writes JSON checkpoints of the predecessor: `DIRECTORY/<cluster>/<host>/<time>.json`.

    {"from": seconds, "to": seconds,
     "metrics": {name: {"frequency": seconds, "start": seconds, "data": [number or null, ...]}},
     "children": {name: {"from", "to", "metrics", "children"}}}

The outermost object is the host's level. A file covers some hours of one host, and is named after its beginning; the
files of a host do not overlap, so that the predecessor loads them in order.
"""

import json
import math
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ccms_cli.stored_series import Run, read_series
from ccms_client import Client, SeriesEntry

SPAN_SECONDS: Final = 12 * 3600
"""Of a file: what a host writes in that time is held in memory."""

_Document = dict[str, Any]


def write_documents(
    client: Client,
    directory: Path,
    entries: Iterator[SeriesEntry],
    start: float,
    end: float,
    written: Callable[[int], None],
) -> int:
    """Writes the files of all hosts.

    Args:
        client: Reads the samples.
        directory: Where to.
        entries: Series, host by host.
        start: Start of the range, seconds since the epoch; may be minus infinity.
        end: End of it, exclusive; may be infinity.
        written: Is told of the number of samples as they are written.

    Returns:
        Number of files.
    """
    n_files = 0
    for (cluster, host), group in groupby(entries, lambda entry: (entry.key.cluster, entry.key.host)):
        series = list(group)
        at = max(start, min(entry.first_sample for entry in series))
        until = min(end, max(entry.last_sample for entry in series) + 1)
        while at < until:
            ends = min(at + SPAN_SECONDS, until)
            alive = [entry for entry in series if entry.first_sample < ends and entry.last_sample >= at]
            runs = list(read_series(client, alive, at, ends))
            if runs:
                path = directory / cluster / host / f"{int(at)}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(_document(runs, int(at), math.ceil(ends))) + "\n", encoding="utf-8")
                n_files += 1
            written(sum(len(run.values) for run in runs))
            at = ends
    return n_files


def _document(runs: list[Run], start: int, end: int) -> _Document:
    """The level of the host, with all below it."""

    def level() -> _Document:
        return {"from": start, "to": end, "metrics": {}, "children": {}}

    root = level()
    for key, parts in groupby(runs, lambda run: run.key):
        at = root
        for name in key.path[2:]:
            at = at["children"].setdefault(name, level())
        some = list(parts)
        timestamps = np.concatenate([run.timestamps for run in some])
        values = np.concatenate([run.values for run in some])
        interval = some[0].interval
        at["metrics"][key.metric] = {
            "frequency": interval,
            "start": int(timestamps[0]),
            "data": _spread(timestamps, values, interval),
        }
    return root


def _spread(timestamps: NDArray[np.int64], values: NDArray[np.float64], interval: int) -> list[float | None]:
    """A value for each interval, None where there is none."""
    spread: list[float | None] = [None] * (int(timestamps[-1] - timestamps[0]) // interval + 1)
    places = (timestamps - timestamps[0]) // interval
    for place, value in zip(places.tolist(), values.tolist(), strict=True):
        spread[place] = value
    return spread
