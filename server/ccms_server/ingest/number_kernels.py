"""Numbers in line protocol, read exactly or not at all.

Decimals are rounded correctly, like Python's `float()`: small ones by one exact division or multiplication (W. D.
Clinger, "How to read floating point numbers accurately"), the others, with up to 19 digits, by multiplying with a
128-bit power of ten (D. Lemire, "Number parsing at a gigabyte per second"). What these cannot decide - more digits,
subnormal results, results within the error of the product around a rounding boundary - is reported as unread and left
to `line_protocol`; so is everything that is no number.
"""

from typing import Final

import numpy as np

from ccms_server.ingest.line_protocol import INT64_MAX
from ccms_server.ingest.words import (
    WORD_BYTES,
    View,
    byte_at,
    double_of_bits,
    leading_digits,
    leading_zeros,
    multiply_high,
    number_of_digits,
    word_at,
)
from ccms_server.jit import kernel

DIGITS_MAX: Final = 19
"""Decimal digits that always fit into 64 bits."""
EXPONENT_DIGITS_MAX: Final = 4

PLUS: Final = ord("+")
MINUS: Final = ord("-")
POINT: Final = ord(".")
ZERO: Final = ord("0")
NINE: Final = ord("9")
LOWER_E: Final = ord("e")
UPPER_E: Final = ord("E")
SIGNED: Final = ord("i")
UNSIGNED: Final = ord("u")

_SHIFT_OF_DIGITS: Final = np.array([10**count for count in range(WORD_BYTES + 1)], np.uint64)
_SIGNED_END: Final = np.uint64(INT64_MAX + 1)

EXACT_POWER_MAX: Final = 22
"""10**22 is the largest power of ten that is a double."""
_EXACT_POWERS: Final = np.array([10.0**power for power in range(EXACT_POWER_MAX + 1)])
_EXACT_INTEGER_MAX: Final = np.uint64(1 << 53)

POWER_MIN: Final = -342
POWER_MAX: Final = 308


def _power_of_ten(power: int) -> int:
    """The first 128 bits of 10**power, rounded down; the highest one is set."""
    five = int(5 ** abs(power))
    bits = five.bit_length()
    if power < 0:
        return (1 << (127 + bits)) // five
    return five << (128 - bits) if bits <= 128 else five >> (bits - 128)


_POWERS: Final = [_power_of_ten(power) for power in range(POWER_MIN, POWER_MAX + 1)]
_POWERS_HIGH: Final = np.array([power >> 64 for power in _POWERS], np.uint64)
_POWERS_LOW: Final = np.array([power & (1 << 64) - 1 for power in _POWERS], np.uint64)

_ONE: Final = np.uint64(1)
_THREE: Final = np.uint64(3)
_BELOW_ROUNDING: Final = np.uint64((1 << 9) - 1)
_SIGNIFICAND_MASK: Final = np.uint64((1 << 52) - 1)
_LOW_WORD_DOUBTFUL: Final = np.uint64((1 << 64) - 2)
_BIAS: Final = 1023
_EXPONENT_END: Final = 2047


@kernel
def read_number(text: View, begin: int, end: int) -> tuple[bool, float, int]:
    """Reads a decimal number, or an integer with its suffix.

    Args:
        text: View of the payload.
        begin: Where the number begins.
        end: Nothing is read from there on.

    Returns:
        Whether it could be read, the number, and the position behind it. What stands there is for the caller to judge.
    """
    position = begin
    is_negative = False
    if position < end and byte_at(text, position) in (MINUS, PLUS):
        is_negative = byte_at(text, position) == MINUS
        position += 1
    first = position
    mantissa, position = _read_digits(text, position, end, np.uint64(0))
    digits = position - first
    power = 0
    is_decimal = False
    if position < end and byte_at(text, position) == POINT:
        is_decimal = True
        first = position + 1
        mantissa, position = _read_digits(text, first, end, mantissa)
        power = first - position
        digits -= power
    if digits == 0 or digits > DIGITS_MAX:
        return False, 0.0, position
    if position < end:
        byte = byte_at(text, position)
        if byte in (SIGNED, UNSIGNED):
            is_read, number = _integer(mantissa, is_negative, byte == SIGNED)
            return is_read and not is_decimal, number, position + 1
        if byte in (LOWER_E, UPPER_E):
            is_read, exponent, position = _read_exponent(text, position + 1, end)
            if not is_read:
                return False, 0.0, position
            power += exponent
    is_read, number = _decimal(mantissa, power)
    return is_read, -number if is_negative else number, position


@kernel
def read_short_decimal(text: View, begin: int) -> tuple[bool, float, int]:
    """Reads a decimal number of up to 7 digits before and up to 7 behind the point, if there is one.

    Precondition: there are 2 * WORD_BYTES + 2 bytes from `begin` on. The numbers it reads, `read_number` reads alike.

    Returns:
        Whether it is one, the number, and the position behind it. What stands there is for the caller to judge.
    """
    is_negative = byte_at(text, begin) == MINUS
    position = begin + int(is_negative)
    word = word_at(text, position)
    count = leading_digits(word)
    if count == 0 or count == WORD_BYTES:
        return False, 0.0, position
    mantissa = number_of_digits(word, count)
    position += count
    decimals = 0
    if byte_at(text, position) == POINT:
        word = word_at(text, position + 1)
        decimals = leading_digits(word)
        if decimals == 0 or decimals == WORD_BYTES:
            return False, 0.0, position
        mantissa = mantissa * _SHIFT_OF_DIGITS[decimals] + number_of_digits(word, decimals)
        position += 1 + decimals
    number = float(np.int64(mantissa)) / _EXACT_POWERS[decimals]  # of exact doubles: rounded correctly
    return True, -number if is_negative else number, position


