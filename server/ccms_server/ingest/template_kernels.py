"""Lines of a host whose keys are new, but like those of other hosts, decoded without Python.

What `line_kernels` is for lines whose keys are known, this is for those that follow a line of the same host and
cluster, and whose keys have a known template (see `key_templates`). Like there, any other line stops the kernel.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.ingest.key_table import (
    IGNORED,
    KEY_BYTES_MAX,
    NO_ENTRY,
    Entries,
    find_key,
    views_of,
)
from ccms_server.ingest.line_kernels import (
    COMMA,
    HASH,
    LINE,
    LINE_BYTES_LIMIT,
    LINES_IGNORED,
    NEWLINE,
    POSITION,
    SAMPLES,
    TIME,
    find_key_end,
    find_newline,
    is_line_end,
    look_up,
    read_sections,
    skip_blanks,
)
from ccms_server.ingest.words import View, byte_at, size_of, view_of, word_at
from ccms_server.jit import kernel

# Columns of what is found, one row for each line
TEMPLATE: Final = 0
"""Number of the key's template."""
BEGIN: Final = 1
"""Where the key begins in the text."""
LENGTH: Final = 2
"""Bytes of the key."""
IS_CLUSTER_IMPLICIT: Final = 3
FOUND_COLUMNS: Final = 4

_BLANK: Final = NEWLINE
_HOST: Final = np.uint64(int.from_bytes(b"host", "little"))
_HOST_MASK: Final = np.uint64((1 << 32) - 1)
_HOST_TAG_BYTES: Final = len(b",host=")
_NAME: Final = np.uint64(int.from_bytes(b"name", "little"))
_NAME_BITS: Final = np.uint64(32)
_HOSTNAME_TAG_BYTES: Final = len(b",hostname=")
_EQUALS: Final = ord("=")
_NOWHERE: Final = -1


@kernel
def decode_like_others(
    text: NDArray[np.uint8],
    host: NDArray[np.uint8],
    cluster: int,
    template_arena: NDArray[np.uint8],
    template_entries: Entries,
    template_slots: NDArray[np.uint64],
    template_counts: NDArray[np.int64],
    arena: NDArray[np.uint8],
    entries: Entries,
    slots: NDArray[np.uint64],
    counts: NDArray[np.int64],
    found: NDArray[np.int64],
    timestamps: NDArray[np.int64],
    values: NDArray[np.float64],
    lines: NDArray[np.int32],
    state: NDArray[np.int64],
) -> int:
    """Decodes lines from state[POSITION] on, up to the first one that is not like a line of another host.

    Args:
        text: uint8 array of shape (n_bytes,), the payload.
        host: uint8 array, the host of the line before, as written; nothing in it is escaped.
        cluster: Number of the cluster of the line before, among those of the templates.
        template_arena: Of the `KeyTable` of the templates, like the three arrays behind it.
        template_entries: See there.
        template_slots: See there.
        template_counts: See there.
        arena: Of the `KeyTable` of all keys, like the three arrays behind it: metrics to ignore are found there.
        entries: See there.
        slots: See there.
        counts: See there.
        found: int64 array of shape (n_room, FOUND_COLUMNS), to be filled: what is found of each sample's series.
        timestamps: int64 array, to be filled from state[SAMPLES] on, like the two behind it: seconds since the epoch.
        values: float64.
        lines: int32, number of the line from 1.
        state: See `line_kernels`; brought up to date.

    Returns:
        Number of samples decoded.
    """
    view, host_view, keys = view_of(text), view_of(host), views_of(arena, entries, slots, counts)
    templates = views_of(template_arena, template_entries, template_slots, template_counts)
    template = np.empty(KEY_BYTES_MAX, np.uint8)
    size = len(text)
    position, line, time = state[POSITION], state[LINE], state[TIME]
    samples, n_found = state[SAMPLES], 0
    while position < size and n_found < len(found):
        begin = skip_blanks(view, position)
        if begin == size or byte_at(view, begin) in (NEWLINE, HASH) or is_line_end(view, begin):
            position = find_newline(view, begin) + 1
            line += 1
            continue
        key_end = find_key_end(view, begin)
        index = NO_ENTRY
        if key_end - begin <= KEY_BYTES_MAX:
            length = _write_template(view, begin, key_end, host_view, text, template)
            if length > 0:
                index = find_key(view_of(template), 0, length, templates)
        if index == NO_ENTRY:
            index, key_end = look_up(view, begin, keys)
            end = find_newline(view, key_end)
            if index == NO_ENTRY or entries[index]["series"] != IGNORED or end - position > state[LINE_BYTES_LIMIT]:
                break
            state[LINES_IGNORED] += 1
        else:
            entry = template_entries[index]
            if not entry["is_cluster_implicit"] and entry["cluster"] != cluster:
                break
            is_regular, value, timestamp, _, end = read_sections(view, key_end, time)
            if not is_regular or end - position > state[LINE_BYTES_LIMIT]:
                break
            time = timestamp
            found[n_found, TEMPLATE] = entry["series"]
            found[n_found, BEGIN] = begin
            found[n_found, LENGTH] = key_end - begin
            found[n_found, IS_CLUSTER_IMPLICIT] = entry["is_cluster_implicit"]
            timestamps[samples + n_found] = timestamp
            values[samples + n_found] = value
            lines[samples + n_found] = line
            n_found += 1
        position = end + 1
        line += 1
    state[POSITION], state[LINE], state[TIME] = position, line, time
    state[SAMPLES] = samples + n_found
    return n_found


@kernel
def _write_template(
    view: View, begin: int, end: int, host: View, text: NDArray[np.uint8], template: NDArray[np.uint8]
) -> int:
    """Writes the template of the key text[begin:end]; returns its length, 0 if the key is not one of a host."""
    name_begin = _find_host(view, begin, end)
    name_end = name_begin + size_of(host)
    if name_begin == _NOWHERE or name_end > end or (name_end < end and byte_at(view, name_end) != COMMA):
        return 0
    for at in range(size_of(host)):
        if byte_at(view, name_begin + at) != byte_at(host, at):
            return 0
    length = 0
    for at in range(begin, name_begin):
        template[length] = text[at]
        length += 1
    template[length] = _BLANK
    length += 1
    for at in range(name_end, end):
        template[length] = text[at]
        length += 1
    return length


@kernel
def _find_host(text: View, begin: int, end: int) -> int:
    """Where the text of the first tag `host` or `hostname` of a key begins; _NOWHERE if there is none."""
    for position in range(begin, end):
        if byte_at(text, position) != COMMA or position + _HOSTNAME_TAG_BYTES > size_of(text):
            continue  # no line is so short
        word = word_at(text, position + 1)
        if word & _HOST_MASK != _HOST:
            continue
        if byte_at(text, position + _HOST_TAG_BYTES - 1) == _EQUALS:
            return position + _HOST_TAG_BYTES
        if word >> _NAME_BITS == _NAME and byte_at(text, position + _HOSTNAME_TAG_BYTES - 1) == _EQUALS:
            return position + _HOSTNAME_TAG_BYTES
    return _NOWHERE
