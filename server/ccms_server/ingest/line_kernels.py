"""Lines whose keys are known, decoded without Python; any other line stops the kernel.

Regular lines only: known key, spaces, `value=` and a number, perhaps spaces and a timestamp, nothing else. Whatever is
not exactly that is for `line_protocol` to judge, so this module has no opinion on what is an error.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.ingest.key_table import (
    CURSOR,
    IGNORED,
    NO_ENTRY,
    Entries,
    KeyViews,
    find_key,
    is_key_at,
    length_of,
    views_of,
)
from ccms_server.ingest.line_protocol import seconds_of
from ccms_server.ingest.number_kernels import read_integer, read_number, read_short_decimal
from ccms_server.ingest.words import WORD_BYTES, View, byte_at, marks_of, size_of, trailing_zeros, view_of, word_at
from ccms_server.jit import kernel

# Why `decode_lines` came back
FINISHED: Final = 0
UNKNOWN_LINE: Final = 1
OUT_OF_ROOM: Final = 2

# Places in the state that is carried over a payload
POSITION: Final = 0
"""Where the next line begins."""
LINE: Final = 1
"""Its number, from 1."""
SAMPLES: Final = 2
"""Samples so far."""
LINES_IGNORED: Final = 3
TIME: Final = 4
"""`line_protocol.Carried.time`."""
HOST: Final = 5
"""Number of `line_protocol.Carried.host`; NO_NAME if the table has no such name."""
CLUSTER: Final = 6
DEFAULT_CLUSTER: Final = 7
LINE_BYTES_LIMIT: Final = 8
STATE_SIZE: Final = 9

TAB: Final = ord("\t")
NEWLINE: Final = ord("\n")
RETURN: Final = ord("\r")
SPACE: Final = ord(" ")
HASH: Final = ord("#")
COMMA: Final = ord(",")
BACKSLASH: Final = ord("\\")

_SPACE_AND_VALUE_NAME: Final = np.uint64(int.from_bytes(b" value=", "little"))
_SPACE_AND_VALUE_NAME_BYTES: Final = 7
_SPACE_AND_VALUE_NAME_MASK: Final = np.uint64((1 << 8 * _SPACE_AND_VALUE_NAME_BYTES) - 1)
_USUAL_BYTES: Final = 64
"""Behind a key, usual sections are shorter: what they may take up can be read without looking for the text's end."""
_USUAL_TIME_BYTES_MAX: Final = 19

_NEWLINE_WORD: Final = np.uint64(NEWLINE)
_SPACE_WORD: Final = np.uint64(SPACE)
_VALUE_NAME: Final = np.uint64(int.from_bytes(b"value=", "little"))
_VALUE_NAME_BYTES: Final = 6
_VALUE_NAME_MASK: Final = np.uint64((1 << 8 * _VALUE_NAME_BYTES) - 1)

_seconds_of: Final = kernel(seconds_of)


