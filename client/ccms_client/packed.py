"""Columns of numbers as the packed fields of protobuf messages.

Protobuf's own `values.extend(array)` makes a Python object of every number, 22 to 60 ns each. The bytes of an array are
the field already: they only want its tag and their length in front.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_LENGTH_DELIMITED: Final = 2


def packed_field(number: int, column: NDArray[np.float64] | NDArray[np.int64] | NDArray[np.uint32]) -> bytes:
    """A `repeated double`, `sfixed64` or `fixed32`.

    Args:
        number: Number of the field.
        column: Array of shape (n_values,), of the field's width; copied.
    """
    little_endian = np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<"))
    return bytes_field(number, little_endian.tobytes()) if column.size else b""


def bytes_field(number: int, content: bytes) -> bytes:
    """A message, text, bytes or packed numbers, as the field of a message around it."""
    return b"".join((_varint(number << 3 | _LENGTH_DELIMITED), _varint(len(content)), content))


def _varint(number: int) -> bytes:
    """A number in protobuf's variable-length encoding: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
