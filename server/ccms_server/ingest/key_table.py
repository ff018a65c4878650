"""The keys of recurring lines, found by their bytes.

A key is what a line begins with, as written: measurement and tags up to the first space without a backslash.
Collectors send the same keys in the same order every cycle, so each key remembers which one followed it last time, and
a kernel that compares this guess with the line is mostly right; otherwise it looks the key up in an open-addressing
hash table.

A metric that is not configured is kept as its measurement alone, a key that fits every line of that metric.

Layout: all keys one behind the other in `arena`; 32 bytes for each key in `entries`; in `slots` the upper half of a
word is the key's hash and the lower half its entry, at the hash's place or behind it; 0 is free. Entry 0 stands before
the first key and fits no line.
"""

import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ccms_server.ingest.growing import GrowingArray
from ccms_server.ingest.words import WORD_BYTES, View, byte_at, multiply_high, size_of, view_of, word_at
from ccms_server.jit import kernel

Entries: TypeAlias = NDArray[np.void]

ENTRY: Final = np.dtype(
    [
        ("offset", np.int64),  # where the key begins in the arena
        ("length", np.int32),
        ("next", np.int32),  # entry of the key that followed last time; 0 if not known
        ("series", np.int32),  # IGNORED: a metric that is not configured
        ("host", np.int32),  # number of its name
        ("cluster", np.int32),  # likewise
        ("is_cluster_implicit", np.int32),
    ]
)
ENTRY_BYTES: Final = ENTRY.itemsize
_LENGTH_AT: Final = 8
IGNORED: Final = -1
NO_ENTRY: Final = 0
NO_NAME: Final = -1

KEY_BYTES_MAX: Final = 1024
"""Longer keys are not kept."""
KEY_BYTES_MEAN_MAX: Final = 256
"""The arena has room for so many bytes a key."""
IGNORED_MAX: Final = 4096
"""Metrics kept that are not configured."""

# Places in `KeyTable.counts`
ENTRIES_USED: Final = 0
ARENA_USED: Final = 1
IGNORED_USED: Final = 2
REFUSED: Final = 3
CURSOR: Final = 4
"""Entry of the key that was met last, over all payloads."""
SEED: Final = 5

# Columns of what `_insert_keys` is told of each key
_BEGIN, _LENGTH, _SERIES, _HOST, _CLUSTER, _IS_CLUSTER_IMPLICIT, _COLUMNS = range(7)

_HASH_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_HASH_BITS: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(0xFFFFFFFF)


class Key(NamedTuple):
    """A key to be kept, and what it stands for."""

    text: bytes
    series: int
    """IGNORED for a measurement that is no configured metric."""
    host: str = ""
    cluster: str = ""
    is_cluster_implicit: bool = False
    """Whether the cluster is not in the text, and `series` holds for this cluster only."""


class KeyViews(NamedTuple):
    """What a kernel needs to find a key: views of the arrays of a `KeyTable`, and the seed of its hash function."""

    arena: View
    entries: View
    slots: View
    seed: np.uint64


