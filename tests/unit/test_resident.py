"""Pages that are given back: those of the compiler's file only, and only unchanged ones."""

import subprocess
import sys

import pytest

from ccms_server.resident import SMAPS, unchanged_mappings

MAPPINGS = """\
10000-12000 r--p 00000000 fe:00 7 /usr/lib/with a blank/libllvmlite.so
Size:                  8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
12000-15000 r-xp 00002000 fe:00 7 /usr/lib/with a blank/libllvmlite.so
Rss:                   8 kB
Swap:                  0 kB
Anonymous:             0 kB
15000-16000 r-xp 00005000 fe:00 7 /usr/lib/breakpoint/libllvmlite.so
Anonymous:             4 kB
Swap:                  0 kB
16000-17000 r--p 00005000 fe:00 7 /usr/lib/relocated-and-swapped-out/libllvmlite.so
Anonymous:             0 kB
Swap:                  4 kB
17000-18000 rw-p 00006000 fe:00 7 /usr/lib/data/libllvmlite.so
Anonymous:             0 kB
Swap:                  0 kB
18000-19000 r--s 00006000 fe:00 9 /store/libllvmlite.so
Anonymous:             0 kB
Swap:                  0 kB
19000-1a000 r--p 00000000 00:00 0
Anonymous:             0 kB
Swap:                  0 kB
1a000-1b000 r-xp 00000000 fe:00 7 /usr/lib/libllvmlite/other.so
Anonymous:             0 kB
Swap:                  0 kB
1b000-1c000 r--p 00000000 fe:00 7 /usr/lib/libllvmlite-1.so (deleted)
Anonymous:             0 kB
Swap:                  0 kB
1c000-1d000 r--p 00000000 fe:00 7 /usr/lib/unknown/libllvmlite.so
Anonymous:             0 kB
"""

GIVE_BACK = """
import re
import numpy as np
import ccms_server.warm_up
from ccms_server import jit
from ccms_server.resident import SMAPS, give_back_compiler

jit.IS_KEPT = False

@jit.kernel
def doubled(values):
    return values * 2

def compiler_bytes():
    heads = re.findall(r"/\\S*libllvmlite\\S*\\n(?:\\S+:.*\\n)*?Rss: +([0-9]+) kB", SMAPS.read_text())
    assert heads
    return 1024 * sum(map(int, heads))

doubled(np.ones(2))
before = compiler_bytes()
give_back_compiler()
after = compiler_bytes()
assert doubled(np.ones(2)).tolist() == [2, 2]
assert doubled(np.ones((1, 1))).tolist() == [[2]], "it still compiles"
print(before, after)
"""


def test_only_unchanged_pages_of_the_compiler_that_cannot_be_written_are_found():
    assert list(unchanged_mappings(MAPPINGS.splitlines())) == [(0x10000, 0x2000), (0x12000, 0x3000), (0x1B000, 0x1000)]


@pytest.mark.skipif(not SMAPS.exists(), reason="only Linux tells of mappings")
def test_the_compiler_is_given_back_and_works_after_all():
    printed = subprocess.run([sys.executable, "-c", GIVE_BACK], capture_output=True, text=True, timeout=60, check=True)
    before, after = map(int, printed.stdout.split())
    assert after < before / 5