@kernel
def decode_lines(
    text: NDArray[np.uint8],
    arena: NDArray[np.uint8],
    entries: Entries,
    slots: NDArray[np.uint64],
    counts: NDArray[np.int64],
    series: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    lines: NDArray[np.int32],
    state: NDArray[np.int64],
) -> int:
    """Decodes lines from state[POSITION] on.

    Args:
        text: uint8 array of shape (n_bytes,), the payload.
        arena: Of the `KeyTable`, like the three arrays behind it; guesses are brought up to date.
        entries: See there.
        slots: See there.
        counts: See there.
        series: int32 array of shape (n_room,), to be filled from state[SAMPLES] on, like the three behind it.
        timestamps: int64, seconds since the epoch.
        values: float64.
        lines: int32, number of the line from 1.
        state: int64 array of shape (STATE_SIZE,), brought up to date.

    Returns:
        FINISHED; UNKNOWN_LINE when it stopped before a line it cannot decode; OUT_OF_ROOM when `series` is full.
    """
    view, keys = view_of(text), views_of(arena, entries, slots, counts)
    size = len(text)
    position, line, samples = state[POSITION], state[LINE], state[SAMPLES]
    time, host, cluster = state[TIME], state[HOST], state[CLUSTER]
    cursor = counts[CURSOR]
    time_begin, time_bytes = 0, 0  # how the last line wrote its timestamp
    result = FINISHED
    while position < size:
        if samples == len(series):
            result = OUT_OF_ROOM
            break
        index = int(np.int64(entries[cursor]["next"]))  # the guess
        key_end = position + length_of(keys, index)
        if key_end + _USUAL_BYTES <= size and time_bytes >= WORD_BYTES and is_key_at(view, position, keys, index):
            entry = entries[index]
            is_usual, value, end = _read_usual_sections(view, key_end, time_begin, time_bytes)
            is_ours = entry["cluster"] == (cluster if host == entry["host"] else state[DEFAULT_CLUSTER])
            if (
                is_usual
                and entry["series"] != IGNORED
                and (is_ours or not entry["is_cluster_implicit"])
                and end - position <= state[LINE_BYTES_LIMIT]
            ):
                host, cluster = entry["host"], entry["cluster"]
                series[samples] = entry["series"]
                timestamps[samples] = time
                values[samples] = value
                lines[samples] = line
                samples += 1
                cursor = index
                position = end + 1
                line += 1
                continue
        begin = skip_blanks(view, position)
        if begin == size or byte_at(view, begin) in (NEWLINE, HASH) or is_line_end(view, begin):
            position = find_newline(view, begin) + 1
            line += 1
            continue

        entry = entries[index]
        key_end = begin + length_of(keys, index)
        if not (key_end < size and is_key_at(view, begin, keys, index) and _ends_key(view, key_end, entry["series"])):
            index, key_end = look_up(view, begin, keys)
            if index == NO_ENTRY:
                result = UNKNOWN_LINE
                break
            entry = entries[index]
        if entry["series"] == IGNORED:
            end = find_newline(view, key_end)
            if end - position > state[LINE_BYTES_LIMIT]:
                result = UNKNOWN_LINE
                break
            state[LINES_IGNORED] += 1
        else:
            if entry["is_cluster_implicit"]:
                expected = cluster if host == entry["host"] else state[DEFAULT_CLUSTER]
                if entry["cluster"] != expected:
                    result = UNKNOWN_LINE
                    break
            is_regular, value, timestamp, time_begin, end = read_sections(view, key_end, time)
            if not is_regular or end - position > state[LINE_BYTES_LIMIT]:
                result = UNKNOWN_LINE
                break
            host, cluster, time = entry["host"], entry["cluster"], timestamp
            time_bytes = end - time_begin
            if time_bytes > _USUAL_TIME_BYTES_MAX or (end < size and byte_at(view, end) != NEWLINE):
                time_bytes = 0
            series[samples] = entry["series"]
            timestamps[samples] = timestamp
            values[samples] = value
            lines[samples] = line
            samples += 1
        if entries[cursor]["next"] != index:
            entries[cursor]["next"] = index
        cursor = index
        position = end + 1
        line += 1
    counts[CURSOR] = cursor
    state[POSITION], state[LINE], state[SAMPLES] = position, line, samples
    state[TIME], state[HOST], state[CLUSTER] = time, host, cluster
    return result


@kernel
def _ends_key(text: View, position: int, series: int) -> bool:
    """Whether a key ends at a position rather than being the beginning of another one."""
    byte = byte_at(text, position)
    return byte == SPACE or (byte == COMMA and series == IGNORED)


@kernel
def look_up(text: View, begin: int, keys: KeyViews) -> tuple[int, int]:
    """The entry of a line's key, NO_ENTRY if it is not known, and the end of the key in the text."""
    end = find_key_end(text, begin)
    has_fields = end < size_of(text) and byte_at(text, end) == SPACE
    if has_fields:
        index = find_key(text, begin, end, keys)
        if index != NO_ENTRY:
            return index, end
    elif end > begin and byte_at(text, end - 1) == RETURN:
        end -= 1
    # Lines of a metric that is not configured are known by the measurement alone, whatever else they hold or lack.
    end = _find_measurement_end(text, begin, end)
    return find_key(text, begin, end, keys), end


