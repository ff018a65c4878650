r"""The line protocol dialect of collectors, defined by the decoder that is meant to be read.

    <metric>,<tag>=<text>[,<tag>=<text>...] value=<number>[ <timestamp>]

`decoder.LineDecoder` is the one that is used: it knows recurring lines by their bytes and leaves every other line to
the `LineReader` of this module, which therefore decides alone what a line means. The two agree on every input.

Lines
    A line ends at "\n", inside quotes too; one "\r" before it belongs to the line's end. Spaces and tabs around the
    line are skipped, and so are lines that are empty or begin with "#". More than one space may separate the
    sections. A line of more than `line_bytes_max` bytes is refused unread.
Escapes
    In measurement, tags and field names a backslash takes the meaning of a separator from the space, comma or equals
    sign behind it; anywhere else it stands for itself.
Metric
    A line whose measurement is no configured metric is ignored, whatever else it holds. Measurement and tags are UTF-8.
Tags
    `cluster`, `hostname` or `host`, `type`, `type-id`, `stype` or `subtype`, `stype-id` or `subtype-id`, in any
    order; the last of a kind counts, every other tag is skipped. A tag with an empty text counts as absent. The
    series belongs to the component `type` + `type-id` of its host, or to the host itself when there is neither or the
    type is `node`; below a component, `stype` + `stype-id` names the sub-component. A line without cluster is of the
    cluster of the line before it, if that one is of the same host, else of the default cluster. "The line before it"
    is the last one in the payload whose metric is known and whose tags are in order, whatever its fields are like.
    The host is never taken from another line.
Names
    As `names.broken_name_rule` has them: no name is longer than 255 bytes of UTF-8 or holds a control character.
    Clusters and hosts become directories: they hold no "/", "\" or "..", and are not ".".
Fields
    Only `value` exists; the last one counts. It is a decimal number, or an integer with the suffix i (64 bits with
    sign) or u (64 bits without), and is stored as the nearest double. Texts and truth values are refused, as are NaN,
    infinity and what would round to it. The first field that breaks a rule decides the reason.
Timestamp
    Seconds, milliseconds, microseconds or nanoseconds, told apart by magnitude; kept in whole seconds, rounded down.
    A line without one has the time of the sample before it in the payload, or the time of arrival.

A line that breaks a rule is rejected with its reason and costs its neighbours nothing. Rules are checked from left to
right, and a series is registered only by a line without fault.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ccms_server.errors import RejectReason
from ccms_server.model import WriteReport
from ccms_server.names import broken_name_rule

LINE_BYTES_MAX: Final = 65536

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
UINT64_MAX: Final = (1 << 64) - 1

SECONDS_END: Final = 10**11
"""Magnitudes of timestamps below it are seconds: they last until the year 5138."""
MILLISECONDS_END: Final = 10**14
MICROSECONDS_END: Final = 10**17


class Catalog(Protocol):
    """What decoding needs to know of the store."""

    def metric_id(self, name: str) -> int | None:
        """Number of a configured metric; None for any other."""

    def series_id(self, metric_id: int, path: tuple[str, ...]) -> int | None:
        """Number of the series at a path (cluster, host[, component[, sub-component]]); registers it if it is new.

        Returns:
            The number, >= 0; None when there may be no more series.
        """

    @property
    def series_free(self) -> int:
        """Series that may still be registered."""

    def host_series(
        self, cluster: str, host: str, below_host: Sequence[tuple[int, tuple[str, ...]]]
    ) -> NDArray[np.int32]:
        """Numbers of series of one host, as `series_id` would give them; there is room for all of them.

        Args:
            cluster: The cluster.
            host: The host.
            below_host: Of each series, the metric and the path below the host. One may come several times.

        Returns:
            int32 array of shape (n_series,).
        """


@dataclass(slots=True)
class DecodedBatch:
    """The samples of one payload, in the order of its lines. The arrays are of shape (n_samples,) and nobody else's."""

    series: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    """Seconds since the epoch."""
    values: NDArray[np.float64]
    """Never NaN, never infinite."""
    lines: NDArray[np.int32]
    """Line number of each sample, from 1."""
    report: WriteReport
    """What became of the other lines; `stored` is left at 0."""