class KeyTable:
    """What is known of keys; kernels work on its arrays.

    Attributes:
        slots: uint64, the hash table; its size is a power of two.
        counts: int64, see `ENTRIES_USED` and the places behind it.
    """

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self.clear()

    def clear(self) -> None:
        """Forgets every key."""
        self._arena = GrowingArray(np.dtype(np.uint8), 1 << 12)
        self._entries = GrowingArray(ENTRY, 1 << 6)
        self.entries[NO_ENTRY]["length"] = np.iinfo(np.int32).max
        self.slots = np.zeros(1 << 8, np.uint64)
        self.counts = np.zeros(6, np.int64)
        self.counts[ENTRIES_USED] = 1
        self.counts[SEED] = secrets.randbits(62)  # nobody can choose keys that collide
        self._name_numbers: dict[str, int] = {}
        self._names: list[str] = []

    @property
    def arena(self) -> NDArray[np.uint8]:
        """Of dtype uint8, the keys; another array after keys were added, like the other ones."""
        return self._arena.array

    @property
    def entries(self) -> Entries:
        """ENTRY records."""
        return self._entries.array

    def __len__(self) -> int:
        """Number of keys kept."""
        return int(self.counts[ENTRIES_USED]) - 1

    @property
    def nbytes(self) -> int:
        """Size of the arrays."""
        return self.arena.nbytes + self.entries.nbytes + self.slots.nbytes

    def name(self, number: int) -> str:
        """The name of a host or cluster with this number."""
        return self._names[number]

    def name_number(self, name: str) -> int:
        """Number of a host or cluster; NO_NAME if no key kept has it."""
        return self._name_numbers.get(name, NO_NAME)

    def add(self, keys: Sequence[Key]) -> None:
        """Keeps keys, in the order of their lines; one that is known already gets its new meaning.

        A full table refuses keys. When it has refused as many as it holds, most of what it holds is probably no longer
        sent: it forgets all and learns anew, so a stream of one-off keys cannot lock out recurring ones for good.
        """
        keys = [key for key in keys if len(key.text) <= KEY_BYTES_MAX]
        if keys and self._takes(len(keys)):
            columns = np.array(
                [
                    (
                        0,
                        len(key.text),
                        key.series,
                        self._number(key.host),
                        self._number(key.cluster),
                        key.is_cluster_implicit,
                    )
                    for key in keys
                ],
                np.int64,
            )
            columns[1:, _BEGIN] = np.cumsum(columns[:-1, _LENGTH])
            self._insert(np.frombuffer(b"".join([key.text for key in keys]), np.uint8), columns)

    def add_of_host(
        self,
        host: str,
        cluster: str,
        text: NDArray[np.uint8],
        begins: NDArray[np.int64],
        lengths: NDArray[np.int64],
        series: NDArray[np.int32],
        are_clusters_implicit: NDArray[np.int64],
    ) -> None:
        """Keeps keys of one host, like `add`.

        Args:
            host: The host of all of them.
            cluster: Their cluster.
            text: uint8 array of shape (n_bytes,), in which the keys stand.
            begins: int64 array of shape (n_keys,), like the three behind it: where each key begins in the text.
            lengths: Bytes of each, at most KEY_BYTES_MAX.
            series: int32.
            are_clusters_implicit: See `Key.is_cluster_implicit`.
        """
        if self._takes(len(begins)):
            columns = np.empty((len(begins), _COLUMNS), np.int64)
            columns[:, _BEGIN], columns[:, _LENGTH], columns[:, _SERIES] = begins, lengths, series
            columns[:, _HOST], columns[:, _CLUSTER] = self._number(host), self._number(cluster)
            columns[:, _IS_CLUSTER_IMPLICIT] = are_clusters_implicit
            self._insert(text, columns)

    def _takes(self, n_keys: int) -> bool:
        """Whether the table is not full; else the keys count as refused."""
        if len(self) < self._keys_max:
            return True
        self.counts[REFUSED] += n_keys
        self._forget_if_useless()
        return False

    def _insert(self, text: NDArray[np.uint8], columns: NDArray[np.int64]) -> None:
        """Keeps keys that stand in a text; for the columns see `_insert_keys`."""
        self._reserve(len(columns), int(columns[:, _LENGTH].sum()))
        limits = np.array([self._keys_max, self._keys_max * KEY_BYTES_MEAN_MAX, IGNORED_MAX], np.int64)
        _insert_keys(text, columns, limits, self.arena, self.entries, self.slots, self.counts)
        self._forget_if_useless()

    def _forget_if_useless(self) -> None:
        if self.counts[REFUSED] >= self._keys_max:
            self.clear()

    def _number(self, name: str) -> int:
        if not name:
            return NO_NAME
        number = self._name_numbers.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number

    def _reserve(self, keys: int, key_bytes: int) -> None:
        self._arena.reserve(int(self.counts[ARENA_USED]) + key_bytes)
        entries = int(self.counts[ENTRIES_USED]) + keys
        self._entries.reserve(entries)
        slots = len(self.slots)
        while slots < 2 * entries:
            slots *= 2
        if slots > len(self.slots):
            old, self.slots = self.slots, np.zeros(slots, np.uint64)
            _move_slots(old, self.slots)


@kernel
def views_of(
    arena: NDArray[np.uint8], entries: Entries, slots: NDArray[np.uint64], counts: NDArray[np.int64]
) -> KeyViews:
    """Views of the arrays of a `KeyTable`."""
    return KeyViews(view_of(arena), view_of(entries), view_of(slots), np.uint64(counts[SEED]))


@kernel
def find_key(text: View, begin: int, end: int, keys: KeyViews) -> int:
    """The entry of the key text[begin:end]; NO_ENTRY if it is not known."""
    hashed = _hash(text, begin, end, keys.seed)
    mask = (size_of(keys.slots) >> 3) - 1
    place = int(np.int64(hashed)) & mask
    slot = word_at(keys.slots, place << 3)
    while slot != 0:
        if slot >> _HASH_BITS == hashed:
            index = int(np.int64(slot & _LOW_HALF))
            if length_of(keys, index) == end - begin and is_key_at(text, begin, keys, index):
                return index
        place = (place + 1) & mask
        slot = word_at(keys.slots, place << 3)
    return NO_ENTRY


