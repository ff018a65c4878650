"""The answer to a query: its series, alone or as a table."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, overload

from ccms_client.errors import SeriesUnansweredError
from ccms_client.series import Series

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class QueryResult(Sequence[Series]):
    """The series of an answer, in the order asked for.

    Those that could not be answered are among them, with an `error`; tables leave them out.
    """

    def __init__(self, series: Iterable[Series]) -> None:
        self._series = tuple(series)

    def __len__(self) -> int:
        return len(self._series)

    @overload
    def __getitem__(self, index: int) -> Series: ...
    @overload
    def __getitem__(self, index: slice) -> "QueryResult": ...
    def __getitem__(self, index: int | slice) -> "Series | QueryResult":
        return QueryResult(self._series[index]) if isinstance(index, slice) else self._series[index]

    def __repr__(self) -> str:
        n_values = sum(series.values.size for series in self)
        return f"<QueryResult: {len(self)} series, {n_values:,} values, {len(self.failed)} errors>"

    @property
    def failed(self) -> list[Series]:
        """Series that could not be answered."""
        return [series for series in self if series.error is not None]

    def raise_for_errors(self) -> None:
        """Does nothing if every series was answered.

        Raises:
            SeriesUnansweredError: Some were not; it says which and why.
        """
        messages = [series.error.message for series in self if series.error is not None]
        if messages:
            raise SeriesUnansweredError(messages, len(self))

    def to_pandas(self, *, tidy: bool = False) -> "pd.DataFrame":
        """The values as a data frame of pandas; needs `pip install 'cc-metric-store[dataframe]'`.

        Args:
            tidy: False: a row for each time (a `DatetimeIndex` in UTC) and a column for each series, named by metric,
                host, component and sub-component; NaN where no sample is stored. True: a row for each sample, with the
                columns `time`, `metric`, `host`, `component`, `subcomponent` and `value`.

        Raises:
            ImportError: pandas is not installed, or for `tidy`, pyarrow.
        """
        from ccms_client.tables import tidy_frame, wide_frame

        return tidy_frame(self) if tidy else wide_frame(self)

    def to_arrow(self) -> "pa.Table":
        """The samples as a table of Arrow, a row for each; needs `pip install 'cc-metric-store[dataframe]'`.

        The columns are `time` (seconds, UTC), `metric`, `host`, `component`, `subcomponent` (text, empty for none, each
        held once in a dictionary) and `value`.

        Raises:
            ImportError: pyarrow is not installed.
        """
        from ccms_client.tables import arrow_table

        return arrow_table(self)
