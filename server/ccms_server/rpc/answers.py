"""The answers of queries, as the bytes of their messages.

They are put together here rather than by protobuf: values are copied once, from array to message, and all is done on
the thread that reads, so that the event loop has only to send.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from ccms.v1.metric_store_service_pb2 import QueryResponse, SeriesError, SeriesErrorReason, SeriesHeader, Statistics
from ccms_server.model import SeriesAnswer
from ccms_server.rpc.columns import field_head

PART_VALUES_MAX: Final = 15_360
"""Values in one message, 120 KiB. From 128 KiB on the allocator maps fresh pages for each message: 25 times slower."""
BUNDLE_BYTES_MAX: Final = 124 << 10
"""Size of a message with several parts."""
BATCH_BYTES: Final = 1 << 20
"""Messages made before they are handed on."""


class _Part(NamedTuple):
    """The bytes of a part of a series."""

    pieces: tuple[bytes | memoryview, ...]
    n_bytes: int


def message_batches(chunks: Iterable[list[SeriesAnswer]], *, bundled: bool) -> Iterator[list[bytes]]:
    """The messages of an answer, in batches of about `BATCH_BYTES` that do not reach across chunks.

    Args:
        chunks: The answer.
        bundled: Whether a message may have several parts.
    """
    for answers in chunks:
        parts = (part for answer in answers for part in _parts(answer))
        batch: list[bytes] = []
        n_bytes = 0
        for message in _messages(parts, BUNDLE_BYTES_MAX if bundled else 0):
            batch.append(message)
            n_bytes += len(message)
            if n_bytes >= BATCH_BYTES:
                yield batch
                batch, n_bytes = [], 0
        if batch:
            yield batch


def _messages(parts: Iterable[_Part], bytes_max: int) -> Iterator[bytes]:
    """Makes messages of one or more parts, of at most so many bytes if they have several."""
    pieces: list[bytes | memoryview] = []
    n_bytes = 0
    for part in parts:
        head = field_head(QueryResponse.FOLLOWING_FIELD_NUMBER, part.n_bytes)
        if pieces and n_bytes + len(head) + part.n_bytes > bytes_max:
            yield b"".join(pieces)
            pieces, n_bytes = [], 0
        if pieces:
            pieces.append(head)
            n_bytes += len(head)
        pieces += part.pieces
        n_bytes += part.n_bytes
    if pieces:
        yield b"".join(pieces)


def _parts(answer: SeriesAnswer) -> Iterator[_Part]:
    """The parts of one series: the first has the header, each a bounded number of values."""
    values = np.empty(0) if answer.values is None else np.ascontiguousarray(answer.values, dtype="<f8")
    for offset in range(0, max(values.size, 1), PART_VALUES_MAX):
        part = QueryResponse(
            query_index=answer.query_index,
            series_index=answer.series_index,
            header=_header(answer, values.size) if offset == 0 else None,
            offset=offset,
        ).SerializeToString()
        some = values[offset : offset + PART_VALUES_MAX]
        if some.size:
            head = field_head(QueryResponse.VALUES_FIELD_NUMBER, some.nbytes)
            yield _Part((part, head, some.data), len(part) + len(head) + some.nbytes)
        else:
            yield _Part((part,), len(part))


def _header(answer: SeriesAnswer, value_count: int) -> SeriesHeader:
    error, found = answer.error, answer.statistics
    return SeriesHeader(
        metric=answer.metric,
        host=answer.host,
        component=answer.component,
        subcomponent=answer.subcomponent,
        start_seconds=answer.start,
        end_seconds=answer.end,
        interval_seconds=answer.interval,
        value_count=value_count,
        statistics=None
        if found is None
        else Statistics(min=found.min, avg=found.avg, max=found.max, count=found.count),
        error=None
        if error is None
        else SeriesError(reason=SeriesErrorReason.ValueType(error.reason), message=error.message),
    )
