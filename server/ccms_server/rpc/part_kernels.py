"""Kernels that write the parts of an answer as protobuf has them, all but their values: those lie in an array already.

A part is a `QueryResponse`; the first one of a series has its header, and every one in a message but the first is a
field `following` of that. Fields that are zero are left out, as protobuf leaves them out.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms.v1.metric_store_service_pb2 import QueryResponse, SeriesHeader, Statistics
from ccms_server.ingest.words import View, put_word, view_of
from ccms_server.jit import kernel
from ccms_server.model import (
    AVG,
    COUNT,
    END,
    FIRST,
    INTERVAL,
    IS_ERROR,
    MAX,
    MIN,
    N_VALUES,
    QUERY,
    SERIES,
    START,
)

Text = NDArray[np.uint8]

BEGINS_MESSAGE, HEAD_END, FIRST_VALUE, END_VALUE, PART_COLUMNS = range(5)
"""Columns of a table of parts, and how many there are: whether it is the first part of a message; where its bytes end,
which begin where those of the part before end; and which values follow them."""

PART_BYTES_MAX: Final = 192
"""Bytes of a part beside its label and its values: up to 16 numbers of up to 11 bytes with their tags."""

VALUE_BYTES: Final = 8

_VARINT, _FIXED64, _LENGTH_DELIMITED = 0, 1, 2
_QUERY_INDEX: Final = QueryResponse.QUERY_INDEX_FIELD_NUMBER << 3 | _VARINT
_SERIES_INDEX: Final = QueryResponse.SERIES_INDEX_FIELD_NUMBER << 3 | _VARINT
_HEADER: Final = QueryResponse.HEADER_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_OFFSET: Final = QueryResponse.OFFSET_FIELD_NUMBER << 3 | _VARINT
_VALUES: Final = QueryResponse.VALUES_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_FOLLOWING: Final = QueryResponse.FOLLOWING_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_OF_HEADER: Final = np.array(
    [
        (SeriesHeader.START_SECONDS_FIELD_NUMBER << 3 | _VARINT, START),
        (SeriesHeader.END_SECONDS_FIELD_NUMBER << 3 | _VARINT, END),
        (SeriesHeader.INTERVAL_SECONDS_FIELD_NUMBER << 3 | _VARINT, INTERVAL),
        (SeriesHeader.VALUE_COUNT_FIELD_NUMBER << 3 | _VARINT, N_VALUES),
    ]
)
"""Tags of fields, and the columns of heads they are of. Loops over these take a fraction of the time to compile."""
_STATISTICS: Final = SeriesHeader.STATISTICS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_MIN: Final = Statistics.MIN_FIELD_NUMBER << 3 | _FIXED64
_AVG: Final = Statistics.AVG_FIELD_NUMBER << 3 | _FIXED64
_MAX: Final = Statistics.MAX_FIELD_NUMBER << 3 | _FIXED64
_COUNT: Final = Statistics.COUNT_FIELD_NUMBER << 3 | _VARINT
_SEVEN_BITS: Final = np.uint64(0x7F)
_MORE: Final = np.uint64(0x80)
_SEVEN: Final = np.uint64(7)


@kernel
def write_parts(
    heads: NDArray[np.int64],
    statistics: NDArray[np.float64],
    has_statistics: bool,
    labels: Text,
    label_edges: NDArray[np.int64],
    part_values_max: int,
    message_bytes_max: int,
    text: Text,
    parts: NDArray[np.int64],
) -> None:
    """Writes the parts of some series in order, and shares them out among messages.

    Args:
        heads: See `SeriesAnswers`; nothing is padded.
        statistics: The same.
        has_statistics: The same.
        labels: uint8 array: the fields that headers begin with.
        label_edges: int64 array of shape (n_series + 1,): where those of each begin, and where the last ones end.
        part_values_max: Values in a part.
        message_bytes_max: Size of a message of several parts.
        text: uint8 array with room for labels and PART_BYTES_MAX a part, which is written.
        parts: int64 array of shape (n_parts, PART_COLUMNS), which is written. A series has a part for every
            `part_values_max` values, and at least one.
    """
    view, bits = view_of(text), statistics.view(np.uint64)
    at, number, message_bytes = 0, 0, 0
    for series in range(len(heads)):
        head = heads[series]
        label_size = label_edges[series + 1] - label_edges[series]
        with_statistics = has_statistics and not head[IS_ERROR]
        of_statistics = _statistics_size(bits[series], statistics[series, COUNT]) if with_statistics else 0
        header_size = label_size
        for _, column in _OF_HEADER:
            header_size += _field_size(head[column])
        if with_statistics:
            header_size += _block_size(of_statistics)
        offset = 0
        while offset == 0 or offset < head[N_VALUES]:
            n_values = min(head[N_VALUES] - offset, part_values_max)
            size = _field_size(head[QUERY]) + _field_size(head[SERIES]) + _field_size(offset)
            size += _block_size(header_size) if offset == 0 else 0
            size += _block_size(n_values * VALUE_BYTES) if n_values else 0
            begins = number == 0 or message_bytes + _block_size(size) > message_bytes_max
            if begins:
                message_bytes = size
            else:
                message_bytes += _block_size(size)
                at = _put_block_head(text, at, _FOLLOWING, size)
            at = _put_field(text, _put_field(text, at, _QUERY_INDEX, head[QUERY]), _SERIES_INDEX, head[SERIES])
            if offset == 0:
                at = _put_block_head(text, at, _HEADER, header_size)
                for i in range(label_size):
                    text[at + i] = labels[label_edges[series] + i]
                at += label_size
                for tag, column in _OF_HEADER:
                    at = _put_field(text, at, tag, head[column])
                if with_statistics:
                    at = _put_block_head(text, at, _STATISTICS, of_statistics)
                    at = _put_statistics(text, view, at, bits[series], statistics[series, COUNT])
            at = _put_field(text, at, _OFFSET, offset)
            if n_values:
                at = _put_block_head(text, at, _VALUES, n_values * VALUE_BYTES)
            part = parts[number]
            part[BEGINS_MESSAGE], part[HEAD_END] = begins, at
            part[FIRST_VALUE], part[END_VALUE] = head[FIRST] + offset, head[FIRST] + offset + n_values
            number += 1
            offset += max(n_values, 1)


@kernel
def _statistics_size(bits: NDArray[np.uint64], count: float) -> int:
    size = _field_size(int(count))
    for column in (MIN, AVG, MAX):
        size += 9 if bits[column] else 0
    return size


@kernel
def _put_statistics(text: Text, view: View, at: int, bits: NDArray[np.uint64], count: float) -> int:
    for column, tag in ((MIN, _MIN), (AVG, _AVG), (MAX, _MAX)):
        if bits[column]:
            text[at] = tag
            put_word(view, at + 1, bits[column])
            at += 9
    return _put_field(text, at, _COUNT, int(count))


@kernel
def _varint_size(number: int) -> int:
    """Bytes of an integer in protobuf's variable-length encoding; negative ones take ten."""
    rest, size = np.uint64(number) >> _SEVEN, 1
    while rest:
        rest >>= _SEVEN
        size += 1
    return size


@kernel
def _field_size(number: int) -> int:
    """Bytes of a field that is a number."""
    return 1 + _varint_size(number) if number else 0


@kernel
def _block_size(n_bytes: int) -> int:
    """Bytes of a field that is a message or an array of so many bytes."""
    return 1 + _varint_size(n_bytes) + n_bytes


@kernel
def _put_varint(text: Text, at: int, number: int) -> int:
    rest = np.uint64(number)
    while rest > _SEVEN_BITS:
        text[at] = rest & _SEVEN_BITS | _MORE
        rest >>= _SEVEN
        at += 1
    text[at] = rest
    return at + 1


@kernel
def _put_field(text: Text, at: int, tag: int, number: int) -> int:
    """Writes a field that is a number; returns where it ends, as all of these do."""
    if not number:
        return at
    text[at] = tag
    return _put_varint(text, at + 1, number)


@kernel
def _put_block_head(text: Text, at: int, tag: int, n_bytes: int) -> int:
    """Writes what stands in front of a message or an array."""
    text[at] = tag
    return _put_varint(text, at + 1, n_bytes)
