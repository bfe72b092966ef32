"""A film for benchmarks that read one: a person who walks through the picture, and the detections."""

import numpy as np

from tracklearn.store.film.mot import Boxes, write_results
from tracklearn.store.film.video_writer import VideoWriter

FRAMES = 20


def film(path):
    """The film at `path`, its detections beside it as .txt."""
    frame = np.arange(FRAMES)
    with VideoWriter(path, width=96, height=64, fps=10, crf=5) as writer:
        for i in range(FRAMES):
            image = np.full((64, 96, 3), 90, np.uint8)
            image[10:50, 4 + i : 18 + i] = (200, 40, 40)
            writer.write(image)
    box = np.stack([4 + frame, 0 * frame + 10, 18 + frame, 0 * frame + 50], 1).astype(float)
    write_results(path.with_suffix(".txt"), Boxes(frame, np.full(FRAMES, -1), box, np.full(FRAMES, 0.9)))
    return path
