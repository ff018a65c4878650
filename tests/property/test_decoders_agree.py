"""The decoder in use agrees with the one that defines the dialect, whatever it is sent and has been sent before."""

import os
import struct
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from helpers.catalog import DictCatalog
from hypothesis import given, settings
from hypothesis import strategies as st

from ccms_server.ingest import line_protocol
from ccms_server.ingest.decoder import LineDecoder

NOW = 1_600_000_000
METRICS = ["load", "flops_any", "odd,name", "a\\b"]
BOUNDS_CHECKED = "NUMBA_BOUNDSCHECK"
EXAMPLES = 100 if BOUNDS_CHECKED in os.environ else 300


# What lines are made of. The pools are small, so that keys recur, follow each other in varying order, and look alike.
def joined(*parts):
    return st.tuples(*parts).map(b"".join)


NOTHING = st.just(b"")
measurements = st.sampled_from(
    [b"load", b"load", b"flops_any", b"odd\\,name", b"a\\b", b"nope", b"flops_an", b"x", b"lo\\ad", b"", b"nope\\ "]
)
clusters = st.sampled_from([b",cluster=c1", b",cluster=c2", b",cluster=d", b"", b"", b",cluster=", b",cluster=a/b"])
hosts = st.sampled_from(
    [b",hostname=h1", b",hostname=h1", b",host=h2", b",host=h\\ 3", b",host=h\xc3\xa4", b",host=\xff", b""]
)
components = st.one_of(
    NOTHING,
    st.sampled_from([b",type=node", b",type=hwthread,type-id=0", b",type=hwthread,type-id=17", b",type-id=3,stype=d"]),
    st.sampled_from([b",unit=GB", b",junk", b",type=s\\", b",type=a\\\\ b", b",type=a\\=\\,"]),
)
keys = joined(measurements, clusters, hosts, components)

digits = st.text("0123456789", min_size=1, max_size=21).map(str.encode)
signs = st.sampled_from([b"", b"", b"-", b"+"])
exponents = st.one_of(
    NOTHING,
    st.integers(-345, 330).map(lambda exponent: b"e%d" % exponent),
    st.sampled_from([b"E+5", b"e", b"e-", b"e99999", b"E-99999", b"e0000000001"]),
)
numbers = st.one_of(
    st.floats(allow_nan=False).map(lambda value: repr(value).encode()),
    st.floats(0, 1000).map(lambda value: b"%.3f" % value),
    joined(signs, digits, st.just(b"."), digits, exponents),
    joined(signs, digits, st.sampled_from([b"", b".", b"i", b"u", b".5i"]), exponents),
    joined(signs, st.integers(10**18, 10**20).map(lambda value: b"%d" % value), st.sampled_from([b"", b".5", b"e-3"])),
    st.integers(-(2**65), 2**65).map(lambda value: b"%di" % value),
    st.integers(0, 2**65).map(lambda value: b"%du" % value),
    st.sampled_from(
        [b"9007199254740993", b"9007199254740992.5e3", b"2.2250738585072011e-308", b"1.7976931348623159e308"]
    ),
    st.sampled_from([b"NaN", b"inf", b"true", b'"a b"', b"", b".", b"1_0", b"1,value=2", b"5e-324", b"-0i", b"-0u"]),
)
timestamps = st.one_of(
    st.integers(1_699_999_990, 1_700_000_010).map(lambda time: b" %d" % time),
    st.integers(-(2**64), 2**64).map(lambda time: b" %d" % time),
    st.integers(0, 19).map(lambda zeros: b" 17" + b"0" * zeros),
    st.sampled_from([-(2**63) - 1, -(2**63), 2**63 - 1, 2**63, 10**19 - 1]).map(lambda time: b" %d" % time),
    st.sampled_from([b"", b"", b" ", b" now", b"  +5", b" 1.5", b" 1 2", b" 1\t", b"\t1", b" 0x1", b" -0"]),
)
gaps = st.sampled_from([b" ", b" ", b" ", b"  ", b"\t", b""])
field_names = st.sampled_from([b"value="] * 6 + [b"valu=", b"other="])
whole_lines = joined(keys, gaps, field_names, numbers, timestamps)

plain_lines = st.builds(
    lambda metric, cluster, thread, value: (
        b"%s,cluster=%s,hostname=h1,type=hwthread,type-id=%d value=%d 1700000000" % (metric, cluster, thread, value)
    ),
    st.sampled_from([b"load", b"flops_any", b"nope"]),
    st.sampled_from([b"c1", b"c2"]),
    st.integers(0, 20),
    st.integers(0, 1000),
)
odd_lines = st.one_of(
    st.sampled_from([b"", b" ", b"\t", b"\r", b" \r", b"# load,host=h1 value=1", b"  #", b"nope", b"nope\\", b"x"]),
    st.binary(max_size=30),
    keys,
)
damages = st.sampled_from(
    [b"", b" ", b",", b"=", b"\\", b"\n", b"\r", b"\t", b"#", b'"', b"0", b".", b"e", b"\x00", b"\xff"]
)


