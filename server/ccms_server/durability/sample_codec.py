"""Payloads of WAL records: samples, compact, exact, and fast to write; and floors.

A collector sends its series in the same order each time, so ids mostly count up, and what it sends was decimal text
with few digits. Samples with consecutive ids and the same slot and phase form a run.

    varint  n_samples
    of each run:
        varint  n_samples of the run << 2 | slot differs << 1 | phase differs; from those of the run before
        varint  zigzag of its first id - the id behind the last one of the run before
        varint  zigzag of slot - slot of the run before, if it differs
        varint  zigzag of phase - phase of the run before, if it differs
        of each sample, its value:
            u8  exponent << 3 | length, and `length` bytes: mantissa << 1 | sign; the value is mantissa / 10**exponent
            or: u8 F8, f64

The first run follows one that ends with id -1, slot 0 and phase 0. Varints have seven bits a byte, the lowest first,
and the highest bit set in all but the last; zigzag of x is 2 x, or -2 x - 1 if x is negative; differences wrap around
in 64 bits. A value is written as a decimal only if the division, which rounds correctly, gives all its bits.

Slot k of a series is centred on `phase + k * interval` seconds since the epoch. Mantissas are little endian.

A record of identified samples: u32 length of the writes that are known from then on, those writes (`known_writes`), and
the samples of these and perhaps of other writes, as above.

A record of floors, the first slots that series accept, is plain arrays: i32[n] ids, i64[n] slots.

A record of dropped windows: u32 interval in seconds, u32 0, i64 number of the first window that is kept.
"""

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.jit import kernel

Samples = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]
"""Ids, slots, phases and values."""

SAMPLES: Final = 1
"""Kind of a record that holds samples."""
FLOORS: Final = 2
"""Kind of a record that holds floors."""
DROPPED: Final = 3
"""Kind of a record that tells which windows were dropped."""
IDENTIFIED_SAMPLES: Final = 4
"""Kind of a record that holds samples, and what their writes are known by."""

VARINT_BYTES_MAX: Final = 10
SAMPLE_BYTES_MAX: Final = 4 * VARINT_BYTES_MAX + 9
"""A sample that is a run of its own."""
RAW: Final = 0xF8

EXPONENT_MAX: Final = 22
"""10**22 is the largest power of ten that is a double."""
_POWERS: Final = np.array([10.0**exponent for exponent in range(EXPONENT_MAX + 1)])

_INTEGER_BITS: Final = 53
"""Integers of so many bits are doubles."""
_DECIMAL_BITS: Final = 51
"""Of mantissas that are found by rounding `value * 10**exponent`, which is off by up to 2**-52 of it."""
_BIAS: Final = 1023
_LOWEST_63_BITS: Final = (1 << 63) - 1
_LOWEST_57_BITS: Final = (1 << 57) - 1
_I32_MIN: Final = -(1 << 31)
_I32_MAX: Final = (1 << 31) - 1


def encode(
    series: NDArray[np.int32], slots: NDArray[np.int64], phases: NDArray[np.int32], values: NDArray[np.float64]
) -> bytes:
    """Encodes samples, in order.

    Args:
        series: int32 array of shape (n_samples,), ids.
        slots: int64 array of shape (n_samples,).
        phases: int32 array of shape (n_samples,), seconds.
        values: float64 array of shape (n_samples,); every bit is kept. All are contiguous.
    """
    assert len(series) == len(slots) == len(phases) == len(values)
    out = np.empty(VARINT_BYTES_MAX + SAMPLE_BYTES_MAX * len(series), np.uint8)
    return out[: _encode(series, slots, phases, values, out)].tobytes()


