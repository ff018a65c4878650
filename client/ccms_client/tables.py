"""Series as tables of pandas and Arrow, which are imported when first used: most programs need neither."""

import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ccms_client.series import Series

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_NAMES: Final = ("metric", "host", "component", "subcomponent")


def wide_frame(series: Iterable[Series]) -> "pd.DataFrame":
    """See `QueryResult.to_pandas`."""
    pandas = _library("pandas")
    answered = _answered(series)
    timestamps = [each.timestamps for each in answered]
    rows = np.unique(np.concatenate(timestamps)) if answered else np.empty(0, np.int64)
    values = np.full((len(rows), len(answered)), np.nan, order="F")
    for column, (each, times) in enumerate(zip(answered, timestamps, strict=True)):
        values[np.searchsorted(rows, times), column] = each.values
    index = pandas.DatetimeIndex(rows.astype("datetime64[s]"), tz="UTC", name="time")
    columns = pandas.MultiIndex.from_arrays(
        [[getattr(each, name) for each in answered] for name in _NAMES], names=_NAMES
    )
    frame: pd.DataFrame = pandas.DataFrame(values, index=index, columns=columns)
    return frame


def tidy_frame(series: Iterable[Series]) -> "pd.DataFrame":
    """See `QueryResult.to_pandas`."""
    _library("pandas")
    frame: pd.DataFrame = arrow_table(series).to_pandas()
    return frame


def arrow_table(series: Iterable[Series]) -> "pa.Table":
    """See `QueryResult.to_arrow`."""
    arrow = _library("pyarrow")
    answered = _answered(series)
    stored = [~np.isnan(each.values) for each in answered]
    counts = [int(kept.sum()) for kept in stored]
    times = [each.timestamps[kept] for each, kept in zip(answered, stored, strict=True)]
    values = [each.values[kept] for each, kept in zip(answered, stored, strict=True)]
    return arrow.table(
        {
            "time": arrow.array(_joined(times, np.int64), arrow.timestamp("s", tz="UTC")),
            **{name: _repeated([getattr(each, name) for each in answered], counts) for name in _NAMES},
            "value": arrow.array(_joined(values, np.float64)),
        }
    )


def _repeated(names: Sequence[str], counts: Sequence[int]) -> "pa.DictionaryArray":
    """A column with the name of each series as often as it has samples."""
    arrow = _library("pyarrow")
    dictionary, codes = np.unique(np.array(names, dtype=object), return_inverse=True)
    numbers = np.repeat(codes.astype(np.int32), counts)
    return arrow.DictionaryArray.from_arrays(numbers, arrow.array(dictionary, arrow.string()))


def _joined(arrays: Sequence[np.ndarray[Any, Any]], dtype: type) -> np.ndarray[Any, Any]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def _answered(series: Iterable[Series]) -> list[Series]:
    return [each for each in series if each.error is None]


def _library(name: str) -> Any:  # noqa: ANN401  a module
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"tables need {name}, which is not installed: pip install 'cc-metric-store[dataframe]'", name=name
        ) from error
