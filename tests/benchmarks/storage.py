"""What a sample takes once its window is sealed, on the measurements of a real job."""

import gzip
import tempfile
from pathlib import Path

from helpers.durable import DurableStore

from ccms_server.ingest.decoder import LineDecoder

EMMY = Path(__file__).parents[1] / "data" / "emmy-1403244.lp.gz"
RULES = {
    "cpu_load": None,
    "clock": "avg",
    "rapl_power": "sum",
    "ipc": "avg",
    "mem_bw": "sum",
    "flops_sp": "sum",
    "mem_used": None,
    "flops_dp": "sum",
    "flops_any": "sum",
}
METRICS = {name: {"frequency": 60, "aggregation": rule} for name, rule in RULES.items()}
FOREVER = 1 << 61


def bytes_per_sample(lines_max: int | None = None) -> tuple[float, float]:
    """Stores a 32-node job over a day.

    Returns:
        Bytes of the sealed tiles per sample, and those of the block files, which have indexes and checksums as well.
    """
    with gzip.open(EMMY) as file:
        payload = file.read()
    if lines_max is not None:
        payload = b"\n".join(payload.split(b"\n")[:lines_max])
    with tempfile.TemporaryDirectory() as name:
        durable = DurableStore(Path(name), metrics=METRICS, open_tiles=2048)
        batch = LineDecoder(durable.store, "").decode(payload, now=0)
        stored, _ = durable.append(batch.series, batch.timestamps, batch.values, oldest=-FOREVER, newest=FOREVER)
        assert stored == len(batch.series) == payload.rstrip().count(b"\n") + 1
        durable.store.seal_all()
        size = durable.store.size()
        assert size.samples_sealed == stored
        durable.settle()
        blocks = sum(path.stat().st_size for path in Path(name).rglob("*.block"))
        durable.close()
    return size.sealed_bytes / stored, blocks / stored
