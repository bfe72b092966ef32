"""The frames of a video file: any that PyAV decodes, with the times and the picture that a player shows.

Decoding streams: memory does not grow with the length of the video.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.container
from av.video.reformatter import VideoReformatter

from tracklearn.store.film.frames import (
    DEFAULT_FPS,
    UNDECODABLE,
    Frame,
    FrameSource,
    LargerPicture,
    VideoInfo,
)
from tracklearn.store.film.numbers import Numbers, Stretch, Unnumbered, numbers_of
from tracklearn.store.film.promises import lacks_index, promised_frames, start_time
from tracklearn.store.film.shown import Deinterlacer, Turn, Turns, fitted_size, letterbox, square_size
from tracklearn.store.film.stamps import Clock, Survey, rate_of, survey
from tracklearn.store.picture import pictures
from tracklearn.types import Array, Refusal

# Formats that hold no video but say where others lie: opening one would read other files, or ask the network.
POINTERS = {"concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub"}
# FFmpeg "decodes" any text file into a picture of a terminal.
_TERMINAL_FORMATS = {"tty", "bin", "xbin", "adf", "idf"}
# AVFMT_NOTIMESTAMPS: raw streams, whose reader makes times up or gives none.
NO_TIMESTAMPS = 0x80
# Reading past a damaged place gives up after this many errors in a row: the rest is not video.
MAX_ERRORS_IN_A_ROW = 1000
# Packets that tell the frame rate, and pictures that tell whether stamps are in their order.
_SURVEYED = 250
_SURVEYED_PICTURES = 32
# IndexError: PyAV does not know a stream that a damaged file begins in the middle.
_DAMAGED = (av.error.FFmpegError, IndexError)
# Pictures that make a size one of the film's own.
_SOME_PICTURES = 3
_NOT_SHOWN = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


class VideoFile(FrameSource):
    def __init__(self, path: Path, stride: int, fps: float | None, size: tuple[int, int] | None) -> None:
        super().__init__()
        self._path, self._stride, self._fixed = path, stride, size is not None
        self._container = self._opened()
        try:
            self._stream = self._best_stream()
            self._stream.thread_type = "AUTO"
            self._reformatter = VideoReformatter()
            self._timed = not int(self._container.format.flags) & NO_TIMESTAMPS
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

    def between(self, begin: float, end: float) -> Iterator[tuple[float, Array]]:
        """(seconds, picture) from `begin` to `end`, found by seeking where the stamps say when pictures are
        shown, else by reading on from the first.

        Seconds are those of the stamps, which differ from an iteration's where it has to mend them, and
        interlaced pictures come as they are. It takes the place of an iteration.
        """
        zero = None if self._first is None else self._first.stamp
        if not self._timed or self._survey.reordered or zero is None:
            for frame in self:
                if frame.time > end:
                    return
                if frame.time >= begin:
                    yield frame.time, frame.image
            return
        for stamp, frame in self._sought(zero + begin):
            if stamp - zero > end:
                return
            if stamp - zero >= begin:
                yield stamp - zero, self._image(frame, self._turns.of(frame))

    def numbers(self) -> Numbers:
        """Number and time of every frame, read from the packets of a second handle; nothing more is decoded.

        Memory is that of 8 bytes a frame.

        Raises:
            Unnumbered: they cannot be known so.
        """
        if not self._timed or self._survey.reordered:
            raise Unnumbered("frames of it have no time stamps of their own")
        if promised_frames(self._path, self._container, self._stream, self.info.fps) is not None:
            raise Unnumbered("the file is cut short")
        stamps, key, shown = list[float | None](), list[bool](), list[float | None]()
        try:
            with self._opened() as container:
                for stream in self._same_stream(container):
                    for packet in container.demux(stream):
                        if packet.size and not packet.is_discard:
                            stamps.append(_seconds(packet.pts, packet.time_base))
                            key.append(packet.is_keyframe)
            with self._opened() as container:
                for stream in self._same_stream(container):
                    for frame in itertools.islice(container.decode(stream), _SURVEYED_PICTURES):
                        shown.append(_seconds(frame.pts, frame.time_base))
        except _DAMAGED as error:
            raise Unnumbered("it is damaged") from error
        return numbers_of(stamps, key, shown, rate=self.info.fps)

    def stretch(self, stretch: Stretch) -> Iterator[Frame]:
        """The frames of a stretch, numbered and timed as those of an iteration, whose place it takes.

        Of the stretch's own frames those that do not come are counted as undecodable.

        Raises:
            Unnumbered: pictures come in another order than their stamps, so that numbers do not hold.
        """
        pictures = self._entered(stretch)
        own, before = 0, float("-inf")

        def numbered() -> Iterator[tuple[Any, tuple[int, float, Turn]]]:
            nonlocal own, before
            for stamp, frame in pictures:
                if stamp <= before:
                    raise Unnumbered("its pictures come in another order than their time stamps")
                before = stamp
                if stamp > stretch.stamp[-1]:
                    return
                if (number := stretch.number(stamp)) is not None:
                    own += stretch.own[0] <= number < stretch.own[1]
                    yield frame, (number, stamp - stretch.zero, self._turns.of(frame))

        for frame, (number, time, turn) in self._whole(numbered()):
            if number % self._stride == 0:
                yield Frame(number, time, self._image(frame, turn))
        self._account()
        if lost := stretch.own[1] - stretch.own[0] - own:
            self.reasons[UNDECODABLE] = lost

    def _entered(self, stretch: Stretch) -> Iterator[tuple[float, Any]]:
        """(stamp, picture) from a key frame before a stretch on; where none is hit, from the first."""
        for place in stretch.enter:
            sought = self._sought(place)
            if (first := next(sought, None)) is not None and first[0] <= place:
                return itertools.chain([first], sought)
        index = self._stream.index
        self._container.close()
        self._container = self._opened()
        self._stream = self._container.streams[index]
        self._stream.thread_type = "AUTO"
        return self._pictures()

    def _sought(self, stamp: float) -> Iterator[tuple[float, Any]]:
        """(stamp, picture) of all that decodes from the key frame on that is shown then, or the one before.

        It takes the place of an iteration. Where the container has no index the place is found roughly.
        """
        self._decoded.close()
        place = round(stamp / self._stream.time_base)
        self._container.seek(place, stream=self._stream, backward=True)
        return self._pictures()

    def _pictures(self) -> Iterator[tuple[float, Any]]:
        """(stamp, picture) of all that decodes from where the container stands."""
        base = self._stream.time_base
        errors, packets = 0, self._container.demux(self._stream)
        while errors < MAX_ERRORS_IN_A_ROW:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except av.error.EOFError:
                return
            except _DAMAGED:
                errors += 1
                continue
            for frame in frames:
                at = _seconds(frame.pts, frame.time_base or base)
                if frame.is_corrupt or at is None:
                    continue
                errors = 0
                yield at, frame

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
        while errors < MAX_ERRORS_IN_A_ROW:
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
        self.reasons[UNDECODABLE] += 1
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
            "format_whitelist": ",".join(sorted(av.formats_available - POINTERS)),
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
        return Refusal(f"not a video that can be decoded: {self._path} ({why})")


class _Decoded(NamedTuple):
    frame: Any
    stamp: float | None  # seconds
    broken: int  # how many frames had turned out broken by then


def _seconds(stamp: int | None, base: Fraction | None) -> float | None:
    return None if stamp is None or base is None else float(stamp * base)


def _rising(stamps: Sequence[float | None]) -> bool:
    known = [stamp for stamp in stamps if stamp is not None]
    return all(earlier < later for earlier, later in itertools.pairwise(known))
