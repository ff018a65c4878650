"""Every rule of the dialect, by example."""

import struct

import pytest
from helpers.catalog import DictCatalog

from ccms_server.errors import RejectReason
from ccms_server.ingest.line_protocol import decode, seconds_of, shown
from ccms_server.model import REJECTIONS_KEPT_MAX, Rejection

NOW = 1_600_000_000


def decoded(payload, *, default_cluster="", line_bytes_max=65536, series_max=None):
    catalog = DictCatalog(["load", "flops", "odd,name", "h\u00f6he"], series_max)
    batch = decode(payload, catalog, default_cluster, NOW, line_bytes_max)
    assert batch.report.stored == 0
    return batch, catalog


def paths(payload, **options):
    """Paths of the samples of a payload without faults, line by line."""
    batch, catalog = decoded(payload, **options)
    assert batch.report.rejected == {}
    by_number = [path for _, path in catalog.series]
    return [by_number[number] for number in batch.series]


def path_of(tags):
    [path] = paths(b"load," + tags + b" value=1 1")
    return path


def value_of(text):
    batch, _ = decoded(b"load,cluster=c,host=h value=" + text + b" 1")
    assert batch.report.rejected == {}
    [value] = batch.values
    return float(value)


def rejection_of(line, **options):
    """Why the line in question is rejected; its neighbours are not."""
    good = b"load,cluster=c,host=other value=%d 1700000000"
    batch, _ = decoded(b"\n".join([good % 1, line, good % 3]), **options)
    assert batch.values.tolist() == [1, 3]
    assert batch.lines.tolist() == [1, 3]
    [rejection] = batch.report.first_rejected
    assert batch.report.rejected == {rejection.reason: 1}
    assert rejection.index == 2
    return rejection


def test_a_line_is_a_sample():
    batch, catalog = decoded(b"flops,cluster=alpha,hostname=n01,type=hwthread,type-id=3 value=42.5 1700000000\n")

    assert list(catalog.series) == [(1, ("alpha", "n01", "hwthread3"))]
    assert (batch.series.tolist(), batch.series.dtype) == ([0], "int32")
    assert (batch.timestamps.tolist(), batch.timestamps.dtype) == ([1_700_000_000], "int64")
    assert (batch.values.tolist(), batch.values.dtype) == ([42.5], "float64")
    assert (batch.lines.tolist(), batch.lines.dtype) == ([1], "int32")
    assert batch.report.ignored == 0


@pytest.mark.parametrize(
    ("payload", "lines"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"%s", [1]),
        (b"%s\n", [1]),
        (b"%s\r\n%s\r\n", [1, 2]),
        (b"%s\r", [1]),
        (b"# %s\n%s", [2]),
        (b"  \t# %s\n%s", [2]),
        (b"#\n\n   \n\t\n\r\n  \r\n%s\n", [7]),
        (b"   %s", [1]),
        (b" \t %s \t \r\n%s", [1, 2]),
    ],
)
def test_lines_end_at_newlines_and_blank_ones_and_comments_count_for_nothing(payload, lines):
    batch, _ = decoded(payload.replace(b"%s", b"load,cluster=c,host=h value=1 1700000000"))

    assert batch.lines.tolist() == lines
    assert batch.report.ignored == 0
    assert batch.report.rejected == {}


def test_sections_may_be_apart_by_several_spaces():
    batch, _ = decoded(b"load,cluster=c,host=h   value=5   1700000000  \n")

    assert (batch.values.tolist(), batch.timestamps.tolist()) == ([5], [1_700_000_000])


@pytest.mark.parametrize(
    "line",
    [
        b"nope,cluster=c,host=h value=1 1",
        b"this is not line protocol",
        b"nope",
        b"nope,,,",
        b'event,cluster=c event="{\\"load\\": 1}" 1',
        b"nope,host=\xff",
        b"load\t,cluster=c,host=h value=1",
        b"loa\\d,cluster=c,host=h value=1",
        b"odd\\,name2,cluster=c,host=h value=1",
        b"l" * 300,
    ],
)
def test_lines_of_metrics_that_are_not_configured_are_ignored(line):
    batch, _ = decoded(line)

    assert batch.report.ignored == 1
    assert batch.report.rejected == {}
    assert len(batch.series) == 0


