"""Writing H.264 video: equal pictures, equal bytes."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.container
import numpy as np
from av.video.reformatter import VideoReformatter

from tracklearn.store.files import move, sync_file
from tracklearn.types import Array, Refusal


class VideoWriter:
    """Writes RGB pictures as a video file, whole or not at all; equal pictures give equal bytes.

    The file appears under its name on `close`; until then, and after an error inside the `with` block, there
    is only a temporary one beside it, which an error removes.

    Args:
        path: file to write, its suffix names the container (.mp4 if there is none).
        width: pixels; odd sizes are kept by storing colour at full resolution.
        height: pixels.
        fps: frames per second.
        crf: constant rate factor of H.264, 0 (lossless) to 51; smaller is better [chosen: 20].

    Raises:
        ValueError: a size or rate that is not positive, an unknown container.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, width: int, height: int, fps: float, crf: int = 20
    ) -> None:
        if width < 1 or height < 1 or not 0 < fps < float("inf"):
            raise Refusal(f"width, height and fps are {width}, {height}, {fps}: all must be positive")
        self.path = Path(path)
        self.n_frames = 0
        self._size = (height, width)
        self._part = self.path.with_name(f".{self.path.stem}.part{self.path.suffix or '.mp4'}")
        h264 = "libx264" in av.codecs_available
        try:
            # absolute, as in reading: a colon in a relative name is no protocol
            name = os.path.abspath(self._part)
            self._container: Any = av.open(name, "w", options={"fflags": "+bitexact"})
        except (av.error.FFmpegError, ValueError) as error:
            self._part.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise
            raise Refusal(
                f"cannot write a video as {self.path}: unknown container {self.path.suffix!r}"
            ) from None
        rate = Fraction(fps).limit_denominator(1001)
        stream = self._container.add_stream("libx264" if h264 else "mpeg4", rate=rate)
        stream.width, stream.height = width, height
        # 4:2:0 halves both sides, which odd ones do not allow.
        stream.pix_fmt = "yuv420p" if (width % 2 == 0 and height % 2 == 0) or not h264 else "yuv444p"
        # One thread: x264 splits the picture by threads, and its bytes with it.
        stream.codec_context.thread_count = 1
        # Adaptive quantisation and the lookahead weigh memory beyond the picture with AVX-512 (seen with
        # x264 as of PyAV 18): the same frames then give other bytes now and then.
        exact = "aq-mode=0:mbtree=0:weightp=0"
        h264_options: dict[str, object] = {"crf": str(crf), "preset": "veryfast", "x264-params": exact}
        stream.options = h264_options if h264 else {"qscale": "3"}
        self._stream: Any = stream
        self._reformatter = VideoReformatter()

    def write(self, rgb: Array) -> None:
        """Appends one picture, (height, width, 3) uint8 RGB.

        Raises:
            ValueError: another shape or dtype, or a closed writer.
        """
        if self._container is None:
            raise Refusal(f"{self.path} is closed: no more frames can be written")
        if rgb.shape != (*self._size, 3) or rgb.dtype != np.uint8:
            raise Refusal(f"rgb is {rgb.dtype} {rgb.shape}, expected uint8 {(*self._size, 3)}")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = self._reformatter.reformat(frame, format=self._stream.pix_fmt, threads=1)
        frame.pts = self.n_frames
        self._container.mux(self._stream.encode(frame))
        self.n_frames += 1

    def close(self) -> None:
        """Finishes the file and gives it its name; a second call does nothing.

        Raises:
            ValueError: nothing was written.
        """
        if self._container is None:
            return
        if not self.n_frames:
            self.discard()
            raise Refusal(f"no frame was written to {self.path}: a video needs one at least")
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except BaseException:
            self.discard()
            raise
        self._container = None
        sync_file(self._part)
        move(self._part, self.path)

    def discard(self) -> None:
        """Drops what was written; nothing appears under the path."""
        if self._container is not None:
            container, self._container = self._container, None
            try:
                container.close()
            except (av.error.FFmpegError, OSError):
                # A file that cannot be finished (disk full) is being thrown away anyhow.
                pass
            finally:
                self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
