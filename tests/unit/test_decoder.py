"""What the decoder in use adds to the dialect: it knows lines again. That both decoders agree is a property test."""

from random import Random

import numba
import numpy as np
import pytest
from benchmarks.payloads import host_batches, metrics
from helpers.catalog import DictCatalog

from ccms_server.errors import RejectReason
from ccms_server.ingest import decoder as decoder_module
from ccms_server.ingest.decoder import ROOM_KEPT_MAX, LineDecoder
from ccms_server.ingest.key_table import IGNORED_MAX, KEY_BYTES_MAX
from ccms_server.ingest.words import byte_at, view_of, word_at

NOW = 1_600_000_000
KEY = b"load,cluster=c,host=h"


class AskedCatalog(DictCatalog):
    """Counts the lines that are read slowly: each one asks for its metric."""

    asked = 0

    def metric_id(self, name):
        self.asked += 1
        return super().metric_id(name)


def new_decoder(**options):
    catalog = AskedCatalog(["load", "odd,name"])
    return LineDecoder(catalog, "d", **options), catalog


def slow_lines(payload, decoder, catalog):
    """Lines of a payload that the kernel does not decode."""
    before = catalog.asked
    decoder.decode(payload, NOW)
    return catalog.asked - before


@pytest.mark.parametrize(
    "rest",
    [
        b" value=1.5 1700000000\n",
        b" value=1.5 1700000000",
        b" value=1.5 1700000000\r\n",
        b"  value=1.5   1700000000  \n",
        b" value=1.5\n",
        b" value=1.5 \r\n",
        b" value=-0.25 1700000000000\n",
        b" value=+3. 1700000000000000000\n",
        b" value=.5e-3 -17\n",
        b" value=42i +17\n",
        b" value=-9223372036854775808i\n",
        b" value=9223372036854775807i\n",
        b" value=9999999999999999999u\n",
        b" value=0.30000000000000004 1700000000\n",
        b" value=1.7976931348623157e+308 1700000000\n",
        b" value=2.2250738585072014e-308 1700000000\n",
        b" value=123456789012345678e-30 1700000000\n",
        b" value=0e9999 1700000000\n",
    ],
)
def test_lines_with_a_known_key_do_not_need_python(rest):
    decoder, catalog = new_decoder()
    first = decoder.decode(KEY + rest, NOW)
    again = decoder.decode(KEY + rest + b"\n# comment\n \t\n\r\n \t" + KEY + rest, NOW)

    assert catalog.asked == 1
    assert again.values.tolist() == 2 * first.values.tolist()
    assert again.timestamps.tolist() == 2 * first.timestamps.tolist()


@pytest.mark.parametrize(
    "key",
    [
        b"odd\\,name,host=a\\ b",
        b"load,host=h",
        "load,host=h\u00f6".encode(),
        b"load,host=a,type=t",
        b"nope",
        b"no,x=1",
        b"no\\,pe,x=1",
    ],
)
def test_keys_of_any_form_are_known_again_wherever_they_stand(key):
    decoder, catalog = new_decoder()
    others = [b"load,host=a", b"load,host=b"]
    decoder.decode(b"".join(each + b" value=1 1\n" for each in [key, *others]), NOW)

    order = [key, key, others[1], key, others[1], key, key, others[0], key, others[0]]

    assert slow_lines(b"".join(each + b" value=1 1\n" for each in order), decoder, catalog) == 0


def test_numbers_are_rounded_like_python_rounds_them():
    """Many, because only one in a thousand makes the kernel use the second half of its powers of ten."""
    random = Random(19)
    texts = [f"{random.randrange(10 ** random.randrange(15, 20))}e{random.randrange(-310, 285)}" for _ in range(30_000)]
    texts += [f"{2 * random.getrandbits(53) + 1}e{random.randrange(-25, 25)}" for _ in range(10_000)]
    decoder, catalog = new_decoder()
    decoder.decode(KEY + b" value=1", NOW)

    batch = decoder.decode(b"".join(KEY + b" value=%s\n" % text.encode() for text in texts), NOW)

    assert batch.values.tolist() == [float(text) for text in texts]
    assert catalog.asked < len(texts) / 100