@kernel
def _read_usual_sections(text: View, key_end: int, time_begin: int, time_bytes: int) -> tuple[bool, float, int]:
    """Reads what follows most keys: a short decimal, and a timestamp that is written like that of the line before.

    Precondition: there are _USUAL_BYTES from `key_end` on.

    Args:
        text: View of the payload.
        key_end: Where it begins.
        time_begin: Where the timestamp of the line before begins.
        time_bytes: Its length, WORD_BYTES to _USUAL_TIME_BYTES_MAX.

    Returns:
        Whether it is like that, the value, and where the line's newline is.
    """
    if word_at(text, key_end) & _SPACE_AND_VALUE_NAME_MASK != _SPACE_AND_VALUE_NAME:
        return False, 0.0, key_end
    is_short, value, position = read_short_decimal(text, key_end + _SPACE_AND_VALUE_NAME_BYTES)
    end = position + 1 + time_bytes
    last = time_bytes - WORD_BYTES  # the second word overlaps the first one, or there is a third between them
    is_usual = (
        is_short
        and byte_at(text, position) == SPACE
        and word_at(text, position + 1) == word_at(text, time_begin)
        and word_at(text, position + 1 + last) == word_at(text, time_begin + last)
        and (last <= WORD_BYTES or word_at(text, position + 1 + WORD_BYTES) == word_at(text, time_begin + WORD_BYTES))
        and byte_at(text, end) == NEWLINE
    )
    return is_usual, value, end


@kernel
def read_sections(text: View, key_end: int, previous_time: int) -> tuple[bool, float, int, int, int]:
    """Reads what follows a key.

    Returns:
        Whether it is regular, the value, its time in seconds, where its timestamp begins, and where the line's newline
        is, or the end of the text.
    """
    size = size_of(text)
    position = _skip_spaces(text, key_end)
    if position + WORD_BYTES > size or word_at(text, position) & _VALUE_NAME_MASK != _VALUE_NAME:
        return False, 0.0, 0, position, position
    is_read, value, position = read_number(text, position + _VALUE_NAME_BYTES, size)
    time, time_begin = previous_time, size
    if position < size and byte_at(text, position) == SPACE:
        position = _skip_spaces(text, position)
        if not is_line_end(text, position):
            time_begin = position
            is_timestamp_read, timestamp, position = read_integer(text, position, size)
            time = _seconds_of(timestamp)
            is_read = is_read and is_timestamp_read
            position = _skip_spaces(text, position)
    if not is_read or not is_line_end(text, position):
        return False, 0.0, 0, position, position
    if position < size and byte_at(text, position) == RETURN:
        position += 1
    return True, value, time, time_begin, position


@kernel
def is_line_end(text: View, position: int) -> bool:
    r"""Whether a newline, "\r" and a newline, or the text's end come next."""
    size = size_of(text)
    if position < size and byte_at(text, position) == RETURN:
        position += 1
    return position == size or byte_at(text, position) == NEWLINE


@kernel
def _skip_spaces(text: View, position: int) -> int:
    while position < size_of(text) and byte_at(text, position) == SPACE:
        position += 1
    return position


@kernel
def skip_blanks(text: View, position: int) -> int:
    """Position behind spaces and tabs."""
    while position < size_of(text) and byte_at(text, position) in (SPACE, TAB):
        position += 1
    return position


@kernel
def find_newline(text: View, position: int) -> int:
    """Position of the next newline, or the text's end."""
    size = size_of(text)
    while position + WORD_BYTES <= size:
        marks = marks_of(word_at(text, position), _NEWLINE_WORD)
        if marks != 0:
            return position + (trailing_zeros(marks) >> 3)
        position += WORD_BYTES
    while position < size and byte_at(text, position) != NEWLINE:
        position += 1
    return position


@kernel
def find_key_end(text: View, begin: int) -> int:
    """Position of the next space without a backslash or newline, or the text's end."""
    size = size_of(text)
    position = begin
    while True:
        while position + WORD_BYTES <= size:
            word = word_at(text, position)
            marks = marks_of(word, _SPACE_WORD) | marks_of(word, _NEWLINE_WORD)
            if marks != 0:
                position += trailing_zeros(marks) >> 3
                break
            position += WORD_BYTES
        while position < size and byte_at(text, position) not in (SPACE, NEWLINE):
            position += 1
        is_escaped = (
            begin < position < size and byte_at(text, position) == SPACE and byte_at(text, position - 1) == BACKSLASH
        )
        if not is_escaped:
            return position
        position += 1


@kernel
def _find_measurement_end(text: View, begin: int, end: int) -> int:
    """Position of the first comma without a backslash, or the key's end."""
    position = begin
    while position < end and (
        byte_at(text, position) != COMMA or (position > begin and byte_at(text, position - 1) == BACKSLASH)
    ):
        position += 1
    return position
