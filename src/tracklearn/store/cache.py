"""The one folder below the user's home that this program writes to, and what it keeps out of the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def cache_folder() -> Path:
    """Folder of downloaded files: `$TRACKLEARN_CACHE`, otherwise the platform's cache folder."""
    chosen = os.environ.get("TRACKLEARN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "tracklearn" / "Cache"
        )
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tracklearn"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracklearn"


def keep_home_clean(package: Path = _PACKAGE) -> None:
    """Send what libraries would write elsewhere below the home folder into `cache_folder()`.

    They look when they are imported, which is later. What the user has set stays. Only for a process that is
    ours, not for a program that imports the package: matplotlib then reads no settings of the user's either.

    Args:
        package: folder of this package; numba keeps compiled kernels there where it may write.
    """
    folders = {"MPLCONFIGDIR": "matplotlib"}
    if not os.access(package / "core" / "kernels", os.W_OK):
        folders["NUMBA_CACHE_DIR"] = "numba"
    for variable, name in folders.items():
        os.environ.setdefault(variable, str(cache_folder() / name))
