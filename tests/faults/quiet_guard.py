"""Run a command where it cannot reach another machine, in an empty home folder, and see what it tried.

The guard (`quiet_guard.c`) is compiled when it is needed and loaded before the command's own libraries, those
of its children included: what is written in C++ passes Python's sockets by.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("quiet_guard.c")
PACKAGE = Path(__file__).resolve().parents[2] / "src"
OWN = ".cache/tracklearn"  # what store/cache.py names, below a home folder without further variables
# Where libraries look for permission, for their folders, and for a way out; on a server for continuous
# integration they are silent by themselves.
_FORGET = (
    "CI", "TF_BUILD", "GITHUB_", "GITLAB_", "TRAVIS", "JENKINS", "BUILD", "TEAMCITY", "APPVEYOR", "CODEBUILD",
    "ORT_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "OPENVINO_", "RAY_", "DO_NOT_TRACK", "DISABLE_TELEMETRY",
    "XDG_", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "TORCH_HOME", "TRACKLEARN_", "http", "HTTP", "all_proxy",
    "ALL_PROXY", "DISABLE_SAFETENSORS",
)  # fmt: skip


def unable() -> str:
    """Why there can be no guard here; empty where there can."""
    if sys.platform != "linux":
        return f"the guard is preloaded, as Linux does it, not {sys.platform}"
    return "" if shutil.which("gcc") else "the guard is compiled by gcc, which is not here"


def build(folder: Path) -> Path:
    """Compile the guard into `folder`."""
    library = folder / "quiet_guard.so"
    # _FORTIFY_SOURCE would put names of its own in the place of some of these functions.
    command = ["gcc", "-shared", "-fPIC", "-O1", "-U_FORTIFY_SOURCE", "-Wall", "-o", library, SOURCE, "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


@dataclass(frozen=True)
class Heard:
    """What a command did.

    Args:
        code: its exit code.
        reached: look-ups and packets it tried, each once, in order.
        files: what it left in its home folder, outside the program's own cache folder.
        output: its standard output and standard error.
    """

    code: int
    reached: list[str]
    files: list[str]
    output: str

    @property
    def quiet(self) -> bool:
        return not self.reached and not self.files


def listen(
    command: Sequence[str | os.PathLike[str]],
    guard: Path,
    folder: Path,
    *,
    variables: Mapping[str, str] | None = None,
    package: Path = PACKAGE,
    timeout: float = 1200,
) -> Heard:
    """Run `command` in the empty folder `folder`, in which its home and its temporary files lie too.

    Args:
        command: the program and its arguments.
        guard: what `build` gave.
        folder: not there yet.
        variables: set for it.
        package: folder of the sources to run.
        timeout: seconds.
    """
    home, work, spare = folder / "home", folder / "work", folder / "tmp"
    for path in (home, work, spare):
        path.mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_FORGET)}
    environment |= {
        "HOME": str(home),
        "TMPDIR": str(spare),
        "PYTHONPATH": str(package),
        "LD_PRELOAD": str(guard),
        "QUIET_LOG": str(folder / "reached"),
        **(variables or {}),
    }
    done = subprocess.run(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout
    )
    log = folder / "reached"
    reached = log.read_text().splitlines() if log.is_file() else []
    ends = (path for path in sorted(home.rglob("*")) if not path.is_dir() or not any(path.iterdir()))
    files = [str(path.relative_to(home)) for path in ends]
    return Heard(
        done.returncode,
        list(dict.fromkeys(reached)),
        [file for file in files if not (file + "/").startswith(OWN + "/")],
        (done.stdout + done.stderr).decode(errors="replace"),
    )
