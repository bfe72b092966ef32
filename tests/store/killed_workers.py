"""Films that are read in no time, and a way to kill who reads one: for tests of ingest by several workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracklearn.store.film.mot import Boxes, write_results
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest.ingest import Config

FRAMES = 8
CONFIG = Config(min_length=4)

# As sitecustomize.py: looks into a plan before its interpreter's calls to the disk for a part.
KILLER = """
import json, os, signal, sys

seen = {}


def look(event, arguments):
    if event not in ("open", "os.mkdir", "os.rename") or "part-" not in str(arguments[0]):
        return
    try:
        with open(os.environ["PLAN"]) as file:
            plan = json.load(file)
    except FileNotFoundError:
        return
    if plan["part"] not in str(arguments[0]):
        return
    if plan["full"]:
        raise OSError(28, "No space left on device", str(arguments[0]))
    mark = plan["mark"]
    seen[mark] = seen.get(mark, 0) + 1
    if seen[mark] == plan["call"]:
        try:
            os.close(os.open(mark, os.O_CREAT | (0 if plan["always"] else os.O_EXCL)))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(look)
"""


def write_films(folder: Path, n: int) -> Path:
    """Films of one person, each with a colour and a place of its own, and the person's boxes."""
    for i in range(n):
        x = 4 + i
        with VideoWriter(folder / f"c{i:02d}.mp4", width=96, height=64, fps=10, crf=5) as writer:
            for frame in range(FRAMES):
                image = np.full((64, 96, 3), 90, np.uint8)
                image[10:50, x + frame : x + frame + 14] = (5 * i, 200 - 5 * i, 40)
                writer.write(image)
        frame = np.arange(FRAMES)
        box = np.stack([x + frame, 0 * frame + 10, x + frame + 14, 0 * frame + 50], 1).astype(float)
        write_results(folder / f"c{i:02d}.txt", Boxes(frame, np.ones(FRAMES), box, np.full(FRAMES, 0.9)))
    return folder
