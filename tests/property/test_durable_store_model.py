"""A store in a directory and a dict, driven side by side: also through restarts and kills, both answer the same."""

import tempfile
from pathlib import Path

from helpers.durable import DurableStore
from helpers.store_model import FOREVER, INTERVAL, StoreAgainstModel
from hypothesis import settings
from hypothesis.stateful import rule

from ccms_server.durability import wal

METRICS = {"m": {"frequency": INTERVAL, "aggregation": "sum"}}


class DurableStoreAgainstModel(StoreAgainstModel):
    def new_store(self):
        self.written_ahead, wal.RESERVED_BYTES = wal.RESERVED_BYTES, 64  # so that records go beyond it
        self.scratch = tempfile.TemporaryDirectory()
        self.open(Path(self.scratch.name) / "0")
        return self.durable.store

    def open(self, directory):
        self.durable = DurableStore(directory, metrics=METRICS, open_tiles=16, **{"wal-bytes": 1 << 20})
        self.store = self.durable.store
        assert self.durable.damage.count == 0

    def put(self, *columns, oldest):
        return self.durable.append(*columns, oldest=oldest, newest=FOREVER)

    def drop(self, path, before):
        self.durable.keeper.free(path, before)

    def maintain(self):
        return self.durable.keeper.maintain(self.oldest)

    @rule()
    def write_blocks(self):
        self.durable.settle(self.oldest)

    @rule()
    def seal_and_write_blocks(self):
        self.store.seal_all()
        self.durable.settle(self.oldest)

    @rule()
    def write_open_windows(self):
        for _ in self.durable.keeper.write_early(self.store.log_number + 1):
            pass
        self.durable.settle(self.oldest)

    @rule()
    def take_up_what_was_written_meanwhile(self):
        self.durable.keeper.wait()

    @rule()
    def restart(self):
        self.durable.close()
        self.open(self.durable.directory)

    @rule()
    def kill(self):
        left = self.durable.killed(self.durable.directory.with_name(str(int(self.durable.directory.name) + 1)))
        self.durable.close()
        self.open(left)

    def teardown(self):
        wal.RESERVED_BYTES = self.written_ahead
        self.durable.close()
        self.scratch.cleanup()


DurableStoreAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestDurableStoreAgainstModel = DurableStoreAgainstModel.TestCase