@st.composite
def damaged_lines(draw):
    """Lines with a few bytes replaced, taken out or put in."""
    line = bytearray(draw(st.one_of(whole_lines, plain_lines)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(line)))
        line[at : at + draw(st.integers(0, 2))] = draw(damages)
    return bytes(line)


indents = st.sampled_from([b"", b"", b"", b"", b" ", b"\t "])
line_ends = st.sampled_from([b"\n", b"\n", b"\n", b"\n", b"\r\n", b" \n", b"\t\r\n", b"\r\r\n", b"\r \n"])
lines = joined(indents, st.one_of(plain_lines, whole_lines, odd_lines, damaged_lines()), line_ends)
last_lines = st.one_of(NOTHING, plain_lines, whole_lines, st.just(b"load,host=h1 value=1"))
payloads = joined(st.lists(lines, max_size=12).map(b"".join), last_lines)


@st.composite
def payload_sequences(draw):
    """Payloads, some of which are sent again, as they were or in a different order of their lines."""
    sent = []
    for payload in draw(st.lists(payloads, min_size=1, max_size=4)):
        sent.append(payload)
        again = draw(st.sampled_from(["no", "same", "first", "reversed"]))
        if again == "same":
            sent.append(payload)
        elif again == "first":
            sent.append(sent[0])
        elif again == "reversed":
            sent.append(b"\n".join(reversed(payload.split(b"\n"))))
    return sent


def assert_agree(sent, *, default_cluster="", line_bytes_max=65536, keys_max=1000, series_max=None):
    """Decodes payloads one after another, with both decoders."""
    expected_catalog, catalog = DictCatalog(METRICS, series_max), DictCatalog(METRICS, series_max)
    decoder = LineDecoder(catalog, default_cluster, line_bytes_max, keys_max)
    for payload in sent:
        expected = line_protocol.decode(payload, expected_catalog, default_cluster, NOW, line_bytes_max)
        batch = decoder.decode(payload, NOW)
        assert batch.series.tolist() == expected.series.tolist()
        assert batch.timestamps.tolist() == expected.timestamps.tolist()
        assert batch.values.tobytes() == expected.values.tobytes()
        assert batch.lines.tolist() == expected.lines.tolist()
        assert batch.report == expected.report
        assert list(catalog.series) == list(expected_catalog.series)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    payload_sequences(),
    st.sampled_from(["", "d", "c1", "..", "a/b"]),
    st.sampled_from([65536, 65536, 70, 45]),
    st.sampled_from([1000, 1000, 5, 1]),
    st.sampled_from([None, None, 3]),
)
def test_on_anything(sent, default_cluster, line_bytes_max, keys_max, series_max):
    assert_agree(
        sent,
        default_cluster=default_cluster,
        line_bytes_max=line_bytes_max,
        keys_max=keys_max,
        series_max=series_max,
    )


HOST = b"@HOST@"
host_names = st.sampled_from(
    [b"h1", b"h1", b"h2", b"h", b"h11", b"h\xc3\xa4", b"h\\ 3", b"h\\=", b"h=", b"..", b"", b"c1"]
)
host_tags = st.sampled_from([b",hostname=", b",hostname=", b",host=", b",hos=", b",xhost="]).map(lambda tag: tag + HOST)
lines_of_a_host = joined(
    st.sampled_from([b"load", b"load", b"flops_any", b"odd\\,name", b"nope", b"l\\oad"]),
    st.sampled_from([b"", b"", b",cluster=c1", b",cluster=c2", b",type=hwthread,type-id=0"]),
    st.one_of(*[host_tags] * 6, st.just(b""), st.sampled_from([b",host=h1,hostname=h2", b",host=h2"])),
    st.one_of(*[NOTHING] * 6, host_tags, st.sampled_from([b",host=h1", b",host"])),
    st.sampled_from(
        [b"", b",type=node", b",type=hwthread,type-id=7", b",cluster=c1", b",type=s\\ ,subtype=d", b",host=h2"]
    ),
    st.one_of(*[st.just(b" value=1")] * 4, joined(gaps, field_names, numbers)),
    st.one_of(*[st.sampled_from([b"", b" 1700000000"])] * 4, timestamps),
    st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\n\n# \n"]),
)


@st.composite
def payloads_of_hosts(draw):
    """Payloads of hosts that send the same lines, most of them, but for their names."""
    of_all = draw(st.lists(lines_of_a_host, min_size=1, max_size=10))
    sent = []
    for _ in range(draw(st.integers(1, 4))):
        parts = []
        for host in draw(st.lists(host_names, min_size=1, max_size=4)):
            own = draw(st.lists(st.one_of(*[st.sampled_from(of_all)] * 4, lines_of_a_host), max_size=4))
            parts += [line.replace(HOST, host) for line in draw(st.sampled_from([of_all, of_all, of_all[::-1]])) + own]
        sent.append(b"".join(parts))
    return sent


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    payloads_of_hosts(),
    st.sampled_from(["", "d", "c1", ".."]),
    st.sampled_from([65536, 65536, 65536, 45]),
    st.sampled_from([1000, 1000, 1000, 5]),
    st.sampled_from([None, None, None, 1, 3, 6]),
)
def test_on_hosts_that_send_alike(sent, default_cluster, line_bytes_max, keys_max, series_max):
    assert_agree(
        sent,
        default_cluster=default_cluster,
        line_bytes_max=line_bytes_max,
        keys_max=keys_max,
        series_max=series_max,
    )


