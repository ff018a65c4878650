"""A store that is kept in a directory, without a server around it."""

import shutil
from contextlib import ExitStack

import numpy as np

from ccms_server.config import parse_config
from ccms_server.opening import open_disk
from ccms_server.store.tile_pool import TILE_BYTES
from helpers.server import config_text

FOREVER = 1 << 61


class DurableStore:
    """A recovered store, and what keeps it.

    Attributes:
        store: The store.
        keeper: Keeps it; both may be used on the calling thread only.
        damage: Damage found so far.
    """

    def __init__(self, directory, *, metrics, open_tiles=64, **sections):
        """Recovers what is in a directory.

        Args:
            directory: `checkpoints.directory`.
            metrics: Section of the configuration.
            open_tiles: Tiles that may be open at once.
            sections: Further sections, `archive` for one; with dashes, keys of `checkpoints`.
        """
        checkpoints = {key: sections.pop(key) for key in list(sections) if key in CHECKPOINT_KEYS}
        config = parse_config(
            config_text(metrics=metrics, checkpoints={"directory": str(directory), **checkpoints}, **sections)
        )
        self.directory = directory
        with ExitStack() as stack:
            self.store, self.keeper, recovery = open_disk(config, config.checkpoints, open_tiles * TILE_BYTES, stack)
            self.damage = self.keeper.damage
            for _ in recovery.run():
                pass
            self._stack = stack.pop_all()

    def append(self, series, timestamps, values, *, oldest, newest):
        """Stores samples durably; returns how many, and the outcome of each."""
        placed, outcome = self.store.place(series, timestamps, values, oldest=oldest, newest=newest)
        self.keeper.put([placed])
        return len(placed.series), outcome

    def write(self, metric, path, timestamps, values):
        """Stores samples of one series durably, as one record."""
        self.write_all([(metric, path, timestamps, values)])

    def write_all(self, writes):
        """Stores samples of several series durably, as one record; each write is like the arguments of `write`."""
        columns = [
            (self.series_id(metric, path), time, value)
            for metric, path, times, values in writes
            for time, value in zip(times, values, strict=True)
        ]
        series, timestamps, values = zip(*columns, strict=True)
        stored, _ = self.append(
            np.array(series, np.int32),
            np.array(timestamps, np.int64),
            np.array(values, float),
            oldest=-FOREVER,
            newest=FOREVER,
        )
        assert stored == len(columns)

    def series_id(self, metric, path):
        """The series of a metric, by its name."""
        return self.store.series_id(self.store.metric_id(metric), path)

    def answer(self, metric, path):
        """Start of the answer for all times, its values, and the number of series that made it."""
        metric_id = self.store.metric_id(metric)
        reader, table = self.store.reader(), self.store.tables[metric_id]
        span = reader.span(table, self.store.group(metric_id, path), -FOREVER, FOREVER)
        host = self.store.tree.find(path) if len(path) == 2 else None
        return span.start, reader.values(table, span, host), len(span.members)

    def samples(self, metric, path):
        """What a level answers for all times, by time."""
        start, values, _ = self.answer(metric, path)
        interval = self.store.tables[self.store.metric_id(metric)].metric.interval
        return {start + interval * at: value for at, value in enumerate(values.tolist()) if value == value}

    def paths(self, metric):
        """Paths of all series of a metric."""
        metric_id = self.store.metric_id(metric)
        found, todo = [], [((), self.store.tree.root)]
        while todo:
            path, level = todo.pop()
            todo += [((*path, name), child) for name, child in level.children.items()]
            if metric_id in level.series:
                found.append(path)
        return sorted(found)

    def held(self):
        """What every series answers, by metric and path; series without samples are left out."""
        names = self.store._metric_ids
        all_samples = {(metric, path): self.samples(metric, path) for metric in names for path in self.paths(metric)}
        return {key: samples for key, samples in all_samples.items() if samples}

    def settle(self, oldest=-(1 << 61)):
        """Maintains the store until nothing is left to do."""
        while True:
            for _ in self.keeper.maintain(oldest):
                pass
            if self.keeper.is_idle:
                return
            self.keeper.wait()

    def seal_and_store(self):
        """Brings everything into blocks."""
        self.store.seal_all()
        self.settle()

    def close(self):
        """Ends as a server that is told to stop does."""
        self.keeper.close()
        self._stack.close()

    def killed(self, directory):
        """What a process that is killed leaves behind, in another directory; what it was writing is written."""
        self.keeper.wait()
        shutil.copytree(self.directory, directory)
        return directory


CHECKPOINT_KEYS = {"interval", "restore", "sync", "wal-bytes", "max-wal-size", "retention"}