def test_collectors_batches_are_known_again_in_any_order():
    catalog = AskedCatalog(metrics())
    decoder = LineDecoder(catalog, "")
    batches = [batch.at(1_700_000_000) for batch in host_batches(3)]
    for batch in batches:
        decoder.decode(batch, NOW)
    asked = catalog.asked

    shuffled = b"\n".join(sorted(b"".join(batches).split(b"\n"), key=lambda line: line[::-1]))
    batch = decoder.decode(shuffled, NOW)

    assert asked == 426 + 2, "of the other hosts one line each is read slowly, which tells their names"
    assert catalog.asked == asked
    assert len(batch.series) == 3 * 426
    assert sorted(batch.series) == list(range(3 * 426))


LIKE_OTHERS = b"""load,cluster=c,hostname=@,type=node value=1 1
ignored,cluster=c,hostname=@ value=1 1
load,cluster=c,hostname=@,type=cpu,type-id=1 value=2 1

# comment
load,cluster=c,hostname=@,type=cpu,type-id=1 value=3
load,host=@,type=cpu,type-id=2 value=4 1
load,type=cpu,type-id=3,host=@ value=5
"""


def test_lines_of_a_new_host_like_those_of_others_are_left_to_a_kernel_but_for_the_first():
    decoder, catalog = new_decoder()
    decoder.decode(LIKE_OTHERS.replace(b"@", b"h1"), NOW)

    assert slow_lines(LIKE_OTHERS.replace(b"@", b"h2"), decoder, catalog) == 1
    assert slow_lines(LIKE_OTHERS.replace(b"@", b"h2"), decoder, catalog) == 0


@pytest.mark.parametrize(
    ("line", "slow"),
    [
        (b"load,cluster=c,hostname=@,type=cpu,type-id=1 value=2 1", 1),
        (b"load,cluster=c,hostname=@,type=cpu,type-id=9 value=2 1", 2),
        (b"load,cluster=e,hostname=@,type=cpu,type-id=1 value=2 1", 2),
        (b"load,cluster=c,hostname=@,host=@,type=cpu,type-id=1 value=2 1", 2),
        (b"load,cluster=c,hostname=h3,type=cpu,type-id=1 value=2 1", 2),
        (b"load,cluster=c,hostname=@@,type=cpu,type-id=1 value=2 1", 2),
        (b"load,cluster=c,hostname=@,type=cpu,type-id=1 value=2 x", 2),
        (b"load,cluster=c,hostname=@,type=cpu,type-id=1", 2),
        (b"load,cluster=c,hostname=@,type=cpu,type-id=%b value=2 1" % (b"1" * KEY_BYTES_MAX), 2),
    ],
)
def test_other_lines_of_a_new_host_are_read_slowly(line, slow):
    decoder, catalog = new_decoder()
    decoder.decode(LIKE_OTHERS.replace(b"@", b"h1"), NOW)
    first = b"load,cluster=c,hostname=h2,type=node value=1 1\n"

    assert slow_lines(first + line.replace(b"@", b"h2"), decoder, catalog) == slow


def test_one_off_keys_do_not_keep_templates_from_being_learned(monkeypatch):
    monkeypatch.setattr(decoder_module, "TEMPLATES_MAX", 10)
    decoder, catalog = new_decoder()
    for host in range(20):
        decoder.decode(b"load,cluster=c,hostname=h%d,serial=%d value=1 1\n" % (host, host), NOW)
    decoder.decode(LIKE_OTHERS.replace(b"@", b"h1"), NOW)

    assert slow_lines(LIKE_OTHERS.replace(b"@", b"h2"), decoder, catalog) == 1