@pytest.mark.parametrize(
    ("tags", "path"),
    [
        (b"cluster=c,hostname=h", ("c", "h")),
        (b"cluster=c,host=h", ("c", "h")),
        (b"host=h1,cluster=c,hostname=h2", ("c", "h2")),
        (b"hostname=h2,cluster=c,host=h1,cluster=d", ("d", "h1")),
        (b"cluster=c,host=h,type=node", ("c", "h")),
        (b"cluster=c,host=h,type=node,type-id=0", ("c", "h")),
        (b"cluster=c,host=h,type=node,stype=disk,stype-id=0", ("c", "h")),
        (b"cluster=c,host=h,stype=disk,stype-id=0", ("c", "h")),
        (b"cluster=c,host=h,type=socket,type-id=1", ("c", "h", "socket1")),
        (b"type-id=1,host=h,type=socket,cluster=c", ("c", "h", "socket1")),
        (b"cluster=c,host=h,type=socket", ("c", "h", "socket")),
        (b"cluster=c,host=h,type-id=7", ("c", "h", "7")),
        (b"cluster=c,host=h,type=accelerator,type-id=00000000:49:00.0", ("c", "h", "accelerator00000000:49:00.0")),
        (b"cluster=c,host=h,type=a,type-id=../b", ("c", "h", "a../b")),
        (b"cluster=c,host=h,type=socket,type-id=1,stype=dimm,stype-id=2", ("c", "h", "socket1", "dimm2")),
        (b"cluster=c,host=h,type=socket,type-id=1,subtype=dimm,stype-id=2", ("c", "h", "socket1", "dimm2")),
        (b"cluster=c,host=h,type=socket,type-id=1,stype=dimm,subtype-id=2", ("c", "h", "socket1", "dimm2")),
        (b"cluster=c,host=h,type=socket,type-id=1,stype-id=2", ("c", "h", "socket1", "2")),
        (b"cluster=c,host=h,unit=GB,device=sda,foo=", ("c", "h")),
        (b"cluster=c,host=h,type=,type-id=,stype=", ("c", "h")),
        (b"cluster=c,host=h,hostname=", None),
        (b"cluster=c,host=h\\ 1", ("c", "h 1")),
        (b"cluster=c,host=h\\,1", ("c", "h,1")),
        (b"cluster=c,host=h\\=1", ("c", "h=1")),
        (b"cluster=c,host=h,type=a\\b,type-id=\\\\ c", ("c", "h", "a\\b\\ c")),
        (b"cluster=c,host=h,ho\\=st=x,\\,=y", ("c", "h")),
        ("cluster=k\u00f6ln,host=\u2603".encode(), ("k\u00f6ln", "\u2603")),
        (b"cluster=c,host=h\"1'", ("c", "h\"1'")),
        (b"cluster=c,host=.a.", ("c", ".a.")),
        (b"cluster=c,host=" + b"h" * 255, ("c", "h" * 255)),
    ],
)
def test_tags_name_a_path(tags, path):
    if path is None:
        assert rejection_of(b"load," + tags + b" value=1").reason == RejectReason.MISSING_HOST
    else:
        assert path_of(tags) == path


def test_measurements_may_be_escaped_and_need_not_be_ascii():
    payload = "odd\\,name,cluster=c,host=h value=1 1\nh\u00f6he,cluster=c,host=h value=1 1".encode()

    _, catalog = decoded(payload)

    assert list(catalog.series) == [(2, ("c", "h")), (3, ("c", "h"))]


CLUSTER_OF_LINES = {
    "tag": ([b"load,cluster=a,host=x"], ["a"]),
    "default": ([b"load,host=x"], ["d"]),
    "empty tag": ([b"load,cluster=,host=x"], ["d"]),
    "same host": ([b"load,cluster=a,host=x", b"load,host=x", b"flops,host=x"], ["a", "a", "a"]),
    "other host": ([b"load,cluster=a,host=x", b"load,host=y", b"load,host=x"], ["a", "d", "d"]),
    "across an ignored line": ([b"load,cluster=a,host=x", b"nope,cluster=b,host=y", b"load,host=x"], ["a", "a"]),
    "across a comment": ([b"load,cluster=a,host=x", b"# load,cluster=b,host=y", b"load,host=x"], ["a", "a"]),
    "tag beats line before": ([b"load,cluster=a,host=x", b"load,cluster=b,host=x", b"load,host=x"], ["a", "b", "b"]),
}


