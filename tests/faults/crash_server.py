"""Command lines in forked children of one process that has everything imported, broken at a chosen call.

`Server` compiles the shim, starts the process with it and hands it one command line after the other.
Importing torch costs seconds and there are thousands of cases, hence the fork.

The clock of the children stands still, and it is always the same day: times are all that differs between
two runs of one command, and so nothing does.
"""

from __future__ import annotations

import ctypes
import datetime
import errno
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COUNT, KILL, KILL_HALF, FAIL_ONCE, FAIL_FROM, SHORT = range(6)
SHIM = Path(__file__).with_name("crash_shim.c")
LONGEST = 200  # seconds after which a child that hangs is stopped, which then counts as a failure

_PRELOAD = [
    "tracklearn.app.cli",
    "tracklearn.app.api",
    "tracklearn.app.judge.benchmark",
    "tracklearn.app.judge.datasets",
    "tracklearn.app.demo.run",
    "tracklearn.app.judge.rates",
    "tracklearn.app.report.charts",
    "tracklearn.app.model.open",
    "tracklearn.app.noise.measure",
    "tracklearn.app.pipeline.run",
    "tracklearn.app.report.page",
    "tracklearn.app.search.searcher",
    "tracklearn.app.report.sections",
    "tracklearn.app.pipeline.training",
    "tracklearn.learn.embed",
    "tracklearn.learn.train",
    "tracklearn.learn.methods.tmc",
    "tracklearn.learn.methods.mmt",
    "tracklearn.learn.methods.uga",
    "tracklearn.learn.methods.msplr",
    "tracklearn.learn.methods.cap",
    "tracklearn.store.benchmarks",
    "tracklearn.store.gallery.folder",
    "tracklearn.store.ingest.ingest",
    "tracklearn.store.sets.referenced",
    "tracklearn.store.film.track",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "sklearn.manifold",
    "sklearn.cluster",
    "scipy.sparse.csgraph",
    "jinja2",
    "rich.progress",
    "safetensors.numpy",
]


def why_not() -> str:
    """Why the shim cannot be used here; empty where it can."""
    if not sys.platform.startswith("linux") or not os.path.isdir("/proc/self/fd"):
        return "breaking the n-th call needs Linux"
    return "" if shutil.which("gcc") else "breaking the n-th call needs gcc"


@dataclass(frozen=True)
class Outcome:
    """How a child ended: exit code (negative: the signal that ended it), and what it said."""

    code: int
    out: str
    err: str
    calls: int  # counted by the shim; -1 where the child was killed


class Server:
    """The process that forks; one command at a time.

    Args:
        scratch: a folder for the shim and what the children say.
    """

    def __init__(self, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self.scratch = scratch.resolve()
        self._asked = 0
        shim = self.scratch / "crash_shim.so"
        flags = ["-O2", "-shared", "-fPIC", "-o", str(shim), str(SHIM), "-ldl", "-lpthread"]
        subprocess.run(["gcc", *flags], check=True)
        settings = {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        settings["HF_HUB_CACHE"] = os.devnull  # "auto" finds nothing there
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.crash_server", str(self.scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings},
            cwd=Path(__file__).resolve().parents[2],
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def run(
        self,
        argv: tuple[str, ...],
        *,
        cwd: Path,
        watch: Path | None = None,
        mode: int = COUNT,
        call: int = 0,
        error: int = errno.EIO,
        journal: Path | None = None,
        setup: str = "",
        here: bool = False,
    ) -> Outcome:
        """One command line, as `tracklearn ARGV...` in the folder `cwd`.

        Args:
            watch: folder whose calls are counted; nothing is where it is None.
            mode: what happens at the call number `call`, from 1: COUNT (nothing), KILL before it, KILL_HALF
                (a write half done), FAIL_ONCE and FAIL_FROM there on with `error`, SHORT (half is written).
            journal: file for the calls.
            setup: "module:function" that the child calls first.
            here: in the server itself, so that compiled kernels are loaded once for all that follow.
        """
        self._asked += 1
        request = {
            "number": self._asked,
            "argv": list(argv),
            "cwd": str(cwd.resolve()),
            "watch": "" if watch is None else str(watch.resolve()),
            "mode": mode,
            "call": call,
            "error": error,
            "journal": "" if journal is None else str(journal),
            "setup": setup,
            "here": here,
        }
        print(json.dumps(request), file=self._process.stdin, flush=True)
        while True:
            answer = self._process.stdout.readline()
            if not answer:
                raise RuntimeError(f"the server ended with {self._process.wait()}")
            outcome = json.loads(answer)
            if outcome.pop("number") == self._asked:  # not that of a test that was stopped while it waited
                return Outcome(**outcome)


def _serve(scratch: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    time.perf_counter = lambda: 0.0
    for name in _PRELOAD:
        importlib.import_module(name)
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    sys.modules["tracklearn.app.pipeline.run"].date = _SameDay  # type: ignore[attr-defined]
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_answer(request, scratch)), file=answers, flush=True)


class _SameDay(datetime.date):
    @classmethod
    def today(cls) -> datetime.date:
        return datetime.date(2020, 2, 29)


def _answer(request: dict[str, Any], scratch: Path) -> dict[str, Any]:
    files = [scratch / name for name in ("stdout", "stderr", "counted")]
    for file in files:
        file.write_bytes(b"")
    if request["here"]:
        kept = [os.dup(1), os.dup(2)]
        code = _command(request, files)
        for fd, old in zip((1, 2), kept, strict=True):
            os.dup2(old, fd)
            os.close(old)
    else:
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            signal.alarm(LONGEST)
            os._exit(_command(request, files))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    out, err, counted = (file.read_text(errors="replace") for file in files)
    return {"number": request["number"], "code": code, "out": out, "err": err, "calls": int(counted or -1)}


def _command(request: dict[str, Any], files: list[Path]) -> int:
    from tracklearn.app import cli

    for fd, file in zip((1, 2), files, strict=False):
        opened = os.open(file, os.O_WRONLY)
        os.dup2(opened, fd)
        os.close(opened)
    os.chdir(request["cwd"])
    sys.argv = ["tracklearn", *request["argv"]]
    if request["setup"]:
        module, _, function = request["setup"].partition(":")
        getattr(importlib.import_module(module), function)()
    shim = ctypes.CDLL(None)
    shim.faults_arm(
        os.fsencode(request["watch"]),
        request["mode"],
        ctypes.c_long(request["call"]),
        request["error"],
        os.fsencode(request["journal"]),
    )
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    gc.collect()  # destructors that write, as at the end of a process
    shim.faults_counted.restype = ctypes.c_long
    counted = shim.faults_counted()
    shim.faults_arm(b"", 0, ctypes.c_long(0), 0, b"")
    files[2].write_text(str(counted))
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
