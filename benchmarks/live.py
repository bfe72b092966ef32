"""A camera on 127.0.0.1 recorded over RTSP, its connection cut twice: frames had, gaps, memory.

    python -m benchmarks.live --seconds 120 --cuts 2

The camera sends 1280 x 720 H.264 at 25 frames a second; it is away for `--away` seconds after each cut.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.live_servers import Connection, RtspServer, encode
from tracklearn.store.film.connection import Live
from tracklearn.store.film.live import LiveFrames

FPS = 25
SIZE = (720, 1280)


def _pictures(n: int) -> list[np.ndarray]:
    """A bright square that wanders over noise."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 120, (*SIZE, 3), np.uint8)
    pictures = []
    for i in range(n):
        picture = ground.copy()
        picture[200:400, 8 * i : 8 * i + 100] = 230
        pictures.append(picture)
    return pictures


def resident() -> float:
    """Memory of this process that is in use now, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--cuts", type=int, default=2)
    parser.add_argument("--away", type=float, default=4.0)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between readings of the memory")
    given = parser.parse_args()
    loop = encode(_pictures(100), every=25)
    n = round(given.seconds / (given.cuts + 1) * FPS)
    units = [loop[i % len(loop)] for i in range(n)]
    back = threading.Event()

    def away() -> None:
        back.wait(given.away)

    script = [
        Connection(units, fps=FPS, paced=True, before=away if k else lambda: None) for k in range(given.cuts)
    ]
    script.append(Connection(loop * 1000, fps=FPS, paced=True, before=away))
    print(f"{'s':>6} {'frames':>7} {'MiB':>7}")
    with RtspServer(script) as server:
        live = Live(seconds=given.seconds, tell=print)
        with LiveFrames(server.address, camera="hall", live=live) as frames:
            began, n_frames, shown, last = time.monotonic(), 0, 0.0, 0.0
            for frame in frames:
                n_frames, last = n_frames + 1, frame.time
                if time.monotonic() - began >= shown:
                    print(f"{time.monotonic() - began:6.0f} {n_frames:7d} {resident():7.1f}", flush=True)
                    shown += given.every
            print(f"{time.monotonic() - began:6.0f} {n_frames:7d} {resident():7.1f}")
            print(f"last frame at {last:.2f} s; left out: {frames.skipped()}; broken: {frames.broken}")
            print(frames.record())


if __name__ == "__main__":
    main()