@pytest.mark.parametrize(("keys", "clusters"), CLUSTER_OF_LINES.values(), ids=CLUSTER_OF_LINES.keys())
def test_cluster_is_that_of_the_line_before_if_of_the_same_host_else_the_default(keys, clusters):
    payload = b"".join(key + b" value=1 1\n" for key in keys)

    assert [path[0] for path in paths(payload, default_cluster="d")] == clusters


@pytest.mark.parametrize(
    ("line_between", "cluster"),
    [
        (b"load,cluster=b,host=x value=bad", "b"),
        (b"load,cluster=b,host=x", "b"),
        (b"load,cluster=b,host=x value=1 bad", "b"),
        (b"load,cluster=b,host=x,type= value=1 1", "b"),
        (b"load,cluster=b,host=y value=bad", "d"),
        (b"load,cluster=..,host=x value=1", "a"),
        (b"load,cluster=b value=1", "a"),
        (b"load,cluster=b,host=y,junk value=1", "a"),
    ],
)
def test_a_line_with_good_tags_is_the_line_before_whatever_its_fields_are(line_between, cluster):
    payload = b"load,cluster=a,host=x value=1 1\n" + line_between + b"\nflops,host=x value=1 1"

    batch, catalog = decoded(payload, default_cluster="d")

    assert list(catalog.series)[batch.series[-1]] == (1, (cluster, "x"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"0", 0.0),
        (b"-0", -0.0),
        (b"-0i", 0.0),
        (b"5", 5.0),
        (b"+3.25", 3.25),
        (b".5", 0.5),
        (b"7.", 7.0),
        (b"-2.5E-2", -0.025),
        (b"1e3", 1000.0),
        (b"1e+3", 1000.0),
        (b"00012.50", 12.5),
        (b"0.1", 0.1),
        (b"9007199254740993", 9007199254740992.0),
        (b"9007199254740993.00000000000000000000000000001", 9007199254740994.0),
        (b"1.7976931348623157e308", 1.7976931348623157e308),
        (b"5e-324", 5e-324),
        (b"1e-400", 0.0),
        (b"0e999999999999", 0.0),
        (b"0." + b"0" * 400 + b"1e400", 0.1),
        (b"42i", 42.0),
        (b"-7i", -7.0),
        (b"+7i", 7.0),
        (b"43u", 43.0),
        (b"+43u", 43.0),
        (b"9223372036854775807i", 9223372036854775808.0),
        (b"-9223372036854775808i", -9223372036854775808.0),
        (b"18446744073709551615u", 18446744073709551616.0),
        (b"00000000000000000000000001u", 1.0),
        (b"1,value=2", 2.0),
        (b"1i,value=2u,value=3", 3.0),
    ],
)
def test_numbers_are_stored_as_the_nearest_double(text, value):
    assert struct.pack("<d", value_of(text)) == struct.pack("<d", value)


@pytest.mark.parametrize(
    ("timestamp", "seconds"),
    [
        (0, 0),
        (-1, -1),
        (1_700_000_000, 1_700_000_000),
        (99_999_999_999, 99_999_999_999),
        (100_000_000_000, 100_000_000),
        (1_700_000_000_999, 1_700_000_000),
        (99_999_999_999_999, 99_999_999_999),
        (100_000_000_000_000, 100_000_000),
        (1_700_000_000_999_999, 1_700_000_000),
        (99_999_999_999_999_999, 99_999_999_999),
        (100_000_000_000_000_000, 100_000_000),
        (1_700_000_000_999_999_999, 1_700_000_000),
        (2**63 - 1, 9_223_372_036),
        (-(2**63), -9_223_372_037),
        (-100_000_000_001, -100_000_001),
    ],
)
def test_the_unit_of_a_timestamp_shows_in_its_magnitude(timestamp, seconds):
    batch, _ = decoded(b"load,cluster=c,host=h value=1 %d" % timestamp)

    assert seconds_of(timestamp) == seconds
    assert batch.timestamps.tolist() == [seconds]


