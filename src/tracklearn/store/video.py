"""Video in and out: frames with their numbers and times from any file PyAV decodes, and an H.264 writer.

Decoding streams: memory does not grow with the length of the video.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import av
import av.container
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from tracklearn.store import pictures
from tracklearn.store.files import sync_file, sync_folder
from tracklearn.store.listing import IMAGE_SUFFIXES, count_files, list_folder

Array = NDArray[Any]

DEFAULT_FPS = 25.0
# Formats that hold no video but say where others lie: opening one would read other files, or ask the network.
_POINTERS = {"concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub"}
# FFmpeg "decodes" any text file into a picture of a terminal.
_TERMINAL_FORMATS = {"tty", "bin", "xbin", "adf", "idf"}
_UNDECODABLE = "they cannot be decoded"
# AVFMT_NOTIMESTAMPS: raw streams, whose reader makes times up or gives none.
_NO_TIMESTAMPS = 0x80
# Reading past a damaged place gives up after this many errors in a row: the rest is not video.
_MAX_ERRORS_IN_A_ROW = 1000


@dataclass(frozen=True)
class VideoInfo:
    """What a source is.

    Args:
        width: pixels, after rotation, of every image handed out.
        height: pixels, likewise.
        fps: mean frame rate of the source, whatever the stride.
        n_frames: how many frames there are, where the source says or implies it: an estimate, or None.
        codec: codec name, such as "h264"; "images" for a folder.
    """

    width: int
    height: int
    fps: float
    n_frames: int | None
    codec: str


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture.

    Args:
        number: frame number in the source from 0, frames that could not be decoded and frames that the stride
            leaves out included.
        time: seconds since the first frame.
        image: (h, w, 3) uint8 RGB.
    """

    number: int
    time: float
    image: Array


class Frames(Protocol):
    """The frames of one source, in order, once. Use it as a context manager.

    Attributes:
        info: what the source is.
        broken: frames met so far that could not be decoded; they are left out.
        reasons: why, with the number of frames.
        left_out: of a folder, reason -> number of files that are no frames.
    """

    info: VideoInfo
    reasons: Counter[str]
    left_out: Counter[str]

    @property
    def broken(self) -> int: ...

    def notes(self) -> list[str]: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def __enter__(self) -> Frames: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def close(self) -> None: ...


def open_frames(path: str | os.PathLike[str], *, stride: int = 1, fps: float | None = None) -> Frames:
    """The frames of a video file or of a folder of images.

    Args:
        path: a file of any kind PyAV decodes, raw .264 / .h264 / .hevc too, or a folder of images, which are
            taken in natural order (img2 before img10).
        stride: hand out every stride-th frame; numbers and times stay those of the source.
        fps: frames per second of a source that carries no times (raw streams, folders); 25 if None. Ignored
            where the source has presentation times.

    Returns:
        Frames, opened: the first has been decoded already, so that what is no video is refused here.

    A file is opened as a file, whatever its name looks like, and what points to other files (a playlist) is
    refused: no other file is read, and no network asked.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video that can be decoded, a folder without images, no regular file, a stride below
            1, an fps that is not positive.
    """
    path = Path(path)
    if stride < 1:
        raise ValueError(f"stride is {stride}, expected 1 or more")
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps is {fps}, expected a positive number of frames per second")
    if path.is_dir():
        return _ImageFolder(path, stride, fps or DEFAULT_FPS)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if not path.is_file():
        raise ValueError(f"not a video that can be decoded: {path} (not a regular file)")
    return _VideoFile(path, stride, fps or DEFAULT_FPS)