def test_known_lines_among_unknown_ones_are_mostly_left_to_the_kernel():
    decoder, catalog = new_decoder()
    known = b"".join(b"load,cluster=c,host=h%d value=1 1\n" % host for host in range(1000))
    decoder.decode(known, NOW)
    lines = known.splitlines(keepends=True)
    lines[500:500] = [b"load,cluster=c,host=new%d value=1 1\n" % host for host in range(10)]

    assert 10 <= slow_lines(b"".join(lines), decoder, catalog) <= 20


def test_metrics_that_are_not_configured_are_known_by_their_name_alone():
    decoder, catalog = new_decoder()
    decoder.decode(b"nope,host=a value=1 1", NOW)

    batch = decoder.decode(b'nope,host=b value="x" 1\nnope value=1\nnope,host=c\nnopes value=1', NOW)

    assert batch.report.ignored == 4
    assert catalog.asked == 2  # the first line, and `nopes`


def test_a_measurement_with_an_open_escape_is_not_taken_for_a_name():
    """`odd\\` at the end of a line is a name, but before a comma its backslash belongs to the comma."""
    decoder, _ = new_decoder()
    decoder.decode(b"odd\\\nodd\\", NOW)

    assert len(decoder.decode(b"odd\\,name,cluster=c,host=h value=1 1", NOW).series) == 1


def test_the_meaning_of_a_key_without_cluster_follows_the_line_before():
    catalog = DictCatalog(["load"])
    decoder = LineDecoder(catalog, "d")
    implicit = b"load,host=h value=1 1\n"
    for tagged in (b"", b"load,cluster=a,host=h value=1 1\n", b"load,cluster=b,host=h value=1 1\n", b""):
        for _ in range(3):
            batch = decoder.decode(tagged + implicit, NOW)
            cluster = tagged[13:14].decode() or "d"
            assert list(catalog.series)[batch.series[-1]] == (0, (cluster, "h"))


def test_time_and_names_are_not_carried_from_payload_to_payload():
    catalog = DictCatalog(["load"])
    decoder = LineDecoder(catalog, "d")
    decoder.decode(b"load,cluster=a,host=h value=1 5\nload,host=h value=1\n", NOW)

    batch = decoder.decode(b"load,host=h value=1\n", NOW)

    assert batch.timestamps.tolist() == [NOW]
    assert list(catalog.series)[batch.series[0]] == (0, ("d", "h"))


def test_results_stay_as_they_are_when_more_is_decoded():
    decoder, _ = new_decoder()
    first = decoder.decode(KEY + b" value=1 1", NOW)
    decoder.decode(KEY + b" value=2 2", NOW)

    assert (first.values.tolist(), first.timestamps.tolist(), first.lines.tolist()) == ([1], [1], [1])


def test_a_large_payload_leaves_no_large_arrays_behind():
    decoder, _ = new_decoder()
    lines = ROOM_KEPT_MAX + 5
    batch = decoder.decode((KEY + b" value=1 1\n") * lines, NOW)
    decoder.decode(KEY + b" value=2 2", NOW)

    assert len(decoder._room.series) < ROOM_KEPT_MAX
    assert batch.values.tolist() == [1] * lines
    assert batch.lines.tolist() == list(range(1, lines + 1))


def test_lines_over_the_limit_are_rejected_though_their_key_is_known():
    decoder, _ = new_decoder(line_bytes_max=32)
    payload = b"%s value=1 %s\nnope %s\n"
    decoder.decode(payload % (KEY, b"1", b""), NOW)

    batch = decoder.decode(payload % (KEY, b"1" + b" " * 10, b"x" * 40), NOW)

    assert batch.report.rejected_total == 2
    assert batch.report.ignored == 0


def key_lines(first, last):
    return b"".join(b"load,cluster=c,host=h%d value=1 1\n" % host for host in range(first, last))


def test_a_full_table_goes_on_with_the_keys_it_has():
    decoder, catalog = new_decoder(keys_max=100)
    decoder.decode(key_lines(0, 120), NOW)

    assert slow_lines(key_lines(0, 100), decoder, catalog) == 0
    assert slow_lines(key_lines(100, 120), decoder, catalog) == 20


