"""A store that is kept in a directory, without a server around it."""

import shutil
from contextlib import ExitStack

from ccms_server.config import parse_config
from ccms_server.durability.opening import open_disk
from ccms_server.store.tile_pool import TILE_BYTES
from helpers.server import config_text


class DurableStore:
    """A recovered store, and what keeps it.

    Attributes:
        store: The store.
        keeper: Keeps it; both may be used on the calling thread only.
        damage: Damage found so far.
    """

    def __init__(self, directory, *, metrics, open_tiles=64, archive=None, **checkpoints):
        sections = {} if archive is None else {"archive": archive}
        config = parse_config(
            config_text(metrics=metrics, checkpoints={"directory": str(directory), **checkpoints}, **sections)
        )
        self.directory = directory
        self._stack = ExitStack()
        self.store, self.keeper, recovery = open_disk(config, config.checkpoints, open_tiles * TILE_BYTES, self._stack)
        self.damage = self.keeper.damage
        for _ in recovery.run():
            pass

    def append(self, series, timestamps, values, *, oldest, newest):
        """Stores samples durably; returns how many, and the outcome of each."""
        placed, outcome = self.store.place(series, timestamps, values, oldest=oldest, newest=newest)
        self.keeper.put([placed])
        return len(placed.series), outcome

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