class _Closing:
    def __init__(self) -> None:
        self.reasons = Counter[str]()
        self.left_out = Counter[str]()

    def notes(self) -> list[str]:
        """What was done to pictures read so far that a reader should know, a line each."""
        return []

    @property
    def broken(self) -> int:
        """Frames met so far that could not be decoded."""
        return self.reasons.total()

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file; iteration ends."""


class _ImageFolder(_Closing):
    def __init__(self, path: Path, stride: int, fps: float) -> None:
        super().__init__()
        listing = list_folder(path)
        self._files = listing.images
        self._series = pictures.Series(lambda: pictures.spread(self._files))
        if not self._files:
            raise ValueError(
                f"no images in folder {path}: expected files such as 000001.jpg, one a frame "
                f"({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        self._stride = stride
        for file in self._files:
            try:
                height, width = pictures.read(file).shape[:2]
            except (pictures.BrokenPicture, FileNotFoundError):
                continue
            break
        else:
            n = len(self._files)
            raise ValueError(f"not a video that can be decoded: none of the {n} images in {path}")
        self.info = VideoInfo(width, height, fps, len(self._files), "images")
        self.left_out = listing.left_out
        if deeper := sum(map(count_files, listing.folders)):
            self.left_out["in a sub-folder of the frames"] = deeper

    def notes(self) -> list[str]:
        """What was done to pictures read so far that a reader should know, a line each."""
        return self._series.notes()

    def __iter__(self) -> Iterator[Frame]:
        size = (self.info.width, self.info.height)
        for number in range(0, len(self._files), self._stride):
            try:
                image: Array = self._series.read(self._files[number])
            except (pictures.BrokenPicture, FileNotFoundError) as error:
                why = error.why if isinstance(error, pictures.BrokenPicture) else "gone since"
                self.reasons[_UNDECODABLE + (f" ({why})" if why else "")] += 1
                continue
            if (image.shape[1], image.shape[0]) != size:
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            yield Frame(number, number / self.info.fps, image)


class _VideoFile(_Closing):
    def __init__(self, path: Path, stride: int, fps: float) -> None:
        super().__init__()
        self._path, self._stride = path, stride
        # Absolute: of a relative name FFmpeg takes what stands before a colon for a protocol.
        allowed = {
            "protocol_whitelist": "file",
            "format_whitelist": ",".join(sorted(av.formats_available - _POINTERS)),
        }
        try:
            self._container = av.open(os.path.abspath(path), options=allowed)
        except (av.error.FFmpegError, OSError) as error:
            refused = error.errno == errno.EINVAL  # what a format outside the list gives
            why = "a playlist, which points to other files, or damaged" if refused else error.strerror
            raise self._refusal(why or "unknown format") from None
        try:
            streams = [s for s in self._container.streams.video if not _is_cover(s)]
            if not streams or self._container.format.name in _TERMINAL_FORMATS:
                raise self._refusal("it holds no video stream")
            self._stream = streams[0]
            self._stream.thread_type = "AUTO"
            self._reformatter = VideoReformatter()
            timed = not int(self._container.format.flags) & _NO_TIMESTAMPS
            rate = self._stream.average_rate or self._stream.guessed_rate
            self._fps = float(rate) if timed and rate else fps
            self._timed = timed
            self._decoded = self._decode()
            self._first = next(self._decoded, None)
            if self._first is None:
                raise self._refusal("no frame of it can be decoded")
        except BaseException:
            self._container.close()
            raise
        self._turn = _quarter_turns(self._first)
        height, width = self._first.height, self._first.width
        if self._turn % 2:
            height, width = width, height
        codec = self._stream.codec_context.name
        self.info = VideoInfo(width, height, self._fps, self._estimate(), codec)

    def close(self) -> None:
        """Releases the file; iteration ends."""
        self._decoded.close()
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        first, self._first = self._first, None
        number, time, placed = -1, 0.0, 0
        start: float | None = None
        while first is not None or (first := next(self._decoded, None)) is not None:
            frame, first = first, None
            stamp = None
            if self._timed and frame.pts is not None:
                stamp = float(frame.pts * (frame.time_base or self._stream.time_base or 0))
            # Broken frames take up numbers. The decoder tells of them early, having several pictures in
            # work; where there are times, the gap tells which of them lie before this picture.
            lost = self.broken - placed
            if lost and stamp is not None and start is not None:
                lost = min(lost, max(0, round((stamp - start - time) * self._fps) - 1))
            placed += lost
            step = 1 + lost
            number += step
            if not self._timed:
                time = number / self._fps
            elif stamp is None:
                time += step / self._fps if number else 0.0
            else:
                if start is None:
                    start = stamp
                elif stamp - start <= time:
                    # Times that stand still or jump back (spliced files) go on at the frame rate instead.
                    start = stamp - time - step / self._fps
                time = stamp - start
            if number % self._stride == 0:
                yield Frame(number, time, self._image(frame))

    def _decode(self) -> Generator[Any, None, None]:
        """Every picture that decodes; counts the others."""
        errors = 0
        packets = self._container.demux(self._stream)
        while errors < _MAX_ERRORS_IN_A_ROW:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self.reasons[_UNDECODABLE] += 1
                errors += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.reasons[_UNDECODABLE] += 1
                else:
                    errors = 0
                    yield frame

    def _image(self, frame: Any) -> Array:
        width, height = self.info.width, self.info.height
        if self._turn % 2:
            width, height = height, width
        # One thread: the result must not depend on the number of cores.
        rgb = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        image = rgb.to_ndarray()
        return np.ascontiguousarray(np.rot90(image, self._turn)) if self._turn else image

    def _estimate(self) -> int | None:
        stream = self._stream
        if stream.frames:
            return int(stream.frames)
        if not self._timed:
            return None
        if stream.duration and stream.time_base:
            return max(1, round(float(stream.duration * stream.time_base) * self._fps))
        if self._container.duration:
            return max(1, round(self._container.duration / av.time_base * self._fps))
        return None

    def _refusal(self, why: str) -> ValueError:
        return ValueError(f"not a video that can be decoded: {self._path} ({why})")


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that set the picture upright, 0–3."""
    return round(frame.rotation / 90) % 4


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
            raise ValueError(f"width, height and fps are {width}, {height}, {fps}: all must be positive")
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
            raise ValueError(
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
            raise ValueError(f"{self.path} is closed: no more frames can be written")
        if rgb.shape != (*self._size, 3) or rgb.dtype != np.uint8:
            raise ValueError(f"rgb is {rgb.dtype} {rgb.shape}, expected uint8 {(*self._size, 3)}")
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
            raise ValueError(f"no frame was written to {self.path}: a video needs one at least")
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except BaseException:
            self.discard()
            raise
        self._container = None
        sync_file(self._part)
        os.replace(self._part, self.path)
        sync_folder(self.path.parent)

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
