"""A catalog of metrics and series without a store."""

from collections.abc import Iterable

import numpy as np


class DictCatalog:
    """Numbers metrics in the order given, and series in the order of registration.

    Attributes:
        series: What is registered: the metric and path of each series, in order of their numbers.
    """

    def __init__(self, metrics: Iterable[str], series_max: int | None = None) -> None:
        self._metrics = {name: number for number, name in enumerate(metrics)}
        self._series_max = series_max
        self.series: dict[tuple[int, tuple[str, ...]], int] = {}

    def metric_id(self, name: str) -> int | None:
        return self._metrics.get(name)

    def series_id(self, metric_id: int, path: tuple[str, ...]) -> int | None:
        assert 2 <= len(path) <= 4, path
        assert all(path), path
        known = self.series.get((metric_id, path))
        if known is None and (self._series_max is None or len(self.series) < self._series_max):
            known = self.series[metric_id, path] = len(self.series)
        return known

    @property
    def series_free(self) -> int:
        return 1 << 30 if self._series_max is None else self._series_max - len(self.series)

    def host_series(self, cluster, host, below_host):
        assert len(below_host) <= self.series_free
        return np.array(
            [self.series_id(metric_id, (cluster, host, *below)) for metric_id, below in below_host], np.int32
        )
