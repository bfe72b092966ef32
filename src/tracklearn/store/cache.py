"""The one folder below the user's home that this program writes to, and what it keeps out of the rest."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from tracklearn.types import Refusal

_PACKAGE = Path(__file__).resolve().parent.parent


def cache_folder() -> Path:
    """Folder of downloaded files: `$TRACKLEARN_CACHE`, otherwise the platform's cache folder.

    Raises:
        ValueError: the user has no home folder and named no other.
    """
    chosen = os.environ.get("TRACKLEARN_CACHE")
    if chosen:
        return Path(os.path.expanduser(chosen))
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else _home() / "AppData" / "Local") / "tracklearn" / "Cache"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "tracklearn"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "tracklearn"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user of a container whom no table knows, without HOME
        raise Refusal(
            "there is no home folder to keep downloaded files in: name a folder in TRACKLEARN_CACHE"
        ) from None


def keep_home_clean(package: Path = _PACKAGE) -> None:
    """Send what libraries would write elsewhere below the home folder into `cache_folder()`.

    They look when they are imported, which is later. What the user has set stays, and where there is no such
    folder, and none can be made, nothing is said: they then do without. Only for a process that is
    ours, not for a program that imports the package: matplotlib then reads no settings of the user's either.

    Args:
        package: folder of this package; numba keeps compiled kernels there where it may write.
    """
    folders = {"MPLCONFIGDIR": "matplotlib"}
    if not os.access(package / "core" / "kernels", os.W_OK):
        folders["NUMBA_CACHE_DIR"] = "numba"
    try:
        cache = cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError):
        # Matplotlib then takes a folder that it removes, with a remark about its own speed.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        return
    for variable, name in folders.items():
        os.environ.setdefault(variable, str(cache / name))
