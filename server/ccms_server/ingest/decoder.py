"""The decoder in use: lines that recur are decoded by compiled kernels, all others by `line_protocol`.

Most lines a store receives differ from a line it has seen before by value and timestamp only. A kernel decodes those
without the GIL; at the first line it does not know it stops, `line_protocol.LineReader` reads the line and the key
becomes known, and the kernel goes on behind it. So the lines are handled in order, by one side or the other, and what
a line takes over from those before it is handed back and forth.

Most unknown lines are those of a new host, which differ from lines of other hosts by its name as well. So once a line
of it was read, another kernel decodes all those behind it that are like lines of other hosts, and their series are
looked up, or registered, all at once.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ccms_server.ingest.key_table import IGNORED, NO_NAME, Key, KeyTable
from ccms_server.ingest.key_templates import KEYS_PER_TEMPLATE, TEMPLATES_MAX, KeyTemplates, plain_name
from ccms_server.ingest.line_kernels import (
    CLUSTER,
    DEFAULT_CLUSTER,
    FINISHED,
    HOST,
    LINE,
    LINE_BYTES_LIMIT,
    LINES_IGNORED,
    OUT_OF_ROOM,
    POSITION,
    SAMPLES,
    STATE_SIZE,
    TIME,
    decode_lines,
)
from ccms_server.ingest.line_protocol import (
    LINE_BYTES_MAX,
    Carried,
    Catalog,
    DecodedBatch,
    LineReader,
    LineRejectedError,
    Sample,
)
from ccms_server.ingest.template_kernels import (
    BEGIN,
    FOUND_COLUMNS,
    IS_CLUSTER_IMPLICIT,
    LENGTH,
    TEMPLATE,
    decode_like_others,
)
from ccms_server.model import WriteReport

KEYS_MAX: Final = 4_000_000

SLOW_LINES_MAX: Final = 512
"""Lines read at most between two calls of the kernel."""
FOUND_MAX: Final = 4096
"""Lines of a new host decoded at most before their series are looked up."""
ROOM_MIN: Final = 4096
ROOM_KEPT_MAX: Final = 65536
"""Samples up to which the room of one payload is used for the next one again."""


class LineDecoder:
    """Decodes the payloads that share a default cluster. One thread at a time.

    Args:
        catalog: Knows the metrics, and registers series. Neither may change its numbers later.
        default_cluster: Cluster of lines that do not say theirs; empty for none.
        line_bytes_max: Longer lines are rejected.
        keys_max: Keys that are remembered, at some 100 bytes each besides their text; lines with other keys are decoded
            a hundred times slower.
    """

    def __init__(
        self, catalog: Catalog, default_cluster: str, line_bytes_max: int = LINE_BYTES_MAX, keys_max: int = KEYS_MAX
    ) -> None:
        self._catalog = catalog
        self._reader = LineReader(catalog, default_cluster, line_bytes_max)
        self._default_cluster = default_cluster
        self._keys = KeyTable(keys_max)
        self._templates = KeyTemplates(TEMPLATES_MAX)
        self._found = np.empty((FOUND_MAX, FOUND_COLUMNS), np.int64)
        self._room = _Room(ROOM_MIN)
        self._initial_state = np.zeros(STATE_SIZE, np.int64)
        self._initial_state[[LINE, LINE_BYTES_LIMIT]] = 1, line_bytes_max
        self._initial_state[[HOST, CLUSTER, DEFAULT_CLUSTER]] = NO_NAME
        self._state = self._initial_state.copy()

    @property
    def known_keys(self) -> int:
        """Keys that are remembered, and templates as the number of keys that take as much memory."""
        return len(self._keys) + KEYS_PER_TEMPLATE * len(self._templates)

    def decode(self, payload: bytes, now: int) -> DecodedBatch:
        """Decodes a payload, with the result of `line_protocol.decode`.

        Args:
            payload: Any number of lines; the last one may lack its line end.
            now: Time of samples before the first one with a timestamp, in seconds since the epoch.

        Returns:
            The samples, and what became of the other lines.
        """
        report = WriteReport()
        state = self._state
        state[:] = self._initial_state
        state[TIME] = now
        if payload:
            text = np.frombuffer(payload, np.uint8)
            if self._decode_known(text) != FINISHED:
                self._decode_all(payload, text, Carried(now), report)
        report.ignored += int(state[LINES_IGNORED])
        samples = int(state[SAMPLES])
        room = self._room
        if len(room.series) > ROOM_KEPT_MAX:
            self._room = _Room(ROOM_MIN)
            return room.handed_out(samples, report)
        return room.copied(samples, report)

    def _decode_known(self, text: NDArray[np.uint8]) -> int:
        """Decodes up to the first line with an unknown key; returns why it ended."""
        keys, room = self._keys, self._room
        return decode_lines(
            text,
            keys.arena,
            keys.entries,
            keys.slots,
            keys.counts,
            room.series,
            room.timestamps,
            room.values,
            room.lines,
            self._state,
        )

    def _decode_all(self, payload: bytes, text: NDArray[np.uint8], carried: Carried, report: WriteReport) -> None:
        """Reads the line that stopped the kernel, and so on to the end of the payload.

        Unknown lines come in runs, above all when a host reports for the first time. Each run is read in steps that
        double in size, so that neither the calls of the kernel nor known lines read slowly add much to it.
        """
        lines = 1
        while True:
            self._room = self._room.with_space(int(self._state[SAMPLES]) + lines)
            self._read_slowly(payload, lines, carried, report)
            stopped_at = int(self._state[POSITION])
            self._decode_like_others(text, carried)
            reason = self._decode_known(text)
            while reason == OUT_OF_ROOM:
                self._room = self._room.with_space(2 * len(self._room.series))
                reason = self._decode_known(text)
            if reason == FINISHED:
                return
            lines = min(2 * lines, SLOW_LINES_MAX) if self._state[POSITION] == stopped_at else 1

    def _read_slowly(self, payload: bytes, lines: int, carried: Carried, report: WriteReport) -> None:
        """Reads some lines without the kernel, and makes their keys known."""
        state, room = self._state, self._room
        position, line, samples = int(state[POSITION]), int(state[LINE]), int(state[SAMPLES])
        self._take_over(carried)
        keys: list[Key] = []
        read: list[Sample] = []
        for _ in range(lines):
            if position >= len(payload):
                break
            end = payload.find(b"\n", position)
            end = len(payload) if end < 0 else end
            try:
                outcome = self._reader.read(payload[position:end], carried)
            except LineRejectedError as rejected:
                report.reject(line, rejected.reason, str(rejected))
            else:
                if isinstance(outcome, Sample):
                    room.put(samples, outcome, line)
                    samples += 1
                    read.append(outcome)
                    keys.append(
                        Key(outcome.key, outcome.series, carried.host, carried.cluster, outcome.is_cluster_implicit)
                    )
                elif outcome is not None:
                    report.ignored += 1
                    # A backslash would escape the comma behind it, and a tab at a line's end belongs to the end.
                    if not outcome.measurement.endswith((b"\\", b"\t")):
                        keys.append(Key(outcome.measurement, IGNORED))
            position = end + 1
            line += 1
        self._keys.add(keys)
        self._templates.learn(read)
        state[POSITION], state[LINE], state[SAMPLES] = position, line, samples
        self._hand_over(carried)

    def _decode_like_others(self, text: NDArray[np.uint8], carried: Carried) -> None:
        """Decodes lines of the host of the line before, as long as they are like those of other hosts."""
        host = plain_name(carried.host)
        if not host or self._state[POSITION] >= len(text):
            return
        keys, templates, room = (
            self._keys,
            self._templates,
            self._room.with_space(int(self._state[SAMPLES]) + FOUND_MAX),
        )
        self._room = room
        found = self._found[: self._catalog.series_free]
        first = int(self._state[SAMPLES])
        n_found = decode_like_others(
            text,
            np.frombuffer(host, np.uint8),
            templates.cluster_number(carried.cluster),
            templates.keys.arena,
            templates.keys.entries,
            templates.keys.slots,
            templates.keys.counts,
            keys.arena,
            keys.entries,
            keys.slots,
            keys.counts,
            found,
            room.timestamps,
            room.values,
            room.lines,
            self._state,
        )
        if not n_found:
            return
        carried.time = int(self._state[TIME])
        found = found[:n_found]
        below_host = templates.below_host
        series = self._catalog.host_series(
            carried.cluster, carried.host, [below_host[number] for number in found[:, TEMPLATE].tolist()]
        )
        room.series[first : first + n_found] = series
        begins, lengths, are_implicit = found[:, BEGIN], found[:, LENGTH], found[:, IS_CLUSTER_IMPLICIT]
        keys.add_of_host(carried.host, carried.cluster, text, begins, lengths, series, are_implicit)
        self._hand_over(carried)

    def _take_over(self, carried: Carried) -> None:
        """Brings up to date what the kernel has carried on."""
        carried.time = int(self._state[TIME])
        host, cluster = int(self._state[HOST]), int(self._state[CLUSTER])
        if NO_NAME not in (host, cluster):  # else no known line came behind the one that set these names
            carried.host, carried.cluster = self._keys.name(host), self._keys.name(cluster)

    def _hand_over(self, carried: Carried) -> None:
        state, keys = self._state, self._keys
        state[TIME] = carried.time
        state[HOST], state[CLUSTER] = keys.name_number(carried.host), keys.name_number(carried.cluster)
        state[DEFAULT_CLUSTER] = self._initial_state[DEFAULT_CLUSTER] = keys.name_number(self._default_cluster)


class _Room:
    """Arrays that samples are decoded into."""

    def __init__(self, size: int) -> None:
        self.series = np.empty(size, np.int32)
        self.timestamps = np.empty(size, np.int64)
        self.values = np.empty(size, np.float64)
        self.lines = np.empty(size, np.int32)

    def put(self, index: int, sample: Sample, line: int) -> None:
        self.series[index] = sample.series
        self.timestamps[index] = sample.timestamp
        self.values[index] = sample.value
        self.lines[index] = line

    def with_space(self, size: int) -> "_Room":
        """This room, or one of at least `size` samples that begins with the same ones."""
        used = len(self.series)
        if size <= used:
            return self
        larger = _Room(max(size, 2 * used))
        larger.series[:used] = self.series
        larger.timestamps[:used] = self.timestamps
        larger.values[:used] = self.values
        larger.lines[:used] = self.lines
        return larger

    def copied(self, samples: int, report: WriteReport) -> DecodedBatch:
        """The first samples as arrays of their own."""
        return DecodedBatch(
            self.series[:samples].copy(),
            self.timestamps[:samples].copy(),
            self.values[:samples].copy(),
            self.lines[:samples].copy(),
            report,
        )

    def handed_out(self, samples: int, report: WriteReport) -> DecodedBatch:
        """The first samples without a copy; the room must not be used again."""
        return DecodedBatch(
            self.series[:samples], self.timestamps[:samples], self.values[:samples], self.lines[:samples], report
        )
