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
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def faults_of_an_answer():
    before = faults()
    answer()
    return faults() - before
print(min(faults_of_an_answer() for _ in range(10)))
"""


def test_answers_one_after_another_use_the_same_memory():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    # The fewest of ten: a machine short of memory may take some pages away between two answers.
    assert int(done.stdout) < 10, "pages that had to be asked for again; an answer has more than 1,300"