def test_a_full_table_that_has_refused_as_many_keys_as_it_holds_learns_anew():
    decoder, catalog = new_decoder(keys_max=100)
    decoder.decode(key_lines(0, 100), NOW)
    for _ in range(10):
        decoder.decode(key_lines(200, 290), NOW)

    assert slow_lines(key_lines(200, 290), decoder, catalog) == 0


def test_the_table_has_room_for_a_bounded_number_of_metrics_that_are_not_configured():
    decoder, catalog = new_decoder(keys_max=100_000)
    payload = b"".join(b"nope%d value=1\n" % number for number in range(IGNORED_MAX + 50))
    decoder.decode(payload, NOW)
    decoder.decode(KEY + b" value=1 1", NOW)

    assert slow_lines(KEY + b" value=1 1", decoder, catalog) == 0
    assert 50 <= slow_lines(payload, decoder, catalog) <= 100


def test_very_long_keys_are_not_kept():
    decoder, catalog = new_decoder()
    payload = KEY + b",x=" + b"y" * KEY_BYTES_MAX + b" value=1 1\n"
    decoder.decode(payload, NOW)

    assert slow_lines(payload, decoder, catalog) == 1
    assert len(decoder._keys) == 0


def test_the_table_takes_little_more_than_the_keys():
    decoder, _ = new_decoder()
    count = 40_000
    for first in range(0, count, 1000):
        decoder.decode(key_lines(first, first + 1000), NOW)

    key_bytes = len(KEY) + 4
    assert len(decoder._keys) == count
    assert decoder._keys.nbytes / count < key_bytes * 1.5 + 100


def test_one_payload_takes_one_call_of_the_kernel_when_all_is_known(monkeypatch):
    calls = []
    decode_lines = decoder_module.decode_lines
    monkeypatch.setattr(decoder_module, "decode_lines", lambda *arrays: calls.append(1) or decode_lines(*arrays))
    decoder, _ = new_decoder()
    payload = key_lines(0, 500)
    decoder.decode(payload, NOW)
    assert len(calls) <= 12  # steps that double
    calls.clear()

    decoder.decode(payload, NOW)

    assert len(calls) == 1


@numba.njit(boundscheck=True)
def checked_word(array, position):
    return word_at(view_of(array), position)


@numba.njit(boundscheck=True)
def checked_byte(array, position):
    return byte_at(view_of(array), position)


@pytest.mark.parametrize(("read", "size"), [(checked_word, 8), (checked_byte, 1)])
def test_compiled_with_bounds_checking_views_are_read_inside_only(read, size):
    array = np.arange(1, 21, dtype=np.uint8)[:16]
    for position in range(16 - size + 1):
        assert read(array, position) == int.from_bytes(array[position : position + size].tobytes(), "little")
    for position in (-1, 16 - size + 1, 16, 1 << 40):
        with pytest.raises(IndexError):
            read(array, position)


@pytest.mark.parametrize("line", [b"load\t\n", b"load\t \n", b"load\t", b"load\t\r\n"])
def test_a_tab_at_a_lines_end_is_no_part_of_a_measurement(line):
    """Within a line it is: `load\\t,host=h` is of a metric that nobody configured, and is known from then on."""
    decoder = LineDecoder(DictCatalog({"load": {}}), "c")
    decoder.decode(b"load\t,host=h value=1\n", 0)
    assert decoder.decode(line, 0).report.rejected == {RejectReason.MISSING_HOST: 1}


@pytest.mark.parametrize("line", [b"x\n", b"x\r\n", b"x", b"x,a=b\n"])
def test_lines_without_fields_of_unknown_metrics_are_decoded_by_the_kernel(line, monkeypatch):
    decoder = LineDecoder(DictCatalog({"load": {}}), "c")
    decoder.decode(b"x 1\n", 0)
    monkeypatch.setattr(decoder, "_decode_all", None)  # the readable decoder is not asked
    assert decoder.decode(line, 0).report.ignored == 1
