"""The server, whose recovery waits in its middle: `python -m helpers.held_recovery GO_ON -config FILE`.

It goes on once the file GO_ON exists.
"""

import logging
import sys
import time
from pathlib import Path

from ccms_server.__main__ import main
from ccms_server.durability.recovery import Recovery

logger = logging.getLogger("ccms_server.held")


def held(run, go_on):
    """A recovery that does nothing between two of its pieces, but can be ended there."""

    def run_held(self):
        pieces = run(self)
        yield next(pieces)
        logger.info("recovery is held")
        while not go_on.exists():
            time.sleep(0.005)
            yield
        yield from pieces

    return run_held


if __name__ == "__main__":
    Recovery.run = held(Recovery.run, Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
