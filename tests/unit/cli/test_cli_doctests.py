"""What the docstrings of the command line show is true."""

import doctest
import importlib
import pkgutil

import pytest

import ccms_cli

MODULES = sorted(module.name for module in pkgutil.iter_modules(ccms_cli.__path__) if module.name != "__main__")


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [
        test for name in MODULES for test in finder.find(importlib.import_module(f"ccms_cli.{name}")) if test.examples
    ]
    assert len(found) >= 8


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name):
    assert doctest.testmod(importlib.import_module(f"ccms_cli.{name}")).failed == 0
