"""The answers of queries, as the bytes of their messages.

They are put together here rather than by protobuf, on the thread that reads: a message is a list of pieces, the values
among them as they lie in the array. The pieces are joined when the message is sent, so that one message at a time has
memory of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Final

import numpy as np

from ccms.v1.metric_store_service_pb2 import SeriesError as SeriesErrorMessage
from ccms.v1.metric_store_service_pb2 import SeriesErrorReason, SeriesHeader
from ccms_server.model import N_VALUES, PADDING, Label, SeriesAnswers, SeriesError
from ccms_server.rpc.columns import field_head
from ccms_server.rpc.part_kernels import PART_BYTES_MAX, PART_COLUMNS, write_parts

PART_VALUES_MAX: Final = 15_360
"""Values in one message, 120 KiB. From 128 KiB on the allocator maps fresh pages for each message: 25 times slower."""
BUNDLE_BYTES_MAX: Final = 384 << 10
"""Size of a message with several parts. For a megabyte, 3 of these take gRPC 0.7 ms on the side of the server, 8 of
124 KiB 1.1 ms, and 45 of 23 KiB 3.7 ms."""
LABELS_MAX: Final = 16_384
"""Labels whose bytes are remembered: clients ask for the same series again and again."""

Pieces = list[memoryview]
"""A message, in pieces."""


def answer_messages(chunks: Iterable[SeriesAnswers], *, bundled: bool) -> Iterator[list[Pieces]]:
    """The messages of each chunk of an answer.

    Args:
        chunks: The answer.
        bundled: Whether a message may have several parts.
    """
    for answers in chunks:
        yield list(_messages(answers, BUNDLE_BYTES_MAX if bundled else 0))


def _messages(answers: SeriesAnswers, bytes_max: int) -> Iterator[Pieces]:
    """Makes messages of one or more parts, of at most so many bytes if they have several."""
    heads = answers.heads
    assert not heads[:, PADDING].any(), "over gRPC, values begin with the first sample"
    labels = _labels(answers.labels, answers.errors)
    label_edges = np.fromiter(accumulate(map(len, labels), initial=0), np.int64, len(labels) + 1)
    n_parts = int(np.maximum(1, -(-heads[:, N_VALUES] // PART_VALUES_MAX)).sum())
    parts = np.empty((n_parts, PART_COLUMNS), np.int64)
    text = np.empty(PART_BYTES_MAX * n_parts + int(label_edges[-1]), np.uint8)
    write_parts(
        heads,
        answers.statistics,
        answers.has_statistics,
        np.frombuffer(b"".join(labels), np.uint8),
        label_edges,
        PART_VALUES_MAX,
        bytes_max,
        text,
        parts,
    )
    bytes_of_text, bytes_of_values = text.data, answers.values.data
    pieces: Pieces = []
    begin = 0
    for begins_message, end, first, last in parts.tolist():
        if begins_message and pieces:
            yield pieces
            pieces = []
        pieces.append(bytes_of_text[begin:end])
        begin = end
        if first < last:
            pieces.append(bytes_of_values[first:last])
    if pieces:
        yield pieces


def _labels(labels: Iterable[Label], errors: Mapping[int, SeriesError]) -> list[bytes]:
    """The fields that headers begin with; those of series that cannot be answered have no others."""
    fields = [_label_fields(label) for label in labels]
    for position, error in errors.items():
        message = SeriesErrorMessage(reason=SeriesErrorReason.ValueType(error.reason), message=error.message)
        text = message.SerializeToString()
        fields[position] += field_head(SeriesHeader.ERROR_FIELD_NUMBER, len(text)) + text
    return fields


@lru_cache(maxsize=LABELS_MAX)
def _label_fields(label: Label) -> bytes:
    numbers = (
        SeriesHeader.METRIC_FIELD_NUMBER,
        SeriesHeader.HOST_FIELD_NUMBER,
        SeriesHeader.COMPONENT_FIELD_NUMBER,
        SeriesHeader.SUBCOMPONENT_FIELD_NUMBER,
    )
    texts = [name.encode() for name in label]
    return b"".join(field_head(number, len(text)) + text for number, text in zip(numbers, texts, strict=True) if text)
