"""Functions that Numba compiles."""

import pickle
from collections.abc import Callable
from typing import Any

from paddle_rt.errors import UserError


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Return a decorator that compiles a function at its first call and stores the machine code on disk.

    It is stored in $NUMBA_CACHE_DIR, or in __pycache__ beside the function's file, or in the user's cache folder. Where
    none of them is writable, every process compiles again. Compiled functions release the GIL, so that ordinary threads
    run them in parallel, and divide as NumPy does.

    Args:
        **options: What else `numba.njit` takes.
    """
    import numba  # here, since it takes a third of a second, and importing this module must not

    options = {"nogil": True, "error_model": "numpy", **options}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return decorate


def call_kernel(run: Callable, *arguments: Any) -> Any:
    """Call a compiled function, which compiles it or loads it from Numba's cache if that has not been done yet.

    Raises:
        UserError: Numba's cache cannot be read or written.
    """
    try:
        return run(*arguments)
    except (OSError, EOFError, pickle.PickleError) as error:
        raise UserError(
            f"Numba's cache in {run.stats.cache_path} cannot be read or written ({error}); delete it, or set "
            "NUMBA_CACHE_DIR to another folder"
        ) from error
