from benchmarks import bench_decoder
from benchmarks.payloads import STAMP, host_batches, metrics
from helpers.catalog import DictCatalog

from ccms_server.ingest import line_protocol


def test_decoder_is_measured():
    assert bench_decoder.measure(hosts=2, steps=2, repetitions=1) > 0


def test_every_line_of_a_batch_is_a_sample_of_a_series_of_its_own():
    batches = host_batches(2)
    payload = b"".join(batches).replace(STAMP, b"1700000000")

    batch = line_protocol.decode(payload, DictCatalog(metrics()), default_cluster="", now=0)

    assert sorted(batch.series) == list(range(2 * 426))
    assert batch.report == line_protocol.WriteReport()
