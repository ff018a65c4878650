"""The answer of `/api/query`: `{"results": [[series, ...], ...], "queries": [...]}`.

`results[i]` holds the series of query i. `queries` names the queries that `for-all-nodes` stands for, and only those;
they are the last ones of `results`. It comes last because it is known last: answers are encoded piece by piece, as they
come from the store.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from ccms_server.model import QueryRequest, SeriesAnswer, Statistics

PIECE_VALUES: Final = 65_536
"""Values encoded in one go, about a millisecond: orjson keeps the interpreter to itself meanwhile."""

BLOCK_VALUES: Final = 8192
"""Values rounded at a time: what is needed meanwhile stays in the processor's cache."""

_EXACT_FROM: Final = 2.0**43
"""From here on doubles lie so far apart that three decimals leave them as they are."""


class AnswerEncoder:
    """Turns the chunks of one answer into pieces of JSON text, which make up the body in order."""

    def __init__(self, request: QueryRequest) -> None:
        self._asked = len(request.queries)
        self._open_query = -1
        """The query whose list of series is being written; -1: none yet."""
        self._generated: list[dict[str, object]] = []

    def encode(self, answers: Sequence[SeriesAnswer]) -> bytes:
        """The text of the next chunk."""
        pieces = []
        for answer, values in zip(answers, _rounded_values(answers), strict=True):
            pieces.append(self._up_to(answer))
            pieces.append(_series_json(answer, values))
        return b"".join(pieces)

    def finish(self) -> bytes:
        """The text behind the last chunk."""
        pieces = [b'{"results":['] if self._open_query < 0 and not self._asked else [self._open(self._asked - 1)]
        pieces.append(b"]]" if self._open_query >= 0 else b"]")
        if self._generated:
            pieces.append(b',"queries":' + orjson.dumps(self._generated))
        return b"".join(pieces) + b"}"

    def _up_to(self, answer: SeriesAnswer) -> bytes:
        """The brackets and commas between the series before and this one."""
        if answer.query_index >= self._asked and answer.query_index != self._open_query:
            self._generated.append({"metric": answer.metric, "host": answer.host, "resolution": 0, "aggreg": False})
        if answer.query_index == self._open_query:
            return b","
        return self._open(answer.query_index)

    def _open(self, query_index: int) -> bytes:
        """Closes the list of the open query and opens that of a later one; those between have no series."""
        if query_index <= self._open_query:
            return b""
        start = b'{"results":[[' if self._open_query < 0 else b"],["
        skipped = query_index - max(self._open_query, 0) - (self._open_query >= 0)
        self._open_query = query_index
        return start + b"],[" * skipped


def _rounded_values(answers: Sequence[SeriesAnswer]) -> Iterator[NDArray[np.float64] | None]:
    """The values of each answer, rounded. Small series share a call to numpy, which costs more than they do."""
    sizes = [0 if answer.values is None else answer.values.size for answer in answers]
    for first, last in _runs(sizes):
        together = [answer.values for answer in answers[first:last] if answer.values is not None and answer.values.size]
        rounded = round_to_thousandths(np.concatenate(together)) if together else None
        offset = 0
        for size in sizes[first:last]:
            yield rounded[offset : offset + size] if rounded is not None and size else None
            offset += size


def _runs(sizes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Cuts a sequence of sizes into runs that add up to about `BLOCK_VALUES`, as pairs of first and last + 1."""
    cuts, total, count = [0], 0, 0
    for size in sizes:
        if total and total + size > BLOCK_VALUES:
            cuts.append(count)
            total = 0
        total += size
        count += 1
    cuts.append(count)
    return pairwise(cuts)


def _series_json(answer: SeriesAnswer, values: NDArray[np.float64] | None) -> bytes:
    series: dict[str, object] = {}
    if answer.error is not None:
        series["error"] = answer.error.message
    if values is not None:
        series["data"] = values if values.size <= PIECE_VALUES else _long_array_json(values)
    series["from"] = answer.start
    series["to"] = answer.end
    series["resolution"] = answer.interval
    series["avg"], series["min"], series["max"] = _rounded_statistics(answer.statistics)
    return orjson.dumps(series, option=orjson.OPT_SERIALIZE_NUMPY)


def _long_array_json(values: NDArray[np.float64]) -> orjson.Fragment:
    """An array, encoded in several calls."""
    pieces = (
        orjson.dumps(values[start : start + PIECE_VALUES], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        for start in range(0, values.size, PIECE_VALUES)
    )
    return orjson.Fragment(b"[" + b",".join(pieces) + b"]")


def _rounded_statistics(statistics: Statistics | None) -> tuple[float, float, float]:
    """Average, smallest and largest; zeros when they were not asked for."""
    if statistics is None:
        return 0.0, 0.0, 0.0
    return round(statistics.avg, 3), round(statistics.min, 3), round(statistics.max, 3)


def round_to_thousandths(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounds to three decimals.

    Args:
        values: float64 array of shape (n_values,).

    Returns:
        float64 array of the same shape, never a view; NaN stays NaN, infinities stay what they are.
    """
    rounded = np.empty_like(values)
    with np.errstate(over="ignore"):  # the largest doubles overflow, and are put back
        for start in range(0, values.size, BLOCK_VALUES):
            block = rounded[start : start + BLOCK_VALUES]
            exact = values[start : start + BLOCK_VALUES]
            np.multiply(exact, 1000.0, out=block)
            np.rint(block, out=block)
            np.divide(block, 1000.0, out=block)
            np.copyto(block, exact, where=np.abs(exact) >= _EXACT_FROM)
    return rounded
