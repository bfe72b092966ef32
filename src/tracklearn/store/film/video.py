"""The frames of a video, whether it is a file or a folder of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tracklearn.store.film.frames import DEFAULT_FPS, Frames
from tracklearn.store.film.image_folder import ImageFolder
from tracklearn.store.film.video_file import VideoFile
from tracklearn.types import Array, Refusal


def open_frames(
    path: str | os.PathLike[str],
    *,
    stride: int = 1,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
) -> Frames:
    """The frames of a video file or of a folder of images.

    Args:
        path: a file of any kind PyAV decodes, raw .264 / .h264 / .hevc too, or a folder of images, which are
            taken in the order of the frame numbers in their names, gaps kept (see `frame_names`), or, where
            those have none, in natural order (img2 before img10). A seqinfo.ini beside the folder gives its
            rate.
        stride: hand out every stride-th frame; numbers and times stay those of the source.
        fps: frames per second of a source that carries no times (raw streams, folders); what the stream
            itself says, or 25, if None. Ignored where the source has stamps.
        size: (width, height) of all pictures of a video; those of another size are fitted into it, their
            shape kept, on black. That of the first picture if None.

    Returns:
        Frames, opened: the first has been decoded already, so that what is no video is refused here. Pictures
        are what a player shows: upright, with square pixels, deinterlaced.

    A file is opened as a file, whatever its name looks like, and what points to other files (a playlist) is
    refused: no other file is read, and no network asked.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video that can be decoded, a folder without images, no regular file, a stride below
            1, an fps that is not positive.
        LargerPicture: while reading, where no `size` is given: a picture is larger than the first.
    """
    path = Path(path)
    if stride < 1:
        raise Refusal(f"stride is {stride}, expected 1 or more")
    if fps is not None and not 0 < fps < float("inf"):
        raise Refusal(f"fps is {fps}, expected a positive number of frames per second")
    if path.is_dir():
        return ImageFolder(path, stride, fps or DEFAULT_FPS)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if not path.is_file():
        raise Refusal(f"not a video that can be decoded: {path} (not a regular file)")
    return VideoFile(path, stride, fps, size)


def between(
    path: str | os.PathLike[str],
    begin: float,
    end: float,
    *,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
) -> Iterator[tuple[float, Array]]:
    """The pictures of a film from `begin` to `end` seconds, each with its time; (h, w, 3) uint8 RGB.

    A video is entered where it is asked for, so that the time it takes does not grow with what lies before.

    Args:
        path, size, fps: as `open_frames`.
        begin, end: seconds since the first frame.

    Raises:
        FileNotFoundError, ValueError, LargerPicture: as `open_frames`.
    """
    with open_frames(path, size=size, fps=fps) as frames:
        if isinstance(frames, VideoFile):
            yield from frames.between(begin, end)
            return
        for frame in frames:
            if frame.time > end:
                return
            if frame.time >= begin:
                yield frame.time, frame.image
