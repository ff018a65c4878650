"""Gets all kernels ready before the first request.

A kernel is compiled when it is first called, which takes seconds, and its machine code is kept on disk. A start that
finds it there takes a fraction of a second here. One that does not has other processes compile it, and then loads it
like any other: a compiler that has worked never gives its memory back.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import numpy as np

from ccms_server.answer_text import PROGRESS_LENGTH, write_series
from ccms_server.compiling import compile_in_processes, compiling_for_parent
from ccms_server.durability.sample_codec import decode, encode
from ccms_server.errors import reason_of
from ccms_server.ingest import line_protocol
from ccms_server.ingest.decoder import LineDecoder
from ccms_server.ingest.line_protocol import DecodedBatch
from ccms_server.jit import NotKeptError, forget_kept, keep_no_more, refusing_to_compile
from ccms_server.model import QueryRequest, SeriesQuery
from ccms_server.query import answers, plan
from ccms_server.resident import give_back_libraries
from ccms_server.rpc.answers import answer_messages
from ccms_server.store.append import Placement
from ccms_server.store.metric import Aggregation, Metric
from ccms_server.store.store import Store
from ccms_server.store.table import AGGREGATED_MEMBERS_MIN
from ccms_server.store.tile_pool import TILE_BYTES

logger = logging.getLogger(__name__)

STEPS: Final = 300
"""More than a window, and enough to be downsampled."""

KEYS: Final = 1000
"""More than a table of keys has room for at first."""

ALWAYS: Final = 1 << 60

CLUSTER: Final = "c"

TEXT_BYTES: Final = 1 << 16


async def warm_up() -> None:
    """Gets all kernels ready; says so when they have to be compiled.

    Machine code that cannot be read or kept costs time, at this start and the next ones, and memory, but no start.
    """
    try:
        await _load_or_compile()
    except OSError as error:  # a full disk, or no rights
        logger.warning("machine code cannot be kept, so that every start has to compile: %s", reason_of(error))
        keep_no_more()
        await asyncio.to_thread(_use_all)
    await asyncio.to_thread(give_back_libraries)


async def _load_or_compile() -> None:
    """Loads the kernels; compiles them first if need be.

    Raises:
        OSError: Machine code cannot be written.
    """
    try:
        await asyncio.to_thread(_load_all)
    except NotKeptError as missing:
        logger.info("compiling, which only the first start has to do: there is no machine code of `%s` yet", missing)
    except Exception as error:  # files that are damaged fail in any way when they are read; a defect fails below again
        logger.warning("compiling, because the machine code on disk cannot be used: %s", reason_of(error))
        forget_kept()
    else:
        return
    began = monotonic()
    await compile_in_processes(["ccms_server.warm_up", part] for part in PARTS)
    await asyncio.to_thread(_use_all)  # compiles what is missing still
    logger.info("compiled within %.0f s", monotonic() - began)


def _load_all() -> None:
    """Uses all kernels, if none has to be compiled."""
    with refusing_to_compile():
        _use_all()


def _use_all() -> None:
    """Sends a little of everything through a small store."""
    store = _small_store()
    _use_store(store, _decoded(LineDecoder(store, CLUSTER).decode))


def _use_decoder() -> None:
    """The kernels that decode lines."""
    _decoded(LineDecoder(_small_store(), CLUSTER).decode)


def _use_all_but_decoder() -> None:
    """All other kernels."""
    store = _small_store()
    _use_store(store, _decoded(lambda payload, now: line_protocol.decode(payload, store, CLUSTER, now)))


PARTS: Final = {"decoder": _use_decoder, "store": _use_all_but_decoder}
"""What can be compiled at the same time, and takes about as long."""


def _small_store() -> Store:
    return Store([Metric("warm_up", 60, Aggregation.SUM)], series_max=100, open_window_bytes=16 * TILE_BYTES)


def _decoded(decode: Callable[[bytes, int], DecodedBatch]) -> Sequence[DecodedBatch]:
    """Decodes known and unknown lines, and those of hosts that send alike; returns the samples of every step."""
    template = "".join(
        f"warm_up,hostname=h,type=hwthread,type-id={thread} value=0.{thread}12345678901234567 %d\n"
        for thread in range(AGGREGATED_MEMBERS_MIN)
    )
    decode("".join(f"ignored{number} value=1\n" for number in range(KEYS)).encode(), 0)
    for host in ("like", "another"):
        decode(f"warm_up,host={host},type=hwthread value=1\nwarm_up,host={host} value=1\n".encode(), 0)
    batches = []
    for step in range(STEPS):
        # Every thread has a gap somewhere, so that sealing meets full and gappy pages.
        lines = (template % ((step * 60,) * AGGREGATED_MEMBERS_MIN)).splitlines(keepends=True)
        batches.append(decode("".join(lines[: AGGREGATED_MEMBERS_MIN - (step == STEPS // 2)]).encode(), 0))
    return batches


def _use_store(store: Store, batches: Sequence[DecodedBatch]) -> None:
    """Stores samples, and queries them: in open and sealed tiles, and as plots."""
    queries = [
        SeriesQuery(metric="warm_up", host="h", resolution=120),
        SeriesQuery(metric="warm_up", host="h", type="hwthread", type_ids=["0"]),
    ]
    request = QueryRequest(cluster=CLUSTER, start=0, end=STEPS * 60, queries=queries, with_padding=True)
    for batch in batches:
        placed, _ = store.place(batch.series, batch.timestamps, batch.values, oldest=-ALWAYS, newest=ALWAYS)
        store.put(Placement(*decode(encode(*placed))))
    for _ in range(2):
        reader = store.reader()
        planned = plan(store, reader, request, points_max=ALWAYS, series_max=ALWAYS)
        (chunk,) = answers(reader, planned, chunk_points=ALWAYS, chunk_series=ALWAYS)
        assert np.isfinite(chunk.values).any(), "warming up reads what it wrote"
        text, progress = np.empty(TEXT_BYTES, np.uint8), np.zeros(PROGRESS_LENGTH, np.int64)
        write_series(chunk.heads, chunk.values, chunk.statistics, text, progress)
        assert any(answer_messages([chunk], bundled=True))
        store.seal_all()


if __name__ == "__main__":  # as one of the processes that compile
    with compiling_for_parent():
        PARTS[sys.argv[1]]()
