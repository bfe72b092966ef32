"""What the whole program tells anybody: its commands under the guard, each in an empty home folder.

    python -m tests.faults.quiet                    # some minutes
    python -m tests.faults.quiet --package OLD/src  # the same with other sources, to compare

It prints a table. Pictures are some frames of a real clip, networks real ones (`TRACKLEARN_TEST_DATA`).
A command counts as quiet when it looked up no name, spoke to no other machine and left the home folder as it
was, but for the program's own cache folder; the exit code is 1 where one is not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from tests.faults import quiet_guard
from tracklearn.store.film.video import open_frames

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("TRACKLEARN_TEST_DATA", ROOT.parent / "shared" / "data"))
N_FRAMES = 40
QUICK = [
    "tmc.epochs=1", "tmc.iterations=2", "tmc.clusters_per_batch=4", "tmc.min_samples=2",
    "network.height=64", "network.width=32",
]  # fmt: skip
DEMO = """
import sys
from tracklearn import world
from tracklearn.app import cli, demo
size = {{"n_people": 6, "n_cameras": 2, "seconds": 30}}
worlds = (world.Config(people_seed=4, **size), world.Config(people_seed=5, first_pid=6, **size))
demo.worlds = lambda seed: worlds
demo.SETTINGS = {{"tmc": {{"epochs": 2, "iterations": 2, "clusters_per_batch": 4}},
                 "network": {{"height": 64, "width": 32}}}}
sys.argv = ["tracklearn", "demo", "--out", {out!r}, "--device", "cpu"]
cli.main()
"""


def frames(folder: Path) -> Path:
    """The first pictures of the real clip, as a folder."""
    folder.mkdir()
    with open_frames(DATA / "video" / "pets09-s2l1.mp4") as clip:
        for frame in clip:
            if frame.number >= N_FRAMES:
                break
            cv2.imwrite(str(folder / f"{frame.number:04d}.jpg"), frame.image[..., ::-1])
    return folder


def hub_model(folder: Path) -> Path | None:
    """A small detector of random weights, as the library saves it; None without the library."""
    try:
        from tests.store.test_detect import _hub_model

        _hub_model(folder, "rt_detr_v2")
    except ValueError:
        return None
    return folder


def commands(work: Path) -> Iterator[tuple[str, list[str]]]:
    """(what is shown, command); later ones use what earlier ones have written below `work`."""

    def program(*arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "tracklearn", *map(str, arguments)]

    yield "demo (small)", [sys.executable, "-c", DEMO.format(out=str(work / "demo"))]
    pictures, weights = frames(work / "frames"), DATA / "weights"
    shutil.copytree(pictures, work / "same")
    for camera in "ab":
        shutil.copy(DATA / "video" / "pets09-s2l1.det.txt", work / f"{camera}.txt")
    sources = [f"a=video:{pictures}", f"b=video:{work / 'same'}"]
    detectors = {
        "file": f"file:{work}/{{camera}}.txt",
        "motion": "motion",
        "hog": "hog",
        "onnx": f"onnx:{weights / 'FastestDet.onnx'}",
        "openvino": f"openvino:{weights / 'person-detection-retail-0013-FP16.xml'}",
    }
    # Random weights find people everywhere or nowhere: no more than the detection itself is of interest.
    if (model := hub_model(work / "model")) is not None:
        detectors["hub"] = f"hub:{model}"
    for name, detector in detectors.items():
        options = [option for setting in QUICK for option in ("--set", setting)]
        out = work / name
        start = ["--weights", "none", "--preset", "cpu", "--device", "cpu"]
        yield (
            f"run, detector {name}",
            program("run", *sources, "--out", out, "--detector", detector, *start, *options),
        )
    done = work / "file"
    yield "index", program("index", done / "run", done / "set", "--resume", "--device", "cpu")
    picture = pictures / "0000.jpg"
    yield "search", program("search", done / "run", picture, "--sheet", work / "sheet.png", "--device", "cpu")
    yield "report", program("report", done / "run", "--resume")
    reid = ["--reid", done / "run", "--distance", "1", "--device", "cpu"]
    yield (
        "track",
        program(
            "track", f"a=video:{pictures}", *reid, "--detector", f"file:{work}/a.txt", "--out", work / "t.txt"
        ),
    )
    network = weights / "osnet_x0_25_msmt17.onnx"
    judged = ["--benchmark", "world", "--root", work / "demo", "--out", work / "evaluation"]
    yield "evaluate, an .onnx file", program("evaluate", network, *judged)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--package", type=Path, default=quiet_guard.PACKAGE, help="sources to run")
    chosen = parser.parse_args()
    if why := quiet_guard.unable() or ("" if DATA.is_dir() else f"real material not found at {DATA}"):
        print(why, file=sys.stderr)
        return 2
    print("| command | exit code | look-ups and packets | files in the home folder | seconds |")
    print("|---|---|---|---|---|", flush=True)
    loud = 0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        guard = quiet_guard.build(work)
        for i, (shown, command) in enumerate(commands(work)):
            began = time.perf_counter()
            heard = quiet_guard.listen(command, guard, work / f"home{i}", package=chosen.package.resolve())
            seconds = time.perf_counter() - began
            loud += not heard.quiet
            reached, files = (", ".join(found) or "none" for found in (heard.reached, heard.files))
            print(f"| {shown} | {heard.code} | {reached} | {files} | {seconds:.0f} |", flush=True)
            if heard.code:
                print(f"{shown}: {heard.output.strip().splitlines()[-1:]}", file=sys.stderr)
    return int(loud > 0)


if __name__ == "__main__":
    sys.exit(main())