@pytest.mark.parametrize(
    ("payload", "timestamps"),
    [
        (b"%s\n%s", [NOW, NOW]),
        (b"%s\n%s 5000\n%s\n%s\n%s 6000\n%s", [NOW, 5000, 5000, 5000, 6000, 6000]),
        (b"%s 5000\nnope value=1 7000\n%s", [5000, 5000]),
        (b"%s 5000\nload,host=h value=1 7000\n%s", [5000, 5000]),
        (b"%s 5000\nload,cluster=c,host=h value=x 7000\n%s", [5000, 5000]),
        (b"%s 1700000000123\n%s", [1_700_000_000, 1_700_000_000]),
        (b"%s +5000", [5000]),
    ],
)
def test_a_line_without_timestamp_has_the_time_of_the_sample_before(payload, timestamps):
    batch, _ = decoded(payload.replace(b"%s", b"load,cluster=c,host=x value=1"))

    assert batch.timestamps.tolist() == timestamps


TAGS = b"load,cluster=c,host=h"
REJECTED = [
    (b",cluster=c,host=h value=1", RejectReason.MALFORMED_LINE, "measurement"),
    (b"load,cluster value=1", RejectReason.MALFORMED_LINE, "'cluster'"),
    (b"load,=c,host=h value=1", RejectReason.MALFORMED_LINE, "'=c'"),
    (b"load,cluster=c,,host=h value=1", RejectReason.MALFORMED_LINE, "''"),
    (b"load,cluster=c,host=h, value=1", RejectReason.MALFORMED_LINE, "''"),
    (b"load, value=1", RejectReason.MALFORMED_LINE, "''"),
    (b"load,cluster=c=d,host=h value=1", RejectReason.MALFORMED_LINE, "'cluster=c=d'"),
    (b"load,cluster\\=c,host=h value=1", RejectReason.MALFORMED_LINE, "'cluster=c'"),
    (b"lo\xffad,cluster=c,host=h value=1", RejectReason.INVALID_UTF8, r"lo\\xffad"),
    (b"load,cluster=c,host=h,x=\xc3 value=1", RejectReason.INVALID_UTF8, r"\\xc3"),
    (b"load,cluster=c,host=\xed\xa0\x80 value=1", RejectReason.INVALID_UTF8, r"\\xed"),
    (b"load value=1", RejectReason.MISSING_HOST, "host"),
    (b"load,cluster=c value=1", RejectReason.MISSING_HOST, "host"),
    (b"load,cluster=c,host= value=1", RejectReason.MISSING_HOST, "host"),
    (b"load,host=h value=1", RejectReason.MISSING_CLUSTER, "cluster"),
    (b"load,cluster=,host=h value=1", RejectReason.MISSING_CLUSTER, "cluster"),
    (b"load,cluster=../c,host=h value=1", RejectReason.INVALID_NAME, "'../c'"),
    (b"load,cluster=c/d,host=h value=1", RejectReason.INVALID_NAME, "'c/d'"),
    (b"load,cluster=c,host=.. value=1", RejectReason.INVALID_NAME, "'..'"),
    (b"load,cluster=c,host=. value=1", RejectReason.INVALID_NAME, "'.'"),
    (b"load,cluster=c,host=a..b value=1", RejectReason.INVALID_NAME, "'a..b'"),
    (b"load,cluster=c,host=a/b value=1", RejectReason.INVALID_NAME, "'a/b'"),
    (b"load,cluster=c,host=a\\b value=1", RejectReason.INVALID_NAME, r"'a\\b'"),
    (b"load,cluster=c,host=a\tb value=1", RejectReason.INVALID_NAME, r"'a\tb'"),
    (b"load,cluster=c,host=a\0 value=1", RejectReason.INVALID_NAME, r"'a\x00'"),
    (TAGS + b",type=a\x7f value=1", RejectReason.INVALID_NAME, "component"),
    (TAGS + b",type=a,stype=b\rc value=1", RejectReason.INVALID_NAME, "sub-component"),
    (b"load,cluster=c,host=" + b"h" * 256 + b" value=1", RejectReason.INVALID_NAME, "255"),
    (b"load,cluster=c,host=" + "\u00e4".encode() * 128 + b" value=1", RejectReason.INVALID_NAME, "255"),
    (TAGS + b",type=" + b"a" * 200 + b",type-id=" + b"b" * 56 + b" value=1", RejectReason.INVALID_NAME, "255"),
    (TAGS, RejectReason.MISSING_VALUE, "''"),
    (TAGS + b"   ", RejectReason.MISSING_VALUE, "''"),
    (TAGS + b" 1700000000", RejectReason.MISSING_VALUE, "'1700000000'"),
    (TAGS + b" value 5=1", RejectReason.MISSING_VALUE, "'value 5=1'"),
    (TAGS + b" value= 5", RejectReason.MISSING_VALUE, "value="),
    (TAGS + b" value=1, 1700000000", RejectReason.MALFORMED_LINE, "' 1700000000'"),
    (TAGS + b" value=1,value 1700000000", RejectReason.MALFORMED_LINE, "'value 1700000000'"),
    (TAGS + b" temp=5 1700000000", RejectReason.UNKNOWN_FIELD, "'temp'"),
    (TAGS + b" value=5,temp=5", RejectReason.UNKNOWN_FIELD, "'temp'"),
    (TAGS + b' temp="a b,value=1",value=5', RejectReason.UNKNOWN_FIELD, "'temp'"),
    (TAGS + b" Value=5", RejectReason.UNKNOWN_FIELD, "'Value'"),
    (TAGS + b" values=5", RejectReason.UNKNOWN_FIELD, "'values'"),
    (TAGS + b" value\\=1=5", RejectReason.UNKNOWN_FIELD, r"'value\\=1'"),
    (TAGS + b" =5", RejectReason.UNKNOWN_FIELD, "''"),
    (TAGS + b' value="up" 1', RejectReason.UNSUPPORTED_VALUE, "text"),
    (TAGS + b' value="a \\"b" 1', RejectReason.UNSUPPORTED_VALUE, "text"),
    (TAGS + b' value="', RejectReason.UNSUPPORTED_VALUE, "text"),
    *[
        (TAGS + b" value=" + truth, RejectReason.UNSUPPORTED_VALUE, "truth")
        for truth in (b"true", b"F", b"False", b"T")
    ],
    *[
        (TAGS + b" value=" + text + b" 1", RejectReason.INVALID_NUMBER, text.decode())
        for text in [
            b"NaN",
            b"nan",
            b"Inf",
            b"-inf",
            b"infinity",
            b"1_000",
            b"0x10",
            b"1e",
            b"1e+",
            b"e5",
            b".",
            b"-",
            b"--1",
            b"1.5i",
            b"1e3i",
            b"i",
            b"1I",
            b"1f",
            b"-1u",
            b"1.2.3",
            b"tRUE",
            b"9223372036854775808i",
            b"-9223372036854775809i",
            b"18446744073709551616u",
            b"1e309",
            b"-1.8e308",
            b"1=2",
            "\u0661".encode(),
        ]
    ],
    (TAGS + b" value=1\t 1", RejectReason.INVALID_NUMBER, r"'1\t'"),
    (TAGS + b" value=" + b"9" * 400, RejectReason.INVALID_NUMBER, "too large"),
    (TAGS + b" value=" + b"0" * 5000 + b"i", RejectReason.INVALID_NUMBER, "000'..."),
    *[
        (TAGS + b" value=1 " + text, RejectReason.INVALID_TIMESTAMP, shown(text))
        for text in [
            b"now",
            b"1.5",
            b"1 2",
            b"0x1",
            b"--1",
            b"+",
            b"1_0",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"1" * 5000,
        ]
    ],
    (TAGS + b" value=1 1\r ", RejectReason.INVALID_TIMESTAMP, r"'1\r'"),
    (TAGS + b" value=1 1\r\r", RejectReason.INVALID_TIMESTAMP, r"'1\r'"),
    (TAGS + b" value=1 \t1", RejectReason.INVALID_TIMESTAMP, r"'\t1'"),
]