@dataclass(slots=True)
class Carried:
    """What a line may take over from the lines before it in the same payload."""

    time: int
    """Time of the last sample, at first the time of arrival; in seconds."""
    cluster: str = ""
    """Cluster of the last line with known metric and good tags; empty before the first one."""
    host: str = ""
    """Host of that line."""


class Sample(NamedTuple):
    """What a good line says."""

    series: int
    timestamp: int
    """Seconds since the epoch."""
    value: float
    key: bytes
    """Measurement and tags as written: all that says which series it is, except for an implicit cluster."""
    is_cluster_implicit: bool
    """Whether the cluster is not among the tags."""
    metric_id: int
    path: tuple[str, ...]
    """Of the series: cluster, host, and what the tags say below it."""


class IgnoredLine(NamedTuple):
    """A line of a metric that is not configured."""

    measurement: bytes
    """The measurement as written."""


class LineRejectedError(Exception):
    """A line breaks a rule of the dialect.

    Attributes:
        reason: Which kind of rule.
    """

    def __init__(self, reason: RejectReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def decode(
    payload: bytes, catalog: Catalog, default_cluster: str, now: int, line_bytes_max: int = LINE_BYTES_MAX
) -> DecodedBatch:
    """Decodes a payload line by line.

    Args:
        payload: Any number of lines; the last one may lack its line end.
        catalog: Knows the metrics, and registers series.
        default_cluster: Cluster of lines that do not say theirs; empty for none.
        now: Time of samples before the first one with a timestamp, in seconds since the epoch.
        line_bytes_max: Longer lines are rejected.

    Returns:
        The samples, and what became of the other lines.
    """
    reader = LineReader(catalog, default_cluster, line_bytes_max)
    carried = Carried(now)
    report = WriteReport()
    samples: list[Sample] = []
    lines: list[int] = []
    for number, line in enumerate(payload.split(b"\n"), start=1):
        try:
            outcome = reader.read(line, carried)
        except LineRejectedError as rejected:
            report.reject(number, rejected.reason, str(rejected))
            continue
        if isinstance(outcome, Sample):
            samples.append(outcome)
            lines.append(number)
        elif outcome is not None:
            report.ignored += 1
    return DecodedBatch(
        series=np.array([sample.series for sample in samples], np.int32),
        timestamps=np.array([sample.timestamp for sample in samples], np.int64),
        values=np.array([sample.value for sample in samples], np.float64),
        lines=np.array(lines, np.int32),
        report=report,
    )


class LineReader:
    """Reads single lines; what they share is passed from line to line as `Carried`."""

    def __init__(self, catalog: Catalog, default_cluster: str, line_bytes_max: int) -> None:
        self._catalog = catalog
        self._default_cluster = default_cluster
        self._line_bytes_max = line_bytes_max

    def read(self, line: bytes, carried: Carried) -> Sample | IgnoredLine | None:
        r"""Reads one line.

        Args:
            line: The line without its "\n".
            carried: From the lines before it; brought up to date for those behind it.

        Returns:
            The sample, or what is ignored; None for blank lines and comments.

        Raises:
            LineRejectedError: The line breaks a rule.
        """
        if line.endswith(b"\r"):
            line = line[:-1]
        text = line.strip(b" \t")
        if not text or text.startswith(b"#"):
            return None
        if len(line) > self._line_bytes_max:
            raise LineRejectedError(
                RejectReason.LINE_TOO_LONG, f"line {shown(text)} has more than {self._line_bytes_max:,} bytes"
            )
        key, fields = _cut(text, b" ")
        measurement, tags = _cut(key, b",")
        metric_id = self._metric_id(measurement)
        if metric_id is None:
            return IgnoredLine(measurement)
        path, is_cluster_implicit = self._path(tags, carried)
        carried.cluster, carried.host = path[0], path[1]
        value, timestamp_text = _read_value(b"" if fields is None else fields.lstrip(b" "))
        timestamp = _read_timestamp(timestamp_text) if timestamp_text else carried.time
        series = self._catalog.series_id(metric_id, path)
        if series is None:
            raise LineRejectedError(
                RejectReason.SERIES_LIMIT, f"{shown(key)} would be a new series, and there are as many as there may be"
            )
        carried.time = timestamp
        return Sample(series, timestamp, value, key, is_cluster_implicit, metric_id, path)

    def _metric_id(self, measurement: bytes) -> int | None:
        if not measurement:
            raise LineRejectedError(RejectReason.MALFORMED_LINE, "line begins with a comma, not with a measurement")
        return self._catalog.metric_id(_unescaped(_decoded(measurement)))

    def _path(self, tags: bytes | None, carried: Carried) -> tuple[tuple[str, ...], bool]:
        """Path of the series that the tags name, and whether its cluster is implicit."""
        cluster, host, kind, kind_id, subkind, subkind_id = _read_tags(tags)
        if not host:
            raise LineRejectedError(RejectReason.MISSING_HOST, "line has no tag hostname or host")
        if host != carried.host:
            _check_name("host", host, is_directory=True)
        is_cluster_implicit = not cluster
        if is_cluster_implicit:
            cluster = carried.cluster if host == carried.host else self._default_cluster
            if not cluster:
                raise LineRejectedError(RejectReason.MISSING_CLUSTER, "line has no tag cluster, and no default is set")
        if cluster != carried.cluster:
            _check_name("cluster", cluster, is_directory=True)
        component = "" if kind == "node" else kind + kind_id
        if not component:
            return (cluster, host), is_cluster_implicit
        _check_name("component", component)
        subcomponent = subkind + subkind_id
        if not subcomponent:
            return (cluster, host, component), is_cluster_implicit
        _check_name("sub-component", subcomponent)
        return (cluster, host, component, subcomponent), is_cluster_implicit


# Tags and names

TAG_PLACES: Final = {
    "cluster": 0,
    "hostname": 1,
    "host": 1,
    "type": 2,
    "type-id": 3,
    "stype": 4,
    "subtype": 4,
    "stype-id": 5,
    "subtype-id": 5,
}
"""Where `_read_tags` puts the text of each tag that counts."""


def _read_tags(tags: bytes | None) -> list[str]:
    """Texts of the tags that count, in the order of `TAG_PLACES`; empty for those that are absent."""
    found = [""] * 6
    if tags is None:
        return found
    joined = _decoded(tags)
    is_escaped = "\\" in joined
    if is_escaped:
        joined = _ESCAPE.sub(_hidden, joined)
    for tag in joined.split(","):
        name, _, text = tag.partition("=")
        if not name or tag.count("=") != 1:
            raise LineRejectedError(
                RejectReason.MALFORMED_LINE, f"tag {shown(tag.translate(_REVEALED))} is not of the form name=text"
            )
        place = TAG_PLACES.get(name)
        if place is not None:
            found[place] = text
    return [text.translate(_REVEALED) for text in found] if is_escaped else found


_HIDDEN: Final = {" ": "\ud800", ",": "\ud801", "=": "\ud802"}
"""Stand for escaped separators while text is split at those that are none. UTF-8 does not yield these characters."""
_REVEALED: Final = str.maketrans({hidden: separator for separator, hidden in _HIDDEN.items()})


def _hidden(escape: re.Match[str]) -> str:
    return _HIDDEN[escape[1]]


def _check_name(what: str, name: str, *, is_directory: bool = False) -> None:
    if rule := broken_name_rule(name, is_directory=is_directory):
        raise LineRejectedError(RejectReason.INVALID_NAME, f"{what} {shown(name)} {rule}")


# Fields

_FIELD: Final = re.compile(rb"(value|(?:\\[ ,=]|[^ ,=])*+)=([^ ,]*)")
_DECIMAL: Final = re.compile(rb"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?")  # possessive: linear time
_INTEGER: Final = re.compile(rb"([+-]?\d{1,30})i|(\+?\d{1,30})u")
_TRUTH_VALUES: Final = frozenset((b"t", b"T", b"true", b"True", b"TRUE", b"f", b"F", b"false", b"False", b"FALSE"))


def _read_value(fields: bytes) -> tuple[float, bytes]:
    """The last value among the fields, and the text behind them without the spaces around it."""
    value: float | None = None
    begin = 0
    while True:
        field = _FIELD.match(fields, begin)
        if field is None:
            raise _no_field(fields[begin:], is_first=value is None)
        name, text = field.groups()
        if name != b"value":
            raise LineRejectedError(RejectReason.UNKNOWN_FIELD, f"field {shown(name)} is not 'value'")
        value = _read_number(text)
        begin = field.end() + 1
        if fields[begin - 1 : begin] != b",":
            return value, fields[begin:].lstrip(b" ")


def _no_field(text: bytes, *, is_first: bool) -> LineRejectedError:
    if is_first:
        return LineRejectedError(
            RejectReason.MISSING_VALUE, f"expected value=<number> after the tags, found {shown(text)}"
        )
    return LineRejectedError(RejectReason.MALFORMED_LINE, f"expected name=<value> behind a comma, found {shown(text)}")


def _read_number(text: bytes) -> float:
    if _DECIMAL.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise LineRejectedError(RejectReason.INVALID_NUMBER, f"value {shown(text)} is too large for a double")
        return number
    integer = _INTEGER.fullmatch(text)
    if integer is not None:
        signed, unsigned = integer.groups()
        whole = int(signed or unsigned)
        if not (INT64_MIN <= whole <= INT64_MAX if signed else whole <= UINT64_MAX):
            raise LineRejectedError(RejectReason.INVALID_NUMBER, f"value {shown(text)} is out of range for 64 bits")
        return float(whole)
    if not text:
        raise LineRejectedError(RejectReason.MISSING_VALUE, "nothing stands behind value=")
    if text.startswith(b'"'):
        raise LineRejectedError(RejectReason.UNSUPPORTED_VALUE, f"value {shown(text)} is a text, not a number")
    if text in _TRUTH_VALUES:
        raise LineRejectedError(RejectReason.UNSUPPORTED_VALUE, f"value {shown(text)} is a truth value, not a number")
    raise LineRejectedError(RejectReason.INVALID_NUMBER, f"value {shown(text)} is not a number")


# Timestamps

_TIMESTAMP: Final = re.compile(rb"[+-]?\d{1,30}")


def _read_timestamp(text: bytes) -> int:
    if not _TIMESTAMP.fullmatch(text):
        raise LineRejectedError(RejectReason.INVALID_TIMESTAMP, f"timestamp {shown(text)} is not an integer")
    timestamp = int(text)
    if not INT64_MIN <= timestamp <= INT64_MAX:
        raise LineRejectedError(RejectReason.INVALID_TIMESTAMP, f"timestamp {shown(text)} is out of range for 64 bits")
    return seconds_of(timestamp)


def seconds_of(timestamp: int) -> int:
    """Seconds since the epoch, rounded down, of a timestamp whose unit shows in its magnitude."""
    magnitude = abs(timestamp)
    if magnitude < SECONDS_END:
        return timestamp
    if magnitude < MILLISECONDS_END:
        return timestamp // 1000
    if magnitude < MICROSECONDS_END:
        return timestamp // 1_000_000
    return timestamp // 1_000_000_000


# Text

SHOWN_MAX: Final = 40
"""Bytes or characters of an offending text that a message shows."""


def shown(text: bytes | str) -> str:
    """The beginning of a text in quotes, fit for a message: on one line, and all of it printable."""
    beginning = text[:SHOWN_MAX]
    if isinstance(beginning, bytes):
        beginning = beginning.decode(errors="backslashreplace")
    return repr(beginning) + ("..." if len(text) > SHOWN_MAX else "")


def _cut(text: bytes, separator: bytes) -> tuple[bytes, bytes | None]:
    """What stands before the first separator without a backslash, and what behind it; None if there is none."""
    end = text.find(separator)
    while end > 0 and text[end - 1 : end] == b"\\":
        end = text.find(separator, end + 1)
    return (text, None) if end < 0 else (text[:end], text[end + 1 :])


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise LineRejectedError(RejectReason.INVALID_UTF8, f"{shown(text)} is not valid UTF-8") from None


_ESCAPE: Final = re.compile(r"\\([ ,=])")


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(r"\1", text) if "\\" in text else text