@kernel
def read_integer(text: View, begin: int, end: int) -> tuple[bool, int, int]:
    """Reads an integer of 64 bits with an optional sign.

    Returns:
        Whether it could be read, the integer, and the position behind it.
    """
    position = begin
    is_negative = False
    if position < end and byte_at(text, position) in (MINUS, PLUS):
        is_negative = byte_at(text, position) == MINUS
        position += 1
    first = position
    magnitude, position = _read_digits(text, first, end, np.uint64(0))
    digits = position - first
    if digits == 0 or digits > DIGITS_MAX or magnitude >= _SIGNED_END:
        return False, 0, position
    integer = int(np.int64(magnitude))
    return True, -integer if is_negative else integer, position


@kernel
def _read_digits(text: View, begin: int, end: int, before: np.uint64) -> tuple[np.uint64, int]:
    """Appends a run of digits to a number, modulo 2**64; returns it and the position behind the run."""
    number = before
    position = begin
    while position + WORD_BYTES <= end:
        word = word_at(text, position)
        count = leading_digits(word)
        if count > 0:
            number = number * _SHIFT_OF_DIGITS[count] + number_of_digits(word, count)
        position += count
        if count < WORD_BYTES:
            return number, position
    while position < end and ZERO <= byte_at(text, position) <= NINE:
        number = number * _SHIFT_OF_DIGITS[1] + np.uint64(byte_at(text, position) - ZERO)
        position += 1
    return number, position


@kernel
def _read_exponent(text: View, begin: int, end: int) -> tuple[bool, int, int]:
    position = begin
    is_negative = False
    if position < end and byte_at(text, position) in (MINUS, PLUS):
        is_negative = byte_at(text, position) == MINUS
        position += 1
    first = position
    exponent = 0
    while position < end and position - first <= EXPONENT_DIGITS_MAX and ZERO <= byte_at(text, position) <= NINE:
        exponent = exponent * 10 + byte_at(text, position) - ZERO
        position += 1
    is_read = 0 < position - first <= EXPONENT_DIGITS_MAX
    return is_read, -exponent if is_negative else exponent, position


@kernel
def _integer(magnitude: np.uint64, is_negative: bool, is_signed: bool) -> tuple[bool, float]:
    """The double nearest to an integer, and whether it is within the range of its type."""
    if not is_signed:
        return not is_negative, float(magnitude)
    if is_negative:
        return bool(magnitude <= _SIGNED_END), 0.0 - float(magnitude)  # an integer zero has no sign
    return bool(magnitude < _SIGNED_END), float(magnitude)


@kernel
def _decimal(mantissa: np.uint64, power: int) -> tuple[bool, float]:
    """The double nearest to mantissa * 10**power, and whether it could be decided which one that is."""
    if mantissa <= _EXACT_INTEGER_MAX and -EXACT_POWER_MAX <= power <= EXACT_POWER_MAX:
        exact = float(np.int64(mantissa))
        return True, exact / _EXACT_POWERS[-power] if power < 0 else exact * _EXACT_POWERS[power]
    if mantissa == 0:
        return True, 0.0
    if power < POWER_MIN or power > POWER_MAX:
        return False, 0.0
    return _rounded_product(mantissa, power)


@kernel
def _rounded_product(mantissa: np.uint64, power: int) -> tuple[bool, float]:
    """The double nearest to mantissa * 10**power by a 128-bit product, unless that is too inexact.

    The product is never too large. It is too small by less than the factor (first step, 64 bits of the power) or by
    less than 2 in its low word (second step, 128 bits): in doubt is what such an amount could carry over a rounding
    boundary.
    """
    lead = leading_zeros(mantissa)
    factor = mantissa << np.uint64(lead)
    high = multiply_high(factor, _POWERS_HIGH[power - POWER_MIN])
    low = factor * _POWERS_HIGH[power - POWER_MIN]
    if high & _BELOW_ROUNDING == _BELOW_ROUNDING and low + factor < low:
        added = multiply_high(factor, _POWERS_LOW[power - POWER_MIN])
        low += added
        if low < added:
            high += _ONE
        if high & _BELOW_ROUNDING == _BELOW_ROUNDING and low >= _LOW_WORD_DOUBTFUL:
            return False, 0.0
    top = high >> np.uint64(63)
    significand = high >> (top + np.uint64(9))  # 53 bits and the one that decides the rounding
    if low == 0 and high & _BELOW_ROUNDING == 0 and significand & _THREE == _ONE:
        return False, 0.0  # perhaps exactly between two doubles, perhaps just above
    significand = (significand + (significand & _ONE)) >> _ONE
    exponent = (
        ((217706 * power) >> 16) + 63 + np.int64(top) - lead + _BIAS
    )  # floor(power * log2(10)), exact in this range
    if significand > _EXACT_INTEGER_MAX - _ONE:
        significand >>= _ONE
        exponent += 1
    if exponent <= 0 or exponent >= _EXPONENT_END:
        return False, 0.0
    return True, double_of_bits(np.uint64(exponent) << np.uint64(52) | (significand & _SIGNIFICAND_MASK))
