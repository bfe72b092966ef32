"""How this program starts a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def own(module: str, arguments: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The command that runs a module of this package in a fresh interpreter, and its environment.

    Modules lie where this process has them, and never in the current folder (-P).
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    return command, {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
