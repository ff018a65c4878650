"""Kernels that write the series of an answer as JSON, straight from the arrays they come in.

A series is `{"data":[1.0,null],"from":0,"to":120,"resolution":60,"avg":1.0,"min":1.0,"max":1.0}`, without `data` if it
has no values. Numbers have at most three decimals, and at least one; what is missing or infinite is `null`. What
cannot be written that way is left to the caller: texts, such as errors, and numbers so large that doubles have no three
decimals there.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.ingest.words import View, put_word, view_of
from ccms_server.jit import kernel
from ccms_server.model import AVG, END, FIRST, INTERVAL, IS_ERROR, MAX, MIN, N_VALUES, PADDING, QUERY, START

Text = NDArray[np.uint8]

NEXT: Final = 0
"""Place in `progress`: the series that is being written; the number of series when all are."""
NEXT_VALUE: Final = 1
"""How many of its values are written, those in front of the first sample included; -1: nothing of it is."""
LENGTH: Final = 2
"""Bytes of text written."""
OPEN_QUERY: Final = 3
"""The query whose list of series is open; -1: none was so far."""
IS_EMPTY: Final = 4
"""1: that list has no series yet."""
IS_UNWRITABLE: Final = 5
"""1: the series that is being written must be left to the caller; nothing of it is in the text."""
PROGRESS_LENGTH: Final = 6

VALUE_BYTES_MAX: Final = 24
"""Room that a value and the comma behind it need: `-8796093022207.999,`, and what is written in excess."""

SERIES_BYTES_MAX: Final = 256
"""Room for everything of a series beside its values."""

EXACT_FROM: Final = 2.0**43
"""From here on doubles lie so far apart that three decimals leave them as they are."""


def _words(texts: list[str]) -> NDArray[np.uint64]:
    """Texts of up to 8 bytes as words, with zeros behind them."""
    return np.array([int.from_bytes(text.encode(), "little") for text in texts], np.uint64)


def _lengths(texts: list[str]) -> NDArray[np.int64]:
    return np.array([len(text) for text in texts], np.int64)


def _bytes(text: str) -> Text:
    return np.frombuffer(text.encode(), np.uint8)


_WHOLE_TEXTS: Final = [str(number) for number in range(1000)]
_WHOLE: Final = _words(_WHOLE_TEXTS)
_WHOLE_LENGTHS: Final = _lengths(_WHOLE_TEXTS)
_GROUPS: Final = _words([f"{number:03d}" for number in range(1000)])
_FRACTION_TEXTS: Final = [f".{number:03d}".rstrip("0") + "," if number else ".0," for number in range(1000)]
_FRACTIONS: Final = _words(_FRACTION_TEXTS)
_FRACTION_LENGTHS: Final = _lengths(_FRACTION_TEXTS)
_NULL: Final = np.uint64(int.from_bytes(b"null,", "little"))
_NULL_LENGTH: Final = 5
_MINUS: Final = np.uint64(ord("-"))
_SPLITTER: Final = 2.0**27 + 1
_THOUSAND: Final = np.uint64(1000)
_GROUP_BITS: Final = np.uint64(24)
_BYTE_BITS: Final = np.uint64(3)

_RESULTS: Final = _bytes('{"results":[[')
_NEXT_QUERY: Final = _bytes("],[")
_DATA: Final = _bytes('"data":[')
_FROM: Final = _bytes('"from":')
_TO: Final = _bytes('"to":')
_RESOLUTION: Final = _bytes('"resolution":')
_AVG: Final = _bytes('"avg":')
_MIN: Final = _bytes('"min":')
_MAX: Final = _bytes('"max":')

_BRACE_OPEN, _BRACE_CLOSE, _BRACKET_CLOSE, _COMMA, _ZERO = b"{}],0"


@kernel
def write_series(
    heads: NDArray[np.int64],
    values: NDArray[np.float64],
    statistics: NDArray[np.float64],
    text: Text,
    progress: NDArray[np.int64],
) -> None:
    """Writes series in order, until the text is full, or one comes that the caller has to write.

    Args:
        heads: See `SeriesAnswers`.
        values: The same.
        statistics: The same.
        text: uint8 array of shape (n_bytes,), at least 2 * SERIES_BYTES_MAX; written from `progress[LENGTH]` on.
        progress: int64 array of shape (PROGRESS_LENGTH,), read and written.
    """
    view = view_of(text)
    at, room = progress[LENGTH], len(text) - SERIES_BYTES_MAX
    progress[IS_UNWRITABLE] = 0
    while progress[NEXT] < len(heads):
        head = heads[progress[NEXT]]
        while progress[OPEN_QUERY] < head[QUERY]:
            if at > room:
                progress[LENGTH] = at
                return
            at = _put(text, at, _RESULTS if progress[OPEN_QUERY] < 0 else _NEXT_QUERY)
            progress[OPEN_QUERY] += 1
            progress[IS_EMPTY] = 1
        if at > room:
            progress[LENGTH] = at
            return
        n_values = head[PADDING] + head[N_VALUES]
        done = progress[NEXT_VALUE]
        if done < 0:
            if head[IS_ERROR] or not _is_writable(values, statistics, head, progress[NEXT]):
                if not progress[IS_EMPTY]:
                    text[at] = _COMMA
                    at += 1
                progress[LENGTH], progress[IS_EMPTY], progress[IS_UNWRITABLE] = at, 0, 1
                return
            if not progress[IS_EMPTY]:
                text[at] = _COMMA
                at += 1
            progress[IS_EMPTY] = 0
            text[at] = _BRACE_OPEN
            at += 1
            if n_values:
                at = _put(text, at, _DATA)
            done = 0
        while done < head[PADDING] and at <= room:
            put_word(view, at, _NULL)
            at, done = at + _NULL_LENGTH, done + 1
        first = head[FIRST] - head[PADDING]
        while done < n_values and at <= room:
            at, done = _put_number(view, at, values[first + done]), done + 1
        if done < n_values:
            progress[LENGTH], progress[NEXT_VALUE] = at, done
            return
        if n_values:
            text[at - 1], text[at] = _BRACKET_CLOSE, _COMMA
            at += 1
        at = _put_integer(text, _put(text, at, _FROM), head[START])
        at = _put_integer(text, _put(text, at, _TO), head[END])
        at = _put_integer(text, _put(text, at, _RESOLUTION), head[INTERVAL])
        at = _put_statistic(view, _put(text, at, _AVG), statistics[progress[NEXT], AVG])
        at = _put_statistic(view, _put(text, at, _MIN), statistics[progress[NEXT], MIN])
        at = _put_statistic(view, _put(text, at, _MAX), statistics[progress[NEXT], MAX])
        text[at - 1] = _BRACE_CLOSE
        progress[NEXT] += 1
        progress[NEXT_VALUE] = -1
    progress[LENGTH] = at


@kernel
def _is_writable(
    values: NDArray[np.float64], statistics: NDArray[np.float64], head: NDArray[np.int64], number: int
) -> bool:
    """Whether all numbers of a series can be written with three decimals."""
    is_large = False
    for i in range(head[FIRST], head[FIRST] + head[N_VALUES]):  # to the end, several at a time
        size = abs(values[i])
        is_large |= (size >= EXACT_FROM) & (size < np.inf)
    if is_large:
        return False
    for column in (AVG, MIN, MAX):
        size = abs(statistics[number, column])
        if size >= EXACT_FROM and size < np.inf:
            return False
    return True


@kernel
def _put(text: Text, at: int, some: Text) -> int:
    """Writes some bytes; returns where they end, as all of these do."""
    for i in range(len(some)):
        text[at + i] = some[i]
    return at + len(some)


@kernel
def _put_integer(text: Text, at: int, number: int) -> int:
    """Writes any integer, and a comma."""
    if number < 0:
        text[at] = _MINUS
        at += 1
    else:
        number = -number  # the smallest one has no positive twin
    digits = 1
    rest = number // 10 + (number % 10 != 0)  # towards zero
    while rest < 0:
        digits += 1
        rest = rest // 10 + (rest % 10 != 0)
    for i in range(at + digits - 1, at - 1, -1):
        shorter = number // 10 + (number % 10 != 0)
        text[i] = _ZERO + (shorter * 10 - number)
        number = shorter
    text[at + digits] = _COMMA
    return at + digits + 1


@kernel
def _put_statistic(text: View, at: int, value: float) -> int:
    """Writes a number rounded to three decimals as Python rounds it: by what it is, not by its product with 1000."""
    size = abs(value)
    product = size * 1000.0
    below = np.floor(product)
    if not (size < EXACT_FROM and product - below == 0.5):
        return _put_number(text, at, value)
    # The product seems to be in the middle: what was lost when it was rounded decides (T. J. Dekker, 1971).
    upper = size * _SPLITTER
    upper -= upper - size
    lost = (upper * 1000.0 - product) + (size - upper) * 1000.0
    count = np.rint(product)
    if lost != 0.0:
        count = below + 1.0 if lost > 0.0 else below
    return _put_thousandths(text, at, np.signbit(value), count)


@kernel
def _put_number(text: View, at: int, value: float) -> int:
    """Writes a number with up to three decimals, and a comma. Up to 8 bytes behind it are overwritten."""
    size = abs(value)
    if not size < EXACT_FROM:
        put_word(text, at, _NULL)
        return at + _NULL_LENGTH
    return _put_thousandths(text, at, np.signbit(value), np.rint(size * 1000.0))


@kernel
def _put_thousandths(text: View, at: int, is_negative: bool, count: float) -> int:
    """Writes a number of thousandths, less than 2^53, as `_put_number` does."""
    put_word(text, at, _MINUS)
    at += is_negative
    thousandths = np.uint64(np.int64(count))
    whole = thousandths // _THOUSAND
    fraction = thousandths - whole * _THOUSAND
    if whole < _THOUSAND:
        length = int(_WHOLE_LENGTHS[whole])
        put_word(text, at, _WHOLE[whole] | _FRACTIONS[fraction] << (np.uint64(length) << _BYTE_BITS))
        return at + length + int(_FRACTION_LENGTHS[fraction])
    thousands = whole // _THOUSAND
    if thousands < _THOUSAND:
        put_word(text, at, _WHOLE[thousands])
        at += _WHOLE_LENGTHS[thousands]
    else:
        at = _put_groups(text, at, thousands)
    put_word(text, at, _GROUPS[whole - thousands * _THOUSAND] | _FRACTIONS[fraction] << _GROUP_BITS)
    return at + 3 + int(_FRACTION_LENGTHS[fraction])


@kernel
def _put_groups(text: View, at: int, whole: np.uint64) -> int:
    """Writes the digits of an integer from 1,000 to 999,999,999,999, three at a time."""
    upper = whole // _THOUSAND
    if upper < _THOUSAND:
        put_word(text, at, _WHOLE[upper])
        at += _WHOLE_LENGTHS[upper]
    else:
        highest = upper // _THOUSAND
        if highest < _THOUSAND:
            put_word(text, at, _WHOLE[highest])
            at += _WHOLE_LENGTHS[highest]
        else:
            top = highest // _THOUSAND
            put_word(text, at, _WHOLE[top])
            at += _WHOLE_LENGTHS[top]
            put_word(text, at, _GROUPS[highest - top * _THOUSAND])
            at += 3
        put_word(text, at, _GROUPS[upper - highest * _THOUSAND])
        at += 3
    put_word(text, at, _GROUPS[whole - upper * _THOUSAND])
    return at + 3