def decode(buffer: bytes | memoryview) -> Samples:
    """The samples that were encoded.

    Args:
        buffer: What `encode` returned.

    Returns:
        New arrays of shape (n_samples,): int32 ids, int64 slots, int32 phases in seconds, float64 values.

    Raises:
        ValueError: `encode` did not write this. (Not all such bytes are recognised; that is what checksums are for.)
    """
    data = np.frombuffer(buffer, np.uint8)
    data.flags.writeable = False  # one type of array, one compiled kernel
    n_samples, at = _get_varint(data, 0)
    if not 0 <= n_samples <= len(data):  # each takes a byte at least
        raise ValueError("no count of samples")
    series, phases = np.empty(n_samples, np.int32), np.empty(n_samples, np.int32)
    slots, values = np.empty(n_samples, np.int64), np.empty(n_samples)
    if not _decode(data, at, series, slots, phases, values):
        raise ValueError("these bytes are no samples")
    return series, slots, phases, values


def encode_floors(series: NDArray[np.int32], slots: NDArray[np.int64]) -> bytes:
    """Encodes the first slots that series accept.

    Args:
        series: int32 array of shape (n_series,), ids.
        slots: int64 array of shape (n_series,).
    """
    assert len(series) == len(slots)
    return series.astype("<i4").tobytes() + slots.astype("<i8").tobytes()


def decode_floors(buffer: bytes | memoryview) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """What was given to `encode_floors`, in new arrays.

    Raises:
        ValueError: The length is impossible.
    """
    n_series, rest = divmod(memoryview(buffer).nbytes, 12)
    if rest:
        raise ValueError("no whole number of floors")
    series = np.frombuffer(buffer, "<i4", n_series).astype(np.int32)
    return series, np.frombuffer(buffer, "<i8", n_series, 4 * n_series).astype(np.int64)


_DROPPED: Final = struct.Struct("<I4xq")


def encode_dropped(interval: int, first_kept: int) -> bytes:
    """Encodes that all windows of metrics of an interval, in seconds, before one of them were dropped."""
    return _DROPPED.pack(interval, first_kept)


def decode_dropped(buffer: bytes | memoryview) -> tuple[int, int]:
    """What was given to `encode_dropped`.

    Raises:
        ValueError: The length is impossible.
    """
    if len(buffer) != _DROPPED.size:
        raise ValueError("no dropped windows")
    interval, first_kept = _DROPPED.unpack(buffer)
    return interval, first_kept


@kernel
def _encode(
    series: NDArray[np.int32],
    slots: NDArray[np.int64],
    phases: NDArray[np.int32],
    values: NDArray[np.float64],
    out: NDArray[np.uint8],
) -> int:
    """Writes the encoded samples; returns how many bytes they take."""
    n_samples, patterns = len(series), values.view(np.int64)
    at = _put_varint(out, 0, n_samples)
    expected, slot, phase = 0, 0, 0
    start = 0
    while start < n_samples:
        end = start + 1
        while (
            end < n_samples
            and int(series[end]) == int(series[start]) + (end - start)
            and slots[end] == slots[start]
            and phases[end] == phases[start]
        ):
            end += 1
        length = end - start
        slot_differs, phase_differs = slots[start] != slot, phases[start] != phase
        at = _put_varint(out, at, length << 2 | int(slot_differs) << 1 | int(phase_differs))
        at = _put_varint(out, at, _zigzag(int(series[start]) - expected))
        if slot_differs:
            at = _put_varint(out, at, _zigzag(slots[start] - slot))
        if phase_differs:
            at = _put_varint(out, at, _zigzag(int(phases[start]) - phase))
        expected, slot, phase = int(series[start]) + length, slots[start], int(phases[start])
        # Not `start`, whose first value is a constant: see `kernel`.
        at = _put_values(out, at, values, patterns, end - length, end)
        start = end
    return at


