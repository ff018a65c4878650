"""The answer of `/api/query`: `{"results": [[series, ...], ...], "queries": [...]}`.

`results[i]` holds the series of query i. `queries` names the queries that `for-all-nodes` stands for, and only those;
they are the last ones of `results`. It comes last because it is known last: answers are encoded piece by piece, as they
come from the store.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from ccms_server.answer_text import (
    EXACT_FROM,
    IS_UNWRITABLE,
    LENGTH,
    NEXT,
    NEXT_VALUE,
    OPEN_QUERY,
    PROGRESS_LENGTH,
    SERIES_BYTES_MAX,
    VALUE_BYTES_MAX,
    write_series,
)
from ccms_server.model import (
    AVG,
    END,
    FIRST,
    INTERVAL,
    MAX,
    MIN,
    N_VALUES,
    PADDING,
    QUERY,
    START,
    QueryRequest,
    SeriesAnswers,
)

TEXT_BYTES_MAX: Final = 2 << 20
"""Text written in one go: that of a chunk of the usual size."""

PIECE_VALUES: Final = 65_536
"""Values orjson encodes in one go, about a millisecond: it keeps the interpreter to itself meanwhile."""

BLOCK_VALUES: Final = 8192
"""Values rounded at a time: what is needed meanwhile stays in the processor's cache."""


class AnswerEncoder:
    """Turns the chunks of one answer into pieces of JSON text, which make up the body in order."""

    def __init__(self, request: QueryRequest) -> None:
        self._asked = len(request.queries)
        self._progress = np.zeros(PROGRESS_LENGTH, np.int64)
        self._progress[OPEN_QUERY] = -1
        self._text = np.empty(0, np.uint8)
        self._generated: list[dict[str, object]] = []

    def pieces(self, chunks: Iterable[SeriesAnswers]) -> Iterator[bytes]:
        """The text of an answer."""
        for chunk in chunks:
            if len(chunk):
                yield self._encode(chunk)
        yield self._finish()

    def _encode(self, answers: SeriesAnswers) -> bytes:
        """The text of the next chunk."""
        self._note_generated(answers)
        text, progress = self._text_for(answers), self._progress
        progress[NEXT], progress[NEXT_VALUE] = 0, -1
        pieces = []
        while progress[NEXT] < len(answers):
            progress[LENGTH] = 0
            write_series(answers.heads, answers.values, answers.statistics, text, progress)
            pieces.append(text[: progress[LENGTH]].tobytes())
            if progress[IS_UNWRITABLE]:
                pieces.append(_series_json(answers, int(progress[NEXT])))
                progress[NEXT] += 1
        return b"".join(pieces)

    def _text_for(self, answers: SeriesAnswers) -> NDArray[np.uint8]:
        """Room for the text of a chunk, or for a part of a large one."""
        heads = answers.heads
        gaps = max(0, int(heads[-1, QUERY]) - int(self._progress[OPEN_QUERY]))
        values = int(heads[:, PADDING].sum()) + int(heads[:, N_VALUES].sum())
        most = SERIES_BYTES_MAX * (len(heads) + 1) + VALUE_BYTES_MAX * values + len("],[") * gaps
        if len(self._text) < min(most, TEXT_BYTES_MAX):
            self._text = np.empty(min(most, TEXT_BYTES_MAX), np.uint8)
        return self._text

    def _note_generated(self, answers: SeriesAnswers) -> None:
        """Remembers the queries of a chunk that no client asked, each of which has one series."""
        for position in np.flatnonzero(answers.heads[:, QUERY] >= self._asked).tolist():
            metric, host, _, _ = answers.labels[position]
            self._generated.append({"metric": metric, "host": host, "resolution": 0, "aggreg": False})

    def _finish(self) -> bytes:
        """The text behind the last chunk."""
        missing = self._asked - 1 - int(self._progress[OPEN_QUERY])
        pieces = []
        if self._progress[OPEN_QUERY] < 0:
            pieces.append(b'{"results":[' + (b"[" if self._asked else b""))
            missing -= 1
        pieces.append(b"],[" * missing)
        pieces.append(b"]]" if self._asked or self._generated else b"]")
        if self._generated:
            pieces.append(b',"queries":' + orjson.dumps(self._generated))
        return b"".join(pieces) + b"}"


def _series_json(answers: SeriesAnswers, number: int) -> bytes:
    """One series, whatever its numbers are."""
    head = answers.heads[number]
    series: dict[str, object] = {}
    if number in answers.errors:
        series["error"] = answers.errors[number].message
    values = np.full(head[PADDING] + head[N_VALUES], np.nan)
    values[head[PADDING] :] = answers.values[head[FIRST] : head[FIRST] + head[N_VALUES]]
    if values.size:
        series["data"] = _array_json(round_to_thousandths(values))
    series["from"], series["to"], series["resolution"] = head[[START, END, INTERVAL]].tolist()
    average, least, largest = answers.statistics[number, [AVG, MIN, MAX]].tolist()
    series["avg"], series["min"], series["max"] = round(average, 3), round(least, 3), round(largest, 3)
    return orjson.dumps(series)


def _array_json(values: NDArray[np.float64]) -> orjson.Fragment:
    """An array, encoded in several calls."""
    pieces = (
        orjson.dumps(values[start : start + PIECE_VALUES], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        for start in range(0, values.size, PIECE_VALUES)
    )
    return orjson.Fragment(b"[" + b",".join(pieces) + b"]")


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
            np.copyto(block, exact, where=np.abs(exact) >= EXACT_FROM)
    return rounded