@kernel
def is_key_at(text: View, position: int, keys: KeyViews, index: int) -> bool:
    """Whether a text goes on with a key. Precondition: position + length of the key <= size of the text."""
    offset = int(np.int64(word_at(keys.entries, index * ENTRY_BYTES)))
    length = length_of(keys, index)
    if length < WORD_BYTES:
        for at in range(length):  # noqa: SIM110 (numba has no generators)
            if byte_at(text, position + at) != byte_at(keys.arena, offset + at):
                return False
        return True
    last = length - WORD_BYTES  # the last word overlaps the one before it, so nothing behind the key is read
    for at in range(0, last, WORD_BYTES):
        if word_at(text, position + at) != word_at(keys.arena, offset + at):
            return False
    return bool(word_at(text, position + last) == word_at(keys.arena, offset + last))


@kernel
def length_of(keys: KeyViews, index: int) -> int:
    """Number of bytes of a key."""
    return int(np.int64(word_at(keys.entries, index * ENTRY_BYTES + _LENGTH_AT) & _LOW_HALF))


@kernel
def _hash(text: View, begin: int, end: int, seed: np.uint64) -> np.uint64:
    """Hash of text[begin:end], of 32 bits."""
    state = seed ^ np.uint64(end - begin)
    if end - begin < WORD_BYTES:
        for position in range(begin, end):
            state = _mixed(state ^ np.uint64(byte_at(text, position)), _HASH_FACTOR)
    else:
        last = end - WORD_BYTES
        for position in range(begin, last, WORD_BYTES):
            state = _mixed(state ^ word_at(text, position), _HASH_FACTOR ^ seed)
        state = _mixed(state ^ word_at(text, last), _HASH_FACTOR ^ seed)
    return state >> _HASH_BITS


@kernel
def _mixed(one: np.uint64, other: np.uint64) -> np.uint64:
    return multiply_high(one, other) ^ (one * other)


@kernel
def _insert_keys(
    text: NDArray[np.uint8],
    columns: NDArray[np.int64],
    limits: NDArray[np.int64],
    arena: NDArray[np.uint8],
    entries: Entries,
    slots: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> None:
    """Adds keys; there is room for all of them.

    Args:
        text: uint8 array of shape (n_bytes,).
        columns: int64 array of shape (n_keys, _COLUMNS): of each key where it begins in the text, and what is kept.
        limits: int64 array of shape (3,): keys, bytes of keys, and keys of ignored metrics.
        arena: See `KeyTable`, like the arrays behind it.
        entries: See there.
        slots: See there.
        counts: See there.
    """
    view, keys = view_of(text), views_of(arena, entries, slots, counts)
    for row in range(len(columns)):
        begin, length, series = columns[row, _BEGIN], columns[row, _LENGTH], columns[row, _SERIES]
        end = begin + length
        index = find_key(view, begin, end, keys)
        if index == NO_ENTRY:
            if (
                counts[ENTRIES_USED] > limits[0]
                or counts[ARENA_USED] + length > limits[1]
                or (series == IGNORED and counts[IGNORED_USED] >= limits[2])
            ):
                counts[REFUSED] += 1
                continue
            index = counts[ENTRIES_USED]
            counts[ENTRIES_USED] += 1
            if series == IGNORED:
                counts[IGNORED_USED] += 1
            offset = counts[ARENA_USED]
            counts[ARENA_USED] += length
            kept, key = arena[offset : offset + length], text[begin:end]
            for at in range(len(key)):
                kept[at] = key[at]
            entries[index]["offset"] = offset
            entries[index]["length"] = length
            hashed = _hash(view, begin, end, keys.seed)
            _put_slot(slots, hashed << _HASH_BITS | np.uint64(index))
        entries[index]["series"] = series
        entries[index]["host"] = columns[row, _HOST]
        entries[index]["cluster"] = columns[row, _CLUSTER]
        entries[index]["is_cluster_implicit"] = columns[row, _IS_CLUSTER_IMPLICIT]
        entries[counts[CURSOR]]["next"] = index
        counts[CURSOR] = index


@kernel
def _move_slots(old: NDArray[np.uint64], new: NDArray[np.uint64]) -> None:
    for slot in old:
        if slot != 0:
            _put_slot(new, slot)


@kernel
def _put_slot(slots: NDArray[np.uint64], slot: np.uint64) -> None:
    mask = len(slots) - 1
    place = np.int64(slot >> _HASH_BITS) & mask
    while slots[place] != 0:
        place = (place + 1) & mask
    slots[place] = slot