@kernel
def _decode(
    data: NDArray[np.uint8],
    at: int,
    series: NDArray[np.int32],
    slots: NDArray[np.int64],
    phases: NDArray[np.int32],
    values: NDArray[np.float64],
) -> bool:
    """Reads samples until the arrays are full; whether that took exactly the rest of the bytes."""
    n_samples, size, bits = len(series), len(data), values.view(np.int64)
    expected, slot, phase = 0, 0, 0
    start = 0
    while start < n_samples:
        head, at = _get_varint(data, at)
        difference, at = _get_varint(data, at)
        first = expected + _unzigzag(difference)
        if head & 2:
            difference, at = _get_varint(data, at)
            slot += _unzigzag(difference)
        if head & 1:
            difference, at = _get_varint(data, at)
            phase += _unzigzag(difference)
        length = head >> 2
        if at < 0 or length < 1 or length > n_samples - start:
            return False
        if first < _I32_MIN or first > _I32_MAX + 1 - length or phase < _I32_MIN or phase > _I32_MAX:
            return False
        for i in range(start, start + length):
            series[i], slots[i], phases[i] = first + (i - start), slot, phase
            if at == size:
                return False
            control = int(np.int64(data[at]))  # the int of an unsigned number would be unsigned
            exponent, n_bytes = (0, 8) if control == RAW else (control >> 3, control & 7)
            at += 1
            if exponent > EXPONENT_MAX or n_bytes > size - at:
                return False
            number = 0
            for k in range(n_bytes):
                number |= int(np.int64(data[at + k])) << (8 * k)
            at += n_bytes
            if control == RAW:
                bits[i] = number
            else:
                value = (number >> 1) / _POWERS[exponent]
                values[i] = -value if number & 1 else value
        expected, start = first + length, start + length
    return at == size


@kernel
def _put_values(
    out: NDArray[np.uint8],
    at: int,
    values: NDArray[np.float64],
    patterns: NDArray[np.int64],
    start: int,
    end: int,
) -> int:
    """Writes the values of a run; returns the position behind them."""
    for i in range(start, end):
        magnitude, bits = abs(values[i]), patterns[i]
        exponent_of_two = ((bits >> 52) & 0x7FF) - _BIAS
        if exponent_of_two < _INTEGER_BITS:
            # As many decimals as a mantissa may have: one test tells whether the value is a decimal at all.
            exponent = ((_DECIMAL_BITS - 1 - exponent_of_two) * 1233) >> 12  # log10(2) is just above 1233 / 4096
            exponent = min(max(exponent, 0), EXPONENT_MAX)
            mantissa = int(magnitude * _POWERS[exponent] + 0.5)
            if mantissa / _POWERS[exponent] == magnitude:
                # Then all zeros at its end go.
                if exponent >= 8 and mantissa % 100_000_000 == 0:
                    mantissa, exponent = mantissa // 100_000_000, exponent - 8
                if exponent >= 4 and mantissa % 10_000 == 0:
                    mantissa, exponent = mantissa // 10_000, exponent - 4
                if exponent >= 2 and mantissa % 100 == 0:
                    mantissa, exponent = mantissa // 100, exponent - 2
                if exponent >= 1 and mantissa % 10 == 0:
                    mantissa, exponent = mantissa // 10, exponent - 1
                control, rest = at, mantissa << 1 | int(bits < 0)
                at += 1
                while rest:
                    out[at] = rest & 0xFF
                    rest >>= 8
                    at += 1
                out[control] = exponent << 3 | (at - control - 1)
                continue
        out[at] = RAW
        for k in range(8):
            out[at + 1 + k] = (bits >> (8 * k)) & 0xFF
        at += 9
    return at


@kernel
def _put_varint(out: NDArray[np.uint8], at: int, number: int) -> int:
    """Writes the 64 bits of a number, seven a byte; returns the position behind it."""
    while number & ~0x7F:
        out[at] = number & 0x7F | 0x80
        number = (number >> 7) & _LOWEST_57_BITS
        at += 1
    out[at] = number
    return at + 1


@kernel
def _get_varint(data: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """The number at a position, and the position behind it: -1 if there is none, or `at` was."""
    number = 0
    for k in range(VARINT_BYTES_MAX):
        if at < 0 or at + k >= len(data):
            return 0, -1
        byte = int(np.int64(data[at + k]))
        number |= (byte & 0x7F) << (7 * k)
        if byte < 0x80:
            return number, at + k + 1
    return 0, -1


@kernel
def _zigzag(number: int) -> int:
    return (number << 1) ^ (number >> 63)


@kernel
def _unzigzag(number: int) -> int:
    return ((number >> 1) & _LOWEST_63_BITS) ^ -(number & 1)
