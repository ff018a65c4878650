"""Samples as Parquet: columns time, cluster, host, component, subcomponent, metric, value."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from ccms_cli.stored_series import Run, Samples
from ccms_client import SeriesKey

ROW_GROUP_SAMPLES: Final = 1 << 17
_NAMES: Final = ("cluster", "host", "component", "subcomponent", "metric")


def write_parquet(path: Path, runs: Iterable[Run], written: Callable[[int], None]) -> None:
    """Writes a file, row group by row group.

    Args:
        path: The file, which is written over.
        runs: The samples.
        written: Is told of the number of samples as they are taken.

    Raises:
        ValueError: pyarrow is not installed.
    """
    arrow, parquet = _arrow()
    text = arrow.dictionary(arrow.int32(), arrow.string())
    schema = arrow.schema(
        [("time", arrow.timestamp("s", tz="UTC")), *((name, text) for name in _NAMES), ("value", arrow.float64())]
    )
    # ZSTD halves them; a time is near the one before it, which its own encoding knows.
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(runs, written):
            writer.write_table(_table(arrow, schema, group), row_group_size=ROW_GROUP_SAMPLES)


def read_parquet(path: Path, read: Callable[[int, int], None]) -> Iterator[Samples]:
    """Reads a file, some samples at a time.

    Args:
        path: The file.
        read: Is told how many rows were read, and how many there are.

    Raises:
        ValueError: It has not these columns, or pyarrow is not installed.
    """
    arrow, parquet = _arrow()
    try:
        file = parquet.ParquetFile(path)
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet: {error}") from error
    with file:
        missing = {"time", *_NAMES, "value"} - set(file.schema_arrow.names)
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(sorted(missing))}: `ccms export` writes what is read here"
            )
        n_rows, n_read = file.metadata.num_rows, 0
        for batch in file.iter_batches(ROW_GROUP_SAMPLES, columns=["time", *_NAMES, "value"]):
            n_read += len(batch)
            yield _samples(arrow, path, batch)
            read(n_read, n_rows)


def _groups(runs: Iterable[Run], written: Callable[[int], None]) -> Iterator[list[Run]]:
    group: list[Run] = []
    n_samples = 0
    for run in runs:
        group.append(run)
        n_samples += len(run.values)
        written(len(run.values))
        if n_samples >= ROW_GROUP_SAMPLES:
            yield group
            group, n_samples = [], 0
    if group:
        yield group


def _table(arrow: Any, schema: Any, group: list[Run]) -> Any:  # noqa: ANN401  of pyarrow
    counts = [len(run.values) for run in group]
    columns = [arrow.array(np.concatenate([run.timestamps for run in group]), schema.field("time").type)]
    for name in _NAMES:
        numbers: dict[str, int] = {}
        codes = [numbers.setdefault(getattr(run.key, name), len(numbers)) for run in group]
        indices = arrow.array(np.repeat(np.array(codes, np.int32), counts))
        columns.append(arrow.DictionaryArray.from_arrays(indices, arrow.array(list(numbers), arrow.string())))
    columns.append(arrow.array(np.concatenate([run.values for run in group])))
    return arrow.table(columns, schema=schema)


def _samples(arrow: Any, path: Path, batch: Any) -> Samples:  # noqa: ANN401  of pyarrow
    """The samples of a batch of rows."""
    if any(batch.column(name).null_count for name in ("time", "cluster", "host", "metric")):
        raise ValueError(f"{path} has rows without time, cluster, host or metric: leave them out")
    codes = np.zeros(len(batch), np.int64)
    texts: list[list[str]] = []
    for name in _NAMES:
        column = batch.column(name)
        if not arrow.types.is_dictionary(column.type):
            column = column.cast(arrow.string()).dictionary_encode()
        known = column.dictionary.cast(arrow.string()).to_pylist()
        texts.append(["", *known])
        codes = codes * (len(known) + 1) + (column.indices.fill_null(-1).to_numpy(zero_copy_only=False) + 1)
    distinct, numbers = np.unique(codes, return_inverse=True)
    keys = [_key(int(code), texts) for code in distinct]
    times = batch.column("time").cast(arrow.timestamp("s"), safe=False).cast(arrow.int64())
    values = batch.column("value").cast(arrow.float64()).fill_null(float("nan"))
    return Samples(keys, numbers, times.to_numpy(zero_copy_only=False), values.to_numpy(zero_copy_only=False))


def _key(code: int, texts: list[list[str]]) -> SeriesKey:
    names: list[str] = []
    for known in reversed(texts):
        code, place = divmod(code, len(known))
        names.append(known[place] or "")
    metric, subcomponent, component, host, cluster = names
    return SeriesKey(metric, cluster, host, component, subcomponent)


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("Parquet needs pyarrow: pip install 'cc-metric-store[dataframe]'") from error
    return pyarrow, pyarrow.parquet