@pytest.mark.parametrize(("line", "reason", "shown_text"), REJECTED)
def test_a_bad_line_is_rejected_with_its_reason_and_costs_its_neighbours_nothing(line, reason, shown_text):
    rejection = rejection_of(line)

    assert rejection.reason == reason
    assert shown_text in rejection.message
    assert rejection.message.isprintable()
    assert len(rejection.message) < 300


def test_a_newline_ends_a_line_inside_quotes_too():
    batch, _ = decoded(b'load,cluster=c,host=h value="a\nload,cluster=c,host=h value=2 1')

    assert batch.values.tolist() == [2]
    assert batch.report.rejected == {RejectReason.UNSUPPORTED_VALUE: 1}


@pytest.mark.parametrize(
    ("line", "is_too_long"),
    [
        (TAGS + b" value=1 12", False),
        (TAGS + b" value=1 12\r", False),
        (TAGS + b" value=1 123", True),
        (TAGS + b" value=1    ", True),
        (b"nope" * 20, True),
        (b"#" * 100, False),
        (b" " * 100, False),
    ],
)
def test_lines_over_the_limit_are_rejected_unread(line, is_too_long):
    batch, _ = decoded(line + b"\n" + b"load,cluster=c,host=h value=1 1", line_bytes_max=32)

    assert batch.report.rejected == ({RejectReason.LINE_TOO_LONG: 1} if is_too_long else {})
    assert batch.lines[-1] == 2


