"""Getting kernels ready where their machine code cannot be kept; a process of its own, which may write little."""

import os
import subprocess
import sys

WARM_UP = """
import resource
import numpy as np
from ccms_server import jit, warm_up

@jit.kernel
def doubled(values):
    return values * 2

used = []
warm_up._use_all = lambda: used.append(doubled(np.ones(2)).tolist())
warm_up.compile_in_processes = lambda modules: None
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
warm_up.warm_up()
print(used)
"""


def test_a_full_disk_makes_the_start_slower_and_is_told(tmp_path):
    script = tmp_path / "script.py"  # numba keeps nothing of what lies in no file
    script.write_text(WARM_UP)
    command = [sys.executable, str(script)]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[[2.0, 2.0]]\n"
    assert "every start will compile, as machine code cannot be kept: File too large" in done.stderr
