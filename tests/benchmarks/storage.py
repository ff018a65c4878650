"""What a sample takes once its window is sealed, on the measurements of a real job."""

import gzip
from pathlib import Path

from ccms_server.ingest.decoder import LineDecoder
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store

EMMY = Path(__file__).parents[1] / "data" / "emmy-1403244.lp.gz"
METRICS = {
    "cpu_load": None,
    "clock": Aggregation.AVG,
    "rapl_power": Aggregation.SUM,
    "ipc": Aggregation.AVG,
    "mem_bw": Aggregation.SUM,
    "flops_sp": Aggregation.SUM,
    "mem_used": None,
    "flops_dp": Aggregation.SUM,
    "flops_any": Aggregation.SUM,
}
FOREVER = 1 << 61


def sealed_bytes_per_sample(lines_max: int | None = None) -> float:
    """Bytes of the sealed tiles of a 32-node job over a day, per sample; aggregates and indexes included."""
    store = Store(
        [Metric(name, 60, rule) for name, rule in METRICS.items()], series_max=1000, open_window_bytes=1 << 28
    )
    with gzip.open(EMMY) as file:
        payload = file.read()
    if lines_max is not None:
        payload = b"\n".join(payload.split(b"\n")[:lines_max])
    batch = LineDecoder(store, "").decode(payload, now=0)
    stored, _ = store.append(batch.series, batch.timestamps, batch.values, oldest=-FOREVER, newest=FOREVER)
    assert stored == len(batch.series) == payload.rstrip().count(b"\n") + 1
    store.seal_all()
    size = store.size()
    assert size.samples_sealed == stored
    return size.sealed_bytes / size.samples_sealed