@pytest.mark.parametrize("name", ["a/b", "..", "x" * 256])
def test_a_default_cluster_must_be_a_good_name_too(name):
    batch, catalog = decoded(b"load,host=h value=1 1\nload,cluster=c,host=h value=2 2", default_cluster=name)

    assert batch.report.rejected == {RejectReason.INVALID_NAME: 1}
    assert list(catalog.series) == [(0, ("c", "h"))]


def test_series_are_registered_by_good_lines_only():
    _, catalog = decoded(b"load,cluster=c,host=a value=x 1\nload,cluster=c,host=b value=1 x\nload,cluster=c,host=e")

    assert catalog.series == {}


def test_at_the_limit_of_series_only_known_ones_get_samples():
    payload = b"".join(b"load,cluster=c,host=h%d value=%d 1\n" % (number % 3, number) for number in range(5))

    batch, _ = decoded(payload, series_max=2)

    assert batch.values.tolist() == [0, 1, 3, 4]
    assert batch.report.rejected == {RejectReason.SERIES_LIMIT: 1}
    assert "host=h2" in batch.report.first_rejected[0].message


def test_all_rejections_are_counted_and_the_first_ones_explained():
    batch, _ = decoded(b"load,cluster=c,host=h value=x\n" * 100)

    assert batch.report.rejected == {RejectReason.INVALID_NUMBER: 100}
    assert [rejection.index for rejection in batch.report.first_rejected] == list(range(1, REJECTIONS_KEPT_MAX + 1))
    assert batch.report.first_rejected[0] == Rejection(1, RejectReason.INVALID_NUMBER, "value 'x' is not a number")


@pytest.mark.parametrize("text", [b"1" * 60_000 + b"x", b"0" * 60_000 + b"x", b"a\\,=" * 15_000, b'"' * 60_000])
def test_long_lines_take_time_in_proportion_to_their_length(text):
    """A regular expression that backtracks would take minutes, and the test would time out."""
    for line in (b"load,cluster=c,host=h value=%s 1", b"load,cluster=c,host=h value=1 %s", b"load,x=%s value=1", b"%s"):
        batch, _ = decoded(line.replace(b"%s", text))
        assert batch.report.rejected_total + batch.report.ignored == 1


@pytest.mark.parametrize(
    ("text", "in_message"),
    [
        (b"abc", "'abc'"),
        ("\u00e4\u2603", "'\u00e4\u2603'"),
        ("\u00e4".encode(), "'\u00e4'"),
        (b"\xff", r"'\\xff'"),
        ("\u202e\x1b\n", r"'\u202e\x1b\n'"),
        (b"x" * 41, "'" + "x" * 40 + "'..."),
    ],
)
def test_messages_show_texts_shortened_and_printable(text, in_message):
    assert shown(text) == in_message
