"""Video in and out: frames with their numbers and times from any file PyAV decodes, and an H.264 writer.

Decoding streams: memory does not grow with the length of the video.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import av
import av.container
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from tracklearn.store import pictures
from tracklearn.store.files import sync_file, sync_folder
from tracklearn.store.frame_names import Numbered, number_frames
from tracklearn.store.listing import IMAGE_SUFFIXES, count_files, list_folder
from tracklearn.store.promises import lacks_index, promised_frames, start_time
from tracklearn.store.sequence import SEQINFO, seqinfo_of
from tracklearn.store.shown import Deinterlacer, Turn, Turns, fitted_size, letterbox, square_size
from tracklearn.store.stamps import Clock, Survey, rate_of, survey

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
# Packets that tell the frame rate, and pictures that tell whether stamps are in their order.
_SURVEYED = 250
_SURVEYED_PICTURES = 32
# IndexError: PyAV does not know a stream that a damaged file begins in the middle.
_DAMAGED = (av.error.FFmpegError, IndexError)
# Pictures that make a size one of the film's own.
_SOME_PICTURES = 3
_NOT_SHOWN = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


@dataclass(frozen=True)
class VideoInfo:
    """What a source is.

    Args:
        width: pixels, after rotation, of every image handed out.
        height: pixels, likewise.
        fps: frame rate of the source while there are frames, pauses left out, whatever the stride.
        n_frames: how many frames there are, where the source says or implies it: an estimate, or None.
        codec: codec name, such as "h264"; "images" for a folder.
        start: when the first frame was taken, where the file says so.
    """

    width: int
    height: int
    fps: float
    n_frames: int | None
    codec: str
    start: datetime | None = None


class LargerPicture(Exception):
    """A picture larger than the first was met, where no size was asked for.

    Attributes:
        size: (width, height) of the largest pictures: open the source again with it.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(f"the picture grows to {size[0]}x{size[1]}: open the source again with this size")
        self.size = size


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
        missing: reason -> number of frames that were promised but are not there; known at the end.
        account: what else is worth saying of times and pictures, for the manifest; complete at the end.
        numbered: of a folder, its frames and the numbers in their names.
        notes: what is odd about the source as a whole, a sentence each.
    """

    info: VideoInfo
    reasons: Counter[str]
    left_out: Counter[str]
    missing: Counter[str]
    account: dict[str, Any]
    numbered: Numbered | None
    notes: list[str]

    @property
    def broken(self) -> int: ...

    def remarks(self) -> list[str]: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def __enter__(self) -> Frames: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def close(self) -> None: ...


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
        raise ValueError(f"stride is {stride}, expected 1 or more")
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps is {fps}, expected a positive number of frames per second")
    if path.is_dir():
        return _ImageFolder(path, stride, fps or DEFAULT_FPS)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if not path.is_file():
        raise ValueError(f"not a video that can be decoded: {path} (not a regular file)")
    return _VideoFile(path, stride, fps, size)


class _Closing:
    def __init__(self) -> None:
        self.reasons = Counter[str]()
        self.left_out = Counter[str]()
        self.missing = Counter[str]()
        self.account = dict[str, Any]()
        self.numbered: Numbered | None = None
        self.notes: list[str] = []

    def remarks(self) -> list[str]:
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
        if not listing.images:
            raise ValueError(
                f"no images in folder {path}: expected files such as 000001.jpg, one a frame "
                f"({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        sequence = seqinfo_of(path)
        self.numbered = number_frames(listing.images, suffix=sequence.suffix if sequence else "")
        self._files, self._frame = self.numbered.files, self.numbered.frame
        self._series = pictures.Series(lambda: pictures.spread(self._files))
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
        if sequence and sequence.fps:
            fps = sequence.fps
        if sequence and sequence.n_frames not in (None, len(self._files)):
            self.notes.append(f"{len(self._files)} frames, but {SEQINFO} promises {sequence.n_frames}")
        self.info = VideoInfo(width, height, fps, len(self._files), "images")
        self.left_out = listing.left_out + self.numbered.left_out
        self.account = {"times": f"steady at {fps:g} fps (nominal)"}
        if deeper := sum(map(count_files, listing.folders)):
            self.left_out["in a sub-folder of the frames"] = deeper

    def remarks(self) -> list[str]:
        """What was done to pictures read so far that a reader should know, a line each."""
        return self._series.notes()

    def __iter__(self) -> Iterator[Frame]:
        size = (self.info.width, self.info.height)
        frame = self._frame
        for place in range(0, len(self._files), self._stride):
            number = int(frame[place])
            try:
                image: Array = self._series.read(self._files[place])
            except (pictures.BrokenPicture, FileNotFoundError) as error:
                why = error.why if isinstance(error, pictures.BrokenPicture) else "gone since"
                self.reasons[_UNDECODABLE + (f" ({why})" if why else "")] += 1
                continue
            if (image.shape[1], image.shape[0]) != size:
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            yield Frame(number, (number - int(frame[0])) / self.info.fps, image)


class _VideoFile(_Closing):
    def __init__(self, path: Path, stride: int, fps: float | None, size: tuple[int, int] | None) -> None:
        super().__init__()
        self._path, self._stride, self._fixed = path, stride, size is not None
        self._container = self._opened()
        try:
            self._stream = self._best_stream()
            self._stream.thread_type = "AUTO"
            self._reformatter = VideoReformatter()
            self._timed = not int(self._container.format.flags) & _NO_TIMESTAMPS
            self._survey = self._surveyed() if self._timed else Survey()
            rate, self._origin = self._rate(fps)
            self._clock = Clock(rate)
            self._films, self._turns = Deinterlacer(), Turns()
            self._stamps = deque[float]()
            self._n_decoded = self._n_fitted = 0
            self._decoded = self._decode()
            self._first = next(self._decoded, None)
            if self._first is None:
                raise self._refusal("no frame of it can be decoded")
        except BaseException:
            self._container.close()
            raise
        first = self._first.frame
        width, height = size or self._shown_size(first, self._turns.of(first))
        codec = self._stream.codec_context.name
        tags = {**self._container.metadata, **self._stream.metadata}
        self.info = VideoInfo(width, height, rate, self._estimate(rate), codec, start_time(tags))
        self._account()

    def close(self) -> None:
        """Releases the file; iteration ends."""
        self._decoded.close()
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        for frame, (number, time, turn) in self._whole(self._numbered()):
            if number % self._stride == 0:
                yield Frame(number, time, self._image(frame, turn))
        self._account()
        self._count_missing()

    def _whole(self, numbered: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        for frame, note in numbered:
            yield from self._films.feed(frame, note)
        yield from self._films.flush()

    def _numbered(self) -> Iterator[tuple[Any, tuple[int, float, Turn]]]:
        """Every picture with its number, its time and how to set it upright."""
        here, self._first = self._first, None
        number, placed = -1, 0
        while here is not None:
            after = next(self._decoded, None)
            # Broken frames take up numbers. The decoder tells of them early, having several pictures in
            # work; where there are times, the gap tells which of them lie before this picture.
            lost = here.broken - placed
            ahead = self._clock.ahead(here.stamp)
            if lost and ahead is not None:
                lost = min(lost, max(0, round(ahead * self._clock.rate) - 1))
            placed += lost
            number += 1 + lost
            if self._timed:
                following = None if after is None else after.stamp
                time = self._clock.next(here.stamp, step=1 + lost, following=following)
            else:
                time = number / self._clock.rate
            yield here.frame, (number, time, self._turns.of(here.frame))
            here = after

    def _decode(self) -> Generator[_Decoded, None, None]:
        """Every picture that decodes, with its stamp; counts the others."""
        errors = 0
        packets = self._container.demux(self._stream)
        while errors < _MAX_ERRORS_IN_A_ROW:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                stamp = _seconds(packet.dts, packet.time_base)
                if self._survey.reordered and packet.size and stamp is not None:
                    self._stamps.append(stamp)
                frames = packet.decode()
            except av.error.EOFError:
                return
            except _DAMAGED:
                self._count_broken()
                errors += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._count_broken()
                else:
                    errors = 0
                    self._n_decoded += 1
                    yield _Decoded(frame, self._stamp(frame), self.broken)

    def _count_broken(self) -> None:
        self.reasons[_UNDECODABLE] += 1
        if self._stamps:
            self._stamps.popleft()

    def _stamp(self, frame: Any) -> float | None:
        # Packets come in the order of decoding, their decoding stamps in rising order: the first picture
        # shown has the first of them, a constant delay apart.
        if not self._timed:
            return None
        if self._survey.reordered:
            return self._stamps.popleft() if self._stamps else None
        return _seconds(frame.pts, frame.time_base or self._stream.time_base)

    def _shown_size(self, frame: Any, turn: Turn) -> tuple[int, int]:
        return turn.size(*square_size(frame.width, frame.height, self._stream.sample_aspect_ratio))

    def _image(self, frame: Any, turn: Turn) -> Array:
        size = (self.info.width, self.info.height)
        shown = self._shown_size(frame, turn)
        if shown != size:
            self._n_fitted += 1
            if not self._fixed and shown[0] * shown[1] > size[0] * size[1]:
                raise LargerPicture(self._largest(shown))
            shown = fitted_size(*shown, size)
        width, height = turn.size(*shown)
        # One thread: the result must not depend on the number of cores.
        # Bicubic, as players do it: of 10 bits colours between pixels are interpolated too.
        rgb = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BICUBIC", threads=1
        )
        image = turn.apply(rgb.to_ndarray())
        return image if shown == size else letterbox(image, size)

    def _largest(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of the largest pictures, this one and those from here on.

        A size that only one or two have, or that is beyond all limits, is that of a damaged header.
        """
        sizes = Counter([size])
        sizes.update(self._shown_size(here.frame, self._turns.of(here.frame)) for here in self._decoded)
        limit = pictures.max_pixels()
        likely = [(w, h) for (w, h), n in sizes.items() if n >= _SOME_PICTURES and w * h <= limit]
        present = (self.info.width, self.info.height)
        return max([present, *likely], key=lambda size: size[0] * size[1])

    def _opened(self) -> Any:
        # Absolute: of a relative name FFmpeg takes what stands before a colon for a protocol.
        allowed = {
            "protocol_whitelist": "file",
            "format_whitelist": ",".join(sorted(av.formats_available - _POINTERS)),
        }
        try:
            return av.open(os.path.abspath(self._path), options=allowed)
        except (av.error.FFmpegError, OSError) as error:
            refused = error.errno == errno.EINVAL  # what a format outside the list gives
            why = "a playlist, which points to other files, or damaged" if refused else error.strerror
            if lacks_index(self._path):
                why = "its index (moov) is missing: the copy or the recording stopped before its end"
            raise self._refusal(why or "unknown format") from None

    def _best_stream(self) -> Any:
        """The stream that players show: the one marked as default, of several the largest."""
        streams = [s for s in self._container.streams.video if not s.disposition & _NOT_SHOWN]
        if not streams or self._container.format.name in _TERMINAL_FORMATS:
            raise self._refusal("it holds no video stream")
        default = av.stream.Disposition.default

        def rank(stream: Any) -> tuple[bool, bool, int]:
            context = stream.codec_context
            known = context is not None and context.width > 0
            return known, bool(stream.disposition & default), context.width * context.height if known else 0

        best = max(streams, key=rank)
        if best.codec_context is None:
            raise self._refusal("its codec is not known")
        return best

    def _surveyed(self) -> Survey:
        """What the first packets say; read from a second handle, since not every file can be rewound."""
        packets, shown = [], list[float | None]()
        # Damaged so early: what was read until there is enough to judge by.
        with self._opened() as container, suppress(*_DAMAGED):
            for stream in self._same_stream(container):
                for packet in itertools.islice(container.demux(stream), _SURVEYED):
                    if packet.size:
                        base = packet.time_base
                        packets.append((_seconds(packet.pts, base), _seconds(packet.dts, base)))
        if self._stream.codec_context.has_b_frames and _rising([shows for shows, _ in packets]):
            with self._opened() as container, suppress(*_DAMAGED):  # likewise
                for stream in self._same_stream(container):
                    for frame in itertools.islice(container.decode(stream), _SURVEYED_PICTURES):
                        shown.append(_seconds(frame.pts, frame.time_base))
        return survey(packets, shown)

    def _same_stream(self, container: Any) -> list[Any]:
        """Our stream in another handle; none where a damaged file looks different the second time."""
        return [stream for stream in container.streams.video if stream.index == self._stream.index]

    def _rate(self, fps: float | None) -> tuple[float, str]:
        """Frames per second, and where they are from."""
        stream = self._stream
        if self._timed:
            nominal = stream.average_rate or stream.guessed_rate
            rate = rate_of(float(nominal) if nominal else None, self._survey.rate)
            if rate:
                return rate, "nominal" if nominal and rate == float(nominal) else "measured"
        if fps is not None:
            return fps, "given"
        if coded := stream.codec_context.framerate:
            return float(coded), "of the codec"
        return DEFAULT_FPS, "assumed"

    def _estimate(self, rate: float) -> int | None:
        stream = self._stream
        if stream.frames:
            return int(stream.frames)
        if not self._timed:
            return None
        if stream.duration and stream.time_base:
            return max(1, round(float(stream.duration * stream.time_base) * rate))
        if self._container.duration:
            return max(1, round(self._container.duration / av.time_base * rate))
        return None

    def _account(self) -> None:
        """Says where times are from, and what was done to the pictures, so far."""
        stamped = self._timed and (self._clock.stamped or self._clock.time is None)
        steady = f"steady at {self.info.fps:g} fps ({self._origin})"
        times = "stamps" if stamped else steady
        if stamped and self._survey.reordered:
            times = "stamps, in the order of decoding"
        self.account = {"times": times}
        if mended := {why: n for why, n in self._clock.mended.items() if stamped or "without" not in why}:
            self.account["times_mended"] = mended
        streams = self._container.streams.video
        if len(streams) > 1:
            self.account["stream"] = f"{self._stream.index} of {[s.index for s in streams]}"
        context, aspect = self._stream.codec_context, self._stream.sample_aspect_ratio
        stored = (context.width, context.height)
        if square_size(*stored, aspect) != stored:
            self.account["stored"] = (
                f"{stored[0]}x{stored[1]}, pixels {aspect.numerator}:{aspect.denominator}; boxes are those "
                f"of the picture as shown, {self.info.width}x{self.info.height}"
            )
        if self._films.n:
            self.account["deinterlaced_frames"] = self._films.n
        if self._n_fitted:
            self.account["fitted_frames"] = self._n_fitted  # of another size, on a black ground

    def _count_missing(self) -> None:
        promised = promised_frames(self._path, self._container, self._stream, self.info.fps)
        had = self._n_decoded
        if promised is not None and had + self.broken < promised:
            self.missing[
                f"the file is cut short: {had} of the {promised} frames that it promises can be read"
            ] = promised - had - self.broken

    def _refusal(self, why: str) -> ValueError:
        return ValueError(f"not a video that can be decoded: {self._path} ({why})")


class _Decoded(NamedTuple):
    frame: Any
    stamp: float | None  # seconds
    broken: int  # how many frames had turned out broken by then


def _seconds(stamp: int | None, base: Fraction | None) -> float | None:
    return None if stamp is None or base is None else float(stamp * base)


def _rising(stamps: Sequence[float | None]) -> bool:
    known = [stamp for stamp in stamps if stamp is not None]
    return all(earlier < later for earlier, later in itertools.pairwise(known))


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
