"""The one way a kernel is compiled here: without the GIL, and kept on disk for the next start."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compiles a function over plain arrays and numbers with numba.

    The machine code is cached beside the module, or in the user's cache directory where that cannot be written: only
    the very first start compiles. Division follows numpy: no exception for a zero divisor.
    """
    return cast("Function", numba.njit(nogil=True, cache=True, error_model="numpy")(function))
