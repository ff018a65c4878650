"""Gets all kernels ready before the first request.

numba compiles a kernel when it is first called, which takes seconds, and keeps the machine code on disk. A start that
finds it there takes a fraction of a second here.
"""

import logging
from threading import Timer
from typing import Final

import numpy as np

from ccms_server.durability.sample_codec import decode, encode
from ccms_server.ingest.decoder import LineDecoder
from ccms_server.model import QueryRequest, SeriesQuery
from ccms_server.query import answers, plan
from ccms_server.store.append import Placement
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store
from ccms_server.store.table import AGGREGATED_MEMBERS_MIN
from ccms_server.store.tile_pool import TILE_BYTES

logger = logging.getLogger(__name__)

SLOW_SECONDS: Final = 1.0
"""What takes longer says why."""

STEPS: Final = 300
"""More than a window, and enough to be downsampled."""

KEYS: Final = 1000
"""More than a table of keys has room for at first."""

ALWAYS: Final = 1 << 60


def warm_up() -> None:
    """Gets all kernels ready; says so when they have to be compiled."""
    slow = Timer(SLOW_SECONDS, logger.info, ["compiling, which only the first start has to do"])
    slow.daemon = True
    slow.start()
    try:
        _use_all()
    finally:
        slow.cancel()


def _use_all() -> None:
    """Sends a little of everything through a small store: known and unknown lines, open and sealed tiles, plots."""
    store = Store([Metric("warm_up", 60, Aggregation.SUM)], series_max=100, open_window_bytes=16 * TILE_BYTES)
    decoder = LineDecoder(store, "c")
    template = "".join(
        f"warm_up,hostname=h,type=hwthread,type-id={thread} value=0.{thread}12345678901234567 %d\n"
        for thread in range(AGGREGATED_MEMBERS_MIN)
    )
    queries = [
        SeriesQuery(metric="warm_up", host="h", resolution=120),
        SeriesQuery(metric="warm_up", host="h", type="hwthread", type_ids=["0"]),
    ]
    request = QueryRequest(cluster="c", start=0, end=STEPS * 60, queries=queries, with_padding=True)
    decoder.decode("".join(f"ignored{number} value=1\n" for number in range(KEYS)).encode(), 0)
    for step in range(STEPS):
        # Every thread has a gap somewhere, so that sealing meets full and gappy pages.
        lines = (template % ((step * 60,) * AGGREGATED_MEMBERS_MIN)).splitlines(keepends=True)
        batch = decoder.decode("".join(lines[: AGGREGATED_MEMBERS_MIN - (step == STEPS // 2)]).encode(), 0)
        placed, _ = store.place(batch.series, batch.timestamps, batch.values, oldest=-ALWAYS, newest=ALWAYS)
        store.put(Placement(*decode(encode(*placed))))
    for _ in range(2):
        reader = store.reader()
        planned = plan(store, reader, request, points_max=ALWAYS, series_max=ALWAYS)
        (chunk,) = answers(reader, planned, chunk_points=ALWAYS, chunk_series=ALWAYS)
        assert chunk[0].values is not None
        assert np.isfinite(chunk[0].values).any(), "warming up reads what it wrote"
        store.seal_all()