@pytest.mark.parametrize(
    ("escaped", "plain"), [(b"h\\=", b"h="), (b"h\\ 3", b"h 3"), (b"h\\,x", b"h,x"), (b"h\\", b"h"), (b"h1", b"h11")]
)
def test_on_hosts_whose_names_only_seem_the_same(escaped, plain):
    of_all = b"load,host=@,type=node value=1\nload,host=@,type=cpu value=2\nload,type=cpu,host=@ value=3\n"

    assert_agree(
        [of_all.replace(b"@", b"h0"), of_all.replace(b"@", escaped, 1).replace(b"@", plain)], default_cluster="d"
    )


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(st.lists(st.tuples(numbers, timestamps), min_size=1, max_size=40))
def test_on_numbers(pairs):
    """The key is known after the first line, so every number is read by the kernel, if it can be."""
    known = b"load,cluster=c1,host=h1 value=1 1700000000\n"

    assert_agree([known + b"\n".join(b"load,cluster=c1,host=h1 value=%s%s" % pair for pair in pairs)])


short_numbers = st.one_of(st.floats(0, 1000).map(lambda value: b"%.3f" % value), st.integers(-9, 99_999_999), numbers)
times_of_a_cycle = st.sampled_from(
    [b" 1700000000"] * 6
    + [
        b" 1700000060",
        b" 1700000001",
        b" 1700000000 ",
        b" 1700000000\r",
        b"  1700000000",
        b" 17000000000",
        b"",
        b" 170000000",
    ]
    + [b" 1700000000000", b" 1700000000000000000", b" 1700000000000001000", b" 1700000000\t", b" 1700000000 1"]
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.tuples(short_numbers, times_of_a_cycle), min_size=2, max_size=40),
    st.sampled_from([b"cluster=c1,", b""]),
    st.sampled_from([b"", b"x=", b"value"]),
)
def test_on_lines_that_repeat_the_time_of_the_one_before(parts, cluster, end):
    """What collectors send, most of which a shorter way through the kernel reads."""
    keys = [b"load,%shostname=h%d,type=hwthread,type-id=%d value=" % (cluster, n // 3, n) for n in range(6)]
    written = [b"%s%s" % (number if isinstance(number, bytes) else b"%d" % number, time) for number, time in parts]
    first = b"".join(key + b"1 1700000000\n" for key in keys)

    assert_agree(
        [first, first + b"\n".join(keys[n % 6] + text for n, text in enumerate(written)) + end], default_cluster="d"
    )


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 17)), min_size=1, max_size=40))
def test_on_doubles_of_any_magnitude_as_go_and_python_print_them(patterns):
    values = [struct.unpack("<d", struct.pack("<Q", bits))[0] for bits, _ in patterns]
    texts = [f"{value!r}".encode() for value in values]
    texts += [f"{value:.{digits}g}".encode() for value, (_, digits) in zip(values, patterns, strict=True)]
    line = b"load,cluster=c1,host=h1 value=%s 1700000000\n"

    assert_agree([b"".join(line % text for text in [b"1", *texts])])


@settings(max_examples=EXAMPLES // 10, deadline=None)
@given(plain_lines, whole_lines)
def test_on_every_prefix(first, second):
    """A payload may end anywhere, also within a word, a key or a number."""
    payload = first + b"\n" + second

    assert_agree([payload + b"\n", *(payload[:size] for size in range(len(payload) + 1))])


@pytest.mark.parametrize("keys_max", [10_000, 2500])
def test_on_thousands_of_keys_in_any_order(keys_max):
    """Tables grow, keys are refused or forgotten, and there is no room for all samples at first."""
    random = Random(keys_max)
    keys = [b"load,cluster=c%d,hostname=h%d,type=t,type-id=%d" % (n % 3, n % 17, n) for n in range(5000)]
    sent = []
    for _ in range(3):
        random.shuffle(keys)
        sent.append(b"".join(key + b" value=%d 1700000000\n" % n for n, key in enumerate(keys)))

    assert_agree(sent, keys_max=keys_max)


@pytest.mark.skipif(BOUNDS_CHECKED in os.environ, reason="this is the process with bounds checking")
def test_with_bounds_checking(tmp_path):
    """The tests of this file in a process whose kernels are compiled with bounds checking: nothing is read outside."""
    environment = os.environ | {BOUNDS_CHECKED: "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]

    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, check=False)

    assert done.returncode == 0, done.stdout.decode()
