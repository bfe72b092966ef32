"""Calls in children of one warmed-up process, each within bounds of its own, and how they ended.

Importing torch and the rest takes seconds; a child that is forked from a process that has them takes
milliseconds. Linux only. A child is bounded in processor time and address space, so that a hang or a bomb
ends it and nothing depends on how busy the machine is; one that waits for something that never comes is told
by its threads, all asleep for long without having run.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parents[2]
CPU = 60  # seconds of processor time for a command on material of this size: about thirty times what it takes
MEMORY = 3 << 30  # address space beyond what the warmed-up process has
ASLEEP = 15  # looks in a row, a second apart, at which no thread of a child had run or wanted to
_STEP = 0.02
_WARM = (
    *(
        "tracklearn.app.cli",
        "tracklearn.app.demo.run",
        "tracklearn.app.search.searcher",
        "tracklearn.app.report.page",
    ),
    *("tracklearn.app.pipeline.training", "tracklearn.app.experiments.run", "tracklearn.app.judge.benchmark"),
    *(
        "tracklearn.learn.train",
        "tracklearn.learn.embed",
        "tracklearn.store.ingest.ingest",
        "tracklearn.store.gallery.folder",
    ),
    *("tracklearn.store.benchmarks", "tracklearn.store.detect.motion", "tracklearn.store.film.track"),
    *(f"tracklearn.learn.methods.{name}" for name in ("tmc", "mmt", "uga", "msplr", "cap")),
    *(
        f"tracklearn.core.kernels.{name}"
        for name in ("isolate", "jaccard", "neighbors", "cluster", "pictures")
    ),
    *(
        "torch",
        "torch.optim",
        "sklearn.cluster",
        "sklearn.manifold",
        "matplotlib.figure",
        "av",
        "cv2",
        "numba",
    ),
)


class Outcome(NamedTuple):
    """How a child ended.

    Args:
        code: its exit code; minus the signal that ended it.
        asleep: it was ended because nothing of it ran any more.
        out, said: its standard output and standard error.
        cpu: seconds of processor time.
        peak: bytes of resident memory at most, of the child itself.
    """

    code: int
    asleep: bool
    out: str
    said: str
    cpu: float
    peak: int

    @property
    def refused(self) -> bool:
        """Exit code 2 with one line of the program's on standard error."""
        return self.code == 2 and self._program_lines() == 1 and "Traceback" not in self.said

    @property
    def fault(self) -> str | None:
        """What went wrong, None where the call ended well or with one clear line."""
        if self.asleep:
            return "hangs: waits for what never comes"
        if self.code == -signal.SIGXCPU:
            return f"hangs: still busy after {self.cpu:.0f} s of processor time"
        if self.code < 0:
            return f"crash: {signal.Signals(-self.code).name} {self._last()}"
        if "Traceback (most recent call last)" in self.said:
            return f"traceback: {self._last()}"
        if self.code == 0 or self.refused:
            return None
        return f"exit {self.code} without one clear line: {self._last()}"

    def _program_lines(self) -> int:
        return sum(line.startswith("tracklearn: ") for line in self.said.splitlines())

    def _last(self) -> str:
        lines = [line for line in self.said.splitlines() if line.strip()]
        return lines[-1].strip()[:160] if lines else ""


class Children:
    """The warmed-up process; use it as a context."""

    def __enter__(self) -> Children:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "400",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT))),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_CACHE": os.devnull,  # "auto" finds nothing there
            "OPENVINO_TELEMETRY_OPT_OUT": "1",
            "ORT_DISABLE_TELEMETRY": "1",
        }
        self._home = tempfile.TemporaryDirectory(prefix="faults-")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.children"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()
        self._home.cleanup()

    def command(self, *arguments: Any, **bounds: Any) -> Outcome:
        """Run a `tracklearn` command line."""
        return self.call("tests.faults.children:tracklearn", [str(a) for a in arguments], **bounds)

    def call(
        self,
        function: str,
        arguments: Sequence[Any] = (),
        *,
        cwd: Path | None = None,
        cpu: int = CPU,
        memory: int = MEMORY,
    ) -> Outcome:
        """Call "module:function" with arguments that JSON can hold."""
        said, out = (Path(self._home.name) / name for name in ("said", "out"))
        request = {
            "function": function,
            "arguments": list(arguments),
            "cwd": str(cwd or self._home.name),
            "cpu": cpu,
            "memory": memory,
            "files": [str(out), str(said)],
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError("the warmed-up process has died")
        found = json.loads(line)
        texts = [file.read_text(errors="replace") for file in (out, said)]
        return Outcome(found["code"], found["asleep"], *texts, found["cpu"], found["peak"])


def tracklearn(*arguments: str) -> None:
    """What the command line does, in this process."""
    from tracklearn.app import cli

    sys.argv = ["tracklearn", *arguments]
    cli.main()


def _serve() -> None:
    """Answer each line of standard input with how its child ended."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    for name in _WARM:
        importlib.import_module(name)
    import cv2

    cv2.setNumThreads(0)  # its pool would be lost in a fork, and waited for
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _child(request)
        print(json.dumps(_wait(pid)), flush=True)


def _child(request: dict[str, Any]) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(request["cwd"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in enumerate(request["files"], 1):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (request["cpu"], request["cpu"] + 5))
        space = _address_space() + request["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        module, _, name = request["function"].partition(":")
        getattr(importlib.import_module(module), name)(*request["arguments"])
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _wait(pid: int) -> dict[str, Any]:
    """Wait for a child; one in which nothing runs any more is ended."""
    ran, still, waits, pause = -1, 0, 0.0, 0.001
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        time.sleep(pause)
        pause, waits = min(pause * 1.5, _STEP), waits + pause
        if waits >= 1:
            busy, ticks = _activity(pid)
            still = 0 if busy or ticks != ran else still + 1
            ran, waits = ticks, 0.0
            if still == ASLEEP:
                _end(pid)
    _end(pid)  # whatever it has started
    return {
        "code": os.waitstatus_to_exitcode(status),
        "asleep": still >= ASLEEP,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
    }


def _activity(pid: int) -> tuple[bool, int]:
    """Whether any thread of the process group runs, wants to, or waits for a disk; ticks of all together."""
    busy, ticks = False, 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getpgid(int(entry.name)) != pid:
                continue
            for thread in (entry / "task").iterdir():
                fields = (thread / "stat").read_text().rpartition(")")[2].split()
                busy |= fields[0] in "RD"
                ticks += int(fields[11]) + int(fields[12])
        except OSError:
            continue  # it has just ended
    return busy, ticks


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    _serve()
