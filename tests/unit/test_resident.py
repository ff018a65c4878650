"""Pages that are given back: those of libraries that were loaded before, and only unchanged ones."""

import subprocess
import sys

import pytest

from ccms_server.resident import unchanged_mappings

LIBRARY = "fe:00 7 /usr/lib/with a blank/lib.so"


def mapping(addresses="10000-12000", rights="r-xp", file=LIBRARY, anonymous=0, swap=0):
    return f"""\
{addresses} {rights} 00002000 {file}
Size:                  8 kB
Rss:                   8 kB
Anonymous:      {anonymous:8} kB
AnonHugePages:         0 kB
Swap:           {swap:8} kB
SwapPss:               0 kB
VmFlags: rd mr mw me
"""


def found(*mappings):
    smaps = "".join(mappings).splitlines()
    return list(unchanged_mappings(smaps, smaps))


def test_unchanged_pages_of_libraries_are_found():
    code = mapping("10000-12000", "r-xp")
    constants = mapping("12000-15000", "r--p")
    removed = mapping("1b000-1c000", file=f"{LIBRARY} (deleted)")
    assert found(code, constants, removed) == [(0x10000, 0x2000), (0x12000, 0x3000), (0x1B000, 0x1000)]


@pytest.mark.parametrize(
    "changed",
    [
        {"anonymous": 4},  # relocated, or with a breakpoint
        {"swap": 4},  # the same, while it is swapped out
        {"anonymous": 4, "swap": 4},
        {"rights": "rw-p"},
        {"rights": "r--s"},
        {"file": "00:00 0"},
        {"file": "00:00 0                                  [vvar]"},
    ],
)
def test_all_other_pages_are_left_alone(changed):
    assert found(mapping(**changed), mapping("20000-21000")) == [(0x20000, 0x1000)]


def test_a_library_that_is_being_loaded_is_left_alone():
    smaps = (mapping() + mapping("20000-21000")).splitlines()
    before = [line for line in smaps if not line.startswith("10000")]
    assert list(unchanged_mappings(smaps, before)) == [(0x20000, 0x1000)]


def test_pages_that_may_be_swapped_out_are_left_alone():
    """A kernel may not tell."""
    untold = mapping().replace("Swap:", "Other:")
    assert found(untold, mapping("20000-21000")) == [(0x20000, 0x1000)]


GIVE_BACK = """
import ctypes, re
import numpy as np
import ccms_server.warm_up
from ccms_server import jit
from ccms_server.resident import LOADED, SMAPS, give_back_libraries, unchanged_mappings

jit.IS_KEPT = False

@jit.kernel
def doubled(values):
    return values * 2

def compiler_bytes(field):
    told = re.findall(rf"/\\S*libllvmlite\\S*\\n(?:\\S+:.*\\n)*?{field}: +([0-9]+) kB", SMAPS.read_text())
    assert told
    return 1024 * sum(map(int, told))

doubled(np.ones(2))
for begin, size in unchanged_mappings(SMAPS.read_text().splitlines(), LOADED):
    ctypes.string_at(begin, size)  # all of it is in memory now, unless there is none left
give_back_libraries()
print(compiler_bytes("Rss"), compiler_bytes("Size"))
assert doubled(np.ones(2)).tolist() == [2, 2]
assert doubled(np.ones((1, 1))).tolist() == [[2]], "it still compiles"
"""


def test_the_compiler_is_given_back_and_works_after_all():
    printed = subprocess.run([sys.executable, "-c", GIVE_BACK], capture_output=True, text=True, timeout=60, check=True)
    resident, size = map(int, printed.stdout.split())
    assert resident < size / 5
