"""What the allocator keeps; in a process of its own, because it is a setting of the process."""

import subprocess
import sys

SCRIPT = """
import resource
import numpy as np
from ccms_server.allocator import keep_freed_memory

assert keep_freed_memory()
def answer():
    pieces = [np.ones(190_000), np.ones(2 << 20, np.uint8)]
    pieces.append(pieces[1].tobytes())
for _ in range(3):
    answer()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    answer()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_answers_one_after_another_use_the_same_memory():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100, "pages that had to be asked for again; an answer has more than 1,300"
