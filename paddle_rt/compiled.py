"""Functions that Numba compiles."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Return a decorator that compiles a function at its first call and stores the machine code on disk.

    It is stored in $NUMBA_CACHE_DIR, or in __pycache__ beside the function's file, or in the user's cache folder. Where
    none of them is writable, every process compiles again. Compiled functions release the GIL, so that ordinary threads
    run them in parallel, and divide as NumPy does.

    Args:
        **options: What else `numba.njit` takes.
    """
    options = {"nogil": True, "error_model": "numpy", **options}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return decorate
