"""Where machine code is kept; each case is a process of its own, because numba reads its settings once."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ccms_server
import ccms_server.warm_up  # which needs all kernels
from ccms_server import jit

REPORT = "import numba, ccms_server.jit; print(numba.config.CACHE_DIR)"


@pytest.fixture
def copy(tmp_path):
    """A copy of the server's sources, to change."""
    source = Path(ccms_server.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(source, tmp_path / "site" / "ccms_server", ignore=ignored))


def cache_folder(copy, **environment):
    return Path(printed(copy, REPORT, **environment))


def printed(copy, source, **environment):
    variables = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=variables | {"PYTHONPATH": str(copy.parent)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_machine_code_lies_beside_the_sources(copy):
    folder = cache_folder(copy)
    assert folder.parent == copy / "__pycache__"
    assert folder.is_dir()


def test_a_changed_constant_makes_all_kernels_compile_again(copy):
    before = cache_folder(copy)
    layout = copy / "store" / "layout.py"
    layout.write_text(layout.read_text().replace("WINDOW_BITS: Final = 8", "WINDOW_BITS: Final = 9"))
    after = cache_folder(copy)
    assert after != before
    assert after.is_dir()
    assert not before.exists(), "what no source matches is thrown away"


def test_a_read_only_installation_uses_the_users_cache(copy, tmp_path):
    (copy / "__pycache__").touch()  # no folder can be made here, not even by root
    folder = cache_folder(copy, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert folder.parent == tmp_path / "cache" / "cc-metric-store"


def test_the_operator_decides_if_he_wants_to(copy, tmp_path):
    folder = cache_folder(copy, NUMBA_CACHE_DIR=str(tmp_path / "given"))
    assert folder.parent == tmp_path / "given"
    assert not list((copy / "__pycache__").glob("kernels-*"))


def test_where_he_decides_for_no_folder_nothing_is_kept(copy, tmp_path):
    (tmp_path / "file").touch()
    report = "import ccms_server.jit; print(ccms_server.jit.IS_KEPT)"
    assert printed(copy, report, NUMBA_CACHE_DIR=str(tmp_path / "file")) == "False"


def test_all_that_kernels_are_made_of_counts():
    """The module of each kernel, and whatever of the server that imports."""
    package = Path(ccms_server.__file__).parent
    pending = {Path(kernel.py_func.__code__.co_filename) for kernel in jit._kernels}
    referred = set()
    while pending:
        path = pending.pop()
        referred.add(path)
        pending |= {package.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in imported(path)} - referred
    assert len(referred) > 10
    assert referred <= jit.SOURCES


def imported(path):
    """Modules of the server that one of its modules imports."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {node.module for node in nodes if node.module.startswith("ccms_server.")}


def test_a_kernel_elsewhere_cannot_be_kept(monkeypatch):
    monkeypatch.setattr(jit, "IS_KEPT", True)
    with pytest.raises(AssertionError, match=r"would outlive changes of .*test_jit\.py"):
        jit.kernel(doubled)


def doubled(values):
    return values * 2


@pytest.fixture
def new_kernel(monkeypatch):
    """A kernel that was never compiled, and never will be kept."""
    monkeypatch.setattr(jit, "IS_KEPT", False)
    monkeypatch.setattr(jit, "_kernels", [])
    return jit.kernel(doubled)


def test_a_kernel_that_is_not_there_can_be_refused(new_kernel):
    with jit.refusing_to_compile(), pytest.raises(jit.NotKeptError, match="doubled"):
        new_kernel(np.ones(2))
    assert new_kernel(np.ones(2)).tolist() == [2, 2], "it is compiled as soon as it may be"


def test_a_kernel_that_is_there_is_never_refused(new_kernel):
    new_kernel(np.ones(2))
    with jit.refusing_to_compile():
        assert new_kernel(np.ones(3)).tolist() == [2, 2, 2]
        with pytest.raises(jit.NotKeptError):
            new_kernel(np.ones((2, 2)))


def test_what_is_compiled_is_told(new_kernel):
    told = []
    with jit.telling_what_is_compiled(told.append):
        new_kernel(np.ones(2))
        new_kernel(np.ones(2))
    new_kernel(np.ones((2, 2)))
    assert told == [f"{__name__}.doubled"]
    assert jit.number_of_kernels() == 1
