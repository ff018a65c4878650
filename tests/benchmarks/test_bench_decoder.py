import re

from benchmarks import bench_decoder
from benchmarks.payloads import host_batches, metrics
from helpers.catalog import DictCatalog

from ccms_server.ingest import line_protocol


def test_decoder_is_measured():
    assert bench_decoder.measure(hosts=2, steps=2, repetitions=1) > 0


def test_values_change_from_step_to_step_but_for_some():
    [batch] = host_batches(1)
    steps = [re.findall(rb"value=(\S+)", batch.at(60 * step)) for step in range(10)]
    n_constant = sum(len(set(values)) == 1 for values in zip(*steps, strict=True))
    assert 0.1 < n_constant / batch.n_lines < 0.4
    assert all(float(value) >= 0 for values in steps for value in values)


def test_every_line_of_a_batch_is_a_sample_of_a_series_of_its_own():
    batches = host_batches(2)
    payload = b"".join(batch.at(1_700_000_000) for batch in batches)

    batch = line_protocol.decode(payload, DictCatalog(metrics()), default_cluster="", now=0)

    assert sorted(batch.series) == list(range(2 * 426))
    assert batch.report == line_protocol.WriteReport()
