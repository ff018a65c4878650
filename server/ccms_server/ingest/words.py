"""Bytes eight at a time: as one word, whose lowest byte is the first one.

Loads and stores may be unaligned, and are unchecked like every access of a kernel. Compiled with bounds checking
(`NUMBA_BOUNDSCHECK=1`) they raise IndexError instead of reaching outside their view.
"""

import sys
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ccms_server.jit import kernel

View: TypeAlias = tuple[int, int]
"""Address and size of bytes. Kernels hand views to each other because arrays would be reference counted at each call,
which costs more than all the rest."""

WORD_BYTES: Final = 8

assert sys.byteorder == "little", "words are loaded as they lie in memory"

_LOW_BITS: Final = np.uint64(0x0101010101010101)
_HIGH_BITS: Final = np.uint64(0x8080808080808080)
_LOW_SEVEN_BITS: Final = np.uint64(0x7F7F7F7F7F7F7F7F)
_ZEROS: Final = np.uint64(0x3030303030303030)
_ABOVE_NINE: Final = np.uint64(0x7676767676767676)
_BYTE_PAIRS: Final = np.uint64(0x00FF00FF00FF00FF)
_BYTE_QUADS: Final = np.uint64(0x0000FFFF0000FFFF)
_TENS: Final = np.uint64(1 + (10 << 8))
_HUNDREDS: Final = np.uint64(1 + (100 << 16))
_TEN_THOUSANDS: Final = np.uint64(1 + (10_000 << 32))

_I64: Final = ir.IntType(64)
_I128: Final = ir.IntType(128)
_VIEW: Final = types.UniTuple(types.int64, 2)  # type: ignore[no-untyped-call]


def _view_of(typing_context: Any, array: Any) -> Any:  # noqa: ANN401 (numba's own types are untyped)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        items, item_bytes = builder.extract_value(array.shape, 0), array.itemsize
        parts = [builder.ptrtoint(array.data, _I64), builder.mul(items, item_bytes)]
        return context.make_tuple(builder, signature.return_type, parts)

    return _VIEW(array), generate


def _byte_at(typing_context: Any, view: Any, position: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        address = _address(context, builder, arguments, 1)
        return builder.zext(builder.load(builder.inttoptr(address, ir.IntType(8).as_pointer())), _I64)

    return types.int64(_VIEW, types.int64), generate


def _word_at(typing_context: Any, view: Any, position: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        address = _address(context, builder, arguments, WORD_BYTES)
        return builder.load(builder.inttoptr(address, _I64.as_pointer()), align=1)

    return types.uint64(_VIEW, types.int64), generate


def _put_word(typing_context: Any, view: Any, position: Any, word: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        address = _address(context, builder, arguments[:2], WORD_BYTES)
        builder.store(arguments[2], builder.inttoptr(address, _I64.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.none(_VIEW, types.int64, types.uint64), generate


def _address(context: Any, builder: Any, arguments: Any, size: int) -> Any:  # noqa: ANN401
    """Address of `size` bytes from a position on, after a check if the kernel is compiled with bounds checking."""
    view, position = arguments
    if context.enable_boundscheck:
        last = builder.sub(builder.extract_value(view, 1), _I64(size))
        is_outside = builder.or_(builder.icmp_signed("<", position, _I64(0)), builder.icmp_signed(">", position, last))
        with builder.if_then(is_outside, likely=False):
            context.call_conv.return_user_exc(builder, IndexError, ("reached outside of a view",))
    return builder.add(builder.extract_value(view, 0), position)


def _trailing_zeros(typing_context: Any, word: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return types.int64(types.uint64), generate


def _leading_zeros(typing_context: Any, word: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.ctlz(arguments[0], ir.IntType(1)(0))

    return types.int64(types.uint64), generate


def _multiply_high(typing_context: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        one, other = (builder.zext(argument, _I128) for argument in arguments)
        return builder.trunc(builder.lshr(builder.mul(one, other), _I128(64)), _I64)

    return types.uint64(types.uint64, types.uint64), generate


def _double_of_bits(typing_context: Any, bits: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.uint64), generate


view_of = cast("Callable[[NDArray[Any]], View]", intrinsic(_view_of))
"""A view of the bytes of a contiguous array of one dimension, which must be kept alive meanwhile."""
byte_at = cast("Callable[[View, int], int]", intrinsic(_byte_at))
"""The byte at a position. Precondition: 0 <= position < size."""
word_at = cast("Callable[[View, int], np.uint64]", intrinsic(_word_at))
"""The 8 bytes from a position on. Precondition: 0 <= position <= size - 8."""
put_word = cast("Callable[[View, int, np.uint64], None]", intrinsic(_put_word))
"""Writes a word to the 8 bytes from a position on. Precondition: 0 <= position <= size - 8."""
trailing_zeros = cast("Callable[[np.uint64], int]", intrinsic(_trailing_zeros))
"""Number of zero bits below the lowest one; 64 for 0."""
leading_zeros = cast("Callable[[np.uint64], int]", intrinsic(_leading_zeros))
"""Number of zero bits above the highest one; 64 for 0."""
multiply_high = cast("Callable[[np.uint64, np.uint64], np.uint64]", intrinsic(_multiply_high))
"""Upper 64 bits of a product of 128."""
double_of_bits = cast("Callable[[np.uint64], float]", intrinsic(_double_of_bits))
"""The double with a representation of 64 bits."""


@kernel
def size_of(view: View) -> int:
    """Number of bytes."""
    return view[1]


@kernel
def marks_of(word: np.uint64, byte: np.uint64) -> np.uint64:
    """Marks the highest bit of bytes that equal `byte`; marks above the lowest one may be wrong."""
    difference = word ^ (byte * _LOW_BITS)
    return (difference - _LOW_BITS) & ~difference & _HIGH_BITS


@kernel
def leading_digits(word: np.uint64) -> int:
    """Number of decimal digits at the beginning of a word, 0 to 8."""
    digits = word ^ _ZEROS
    others = (((digits & _LOW_SEVEN_BITS) + _ABOVE_NINE) | digits) & _HIGH_BITS
    return trailing_zeros(others) >> 3


@kernel
def number_of_digits(word: np.uint64, count: int) -> np.uint64:
    """The number that the first `count` bytes of a word spell, 1 to 8 decimal digits."""
    digits = (word ^ _ZEROS) << np.uint64(64 - 8 * count)  # zero bytes come in front as leading zeros
    pairs = ((digits * _TENS) >> np.uint64(8)) & _BYTE_PAIRS
    quads = ((pairs * _HUNDREDS) >> np.uint64(16)) & _BYTE_QUADS
    return (quads * _TEN_THOUSANDS) >> np.uint64(32)
