"""How kernels are compiled: once per machine where they can be kept, else once in every process."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from numba import njit

Function = Callable[..., Any]

_told = False


def kernel(**options: Any) -> Callable[[Function], Any]:
    """numba's `njit` with the interpreter lock released, kept on disk where there is a place for it.

    numba keeps what it compiles beside the package, in the user's cache folder, or where NUMBA_CACHE_DIR
    says. In a container none of them may be writable, or the disk may be full: then it is compiled anew by
    every process, which one warning says.

    Args:
        options: further options of `njit`.
    """

    def compiled(function: Function) -> Any:
        try:
            made = njit(cache=True, nogil=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            _tell("there is no folder that can be written to")
            return njit(nogil=True, **options)(function)
        made._cache = _Forgiving(made._cache)
        return made

    return compiled


class _Forgiving:
    """A function's cache that goes without what cannot be saved or read."""

    def __init__(self, cache: Any) -> None:
        self._of = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return self._of.load_overload(*arguments)
        except OSError as error:
            _tell(f"{self._of.cache_path}: {error.strerror or error}")
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            self._of.save_overload(*arguments)
        except OSError as error:
            _tell(f"{self._of.cache_path}: {error.strerror or error}")


def _tell(why: str) -> None:
    global _told
    if not _told:
        _told = True
        warnings.warn(
            f"compiled kernels cannot be kept ({why}), so every call takes seconds longer: name a folder for "
            "them in NUMBA_CACHE_DIR",
            RuntimeWarning,
            stacklevel=2,
        )
