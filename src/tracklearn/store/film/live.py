"""Cameras live: frames from the network or a device of this machine, as they come.

A thread reads and decodes; the caller takes frames out of a short queue. Where the caller is slower than the
camera, frames are left out and counted, so memory does not grow and the connection is kept.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import av
from av.video.reformatter import VideoReformatter

from tracklearn.store.film import addresses, video_file
from tracklearn.store.film.frames import DEFAULT_FPS, UNDECODABLE, Frame, FrameSource, VideoInfo
from tracklearn.store.film.shown import Deinterlacer, Turn, Turns, fitted_size, letterbox, square_size
from tracklearn.store.skipped import shorten, skip
from tracklearn.types import Array, Refusal

# What each kind of address may open. None may open a file, and a playlist's parts are fetched by HTTP only.
_WEB = "http,https,httpproxy,tcp,tls,crypto"
_PROTOCOLS = {
    "rtsp": "rtsp,rtp,rtcp,tcp,udp,tls,http,https,httpproxy",
    "rtsps": "rtsps,rtsp,rtp,rtcp,srtp,tcp,udp,tls,http,https,httpproxy",
    "http": _WEB,
    "https": _WEB,
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "udp": "udp",
    "srt": "srt",
}
_OPENED_BY = {"rtsp": {"rtsp", "rtp"}, "rtsps": {"rtsp", "rtp"}, "http": {"hls"}, "https": {"hls"}}
_JUMP = 30.0  # seconds that a live stamp may run ahead of its arrival, from one frame to the next
_LATE = 5.0  # seconds that we may be behind a camera before frames are left out
_LISTED = 100  # gaps that the manifest lists one by one
_POLL = 0.2  # seconds between looks at whether the recording is over


class CameraError(Refusal):
    """A camera that cannot be opened, or gives no picture; `why` is the reason alone."""

    def __init__(self, shown: str, why: str) -> None:
        super().__init__(f"the camera at {shown} cannot be read: {why}")
        self.why = why


@dataclass(frozen=True)
class Live:
    """How live sources are recorded.

    Args:
        seconds: length of a recording; None goes on until `stop`, or the camera is gone for good.
        stop: ends all recordings when it is set; what was recorded is whole.
        tell: told of cuts and of coming back, a line each, from the recording's own thread.
        ask: asked for the password that belongs to an address as it may be shown; None where nobody can be.
        open_timeout, read_timeout: seconds without an answer, or without a picture, that count as a cut.
        attempts: how often in a row a lost camera is tried before it counts as gone.
        first_wait, longest_wait: seconds between these attempts, doubled from the first to the longest.
        backlog: frames that wait while the caller works; more are left out and counted.
        clock: seconds that never run backwards.
        now: the time of day.
    """

    seconds: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    tell: Callable[[str], None] | None = None
    ask: Callable[[str], str | None] | None = None
    open_timeout: float = 10.0
    read_timeout: float = 10.0
    attempts: int = 20
    first_wait: float = 1.0
    longest_wait: float = 30.0
    backlog: int = 16
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _running: set[int] = field(default_factory=set, repr=False)
    _passwords: dict[tuple[str, str], str | None] = field(default_factory=dict, repr=False)

    @property
    def recording(self) -> bool:
        """Whether any camera is being recorded at this moment."""
        return bool(self._running)

    def opened_with(self, address: str, camera: str) -> str:
        """The address with its password; whoever is asked is asked once for each camera."""

        def ask(shown: str) -> str | None:
            key = (camera, shown)
            if key not in self._passwords and self.ask is not None:
                self._passwords[key] = self.ask(shown)
            return self._passwords.get(key)

        return addresses.opened_with(address, camera, ask)


class LiveFrames(FrameSource):
    """The frames of a live source; `Frames` of `tracklearn.store.film.frames`, with what happened on the way.

    Times are seconds since the first frame: the stream's own stamps within a connection, this machine's clock
    from one connection to the next and for streams without stamps.

    Args:
        address: where the camera is; a password in it goes to the network only.
        camera: its name, for messages and for the variable that holds its password.
        live: how it is recorded.
        stride: hand out every stride-th frame.
        fps: the rate to count on where the stream names none; 25 if None.

    Raises:
        CameraError: it does not answer, refuses, or gives no picture in time.
    """

    def __init__(
        self, address: str, *, camera: str, live: Live, stride: int = 1, fps: float | None = None
    ) -> None:
        super().__init__()
        self._address, self._camera, self._live, self._stride = address, camera, live, stride
        self._shown = addresses.showable(address)
        self._ended = threading.Event()
        self._queue: queue.Queue[tuple[int, float, Any]] = queue.Queue(live.backlog)
        self._reformatter, self._films, self._turns = VideoReformatter(), Deinterlacer(), Turns()
        self._thread: ThreadPoolExecutor | None = None
        self.behind = 0
        self.resized: dict[str, int] = {}
        self.connections = 1
        self.gaps: list[tuple[float, float]] = []
        self.lost = 0.0
        self.started: datetime | None = None
        self.end = "it was stopped"
        self._deadline: float | None = None
        self._connection = _Connection(self._opened_with(), live, self._shown)
        self._aspect = self._connection.aspect
        first = self._connection.first
        width, height = self._shown_size(first, self._turns.of(first))
        rate = self._connection.fps or fps or DEFAULT_FPS
        self._times = _Times(rate)
        self.info = VideoInfo(width, height, rate, None, self._connection.codec)

    def _opened_with(self) -> str:
        return self._live.opened_with(self._address, self._camera)

    def __iter__(self) -> Iterator[Frame]:
        live = self._live
        live._running.add(id(self))
        # Not a daemon: the connection must be closed by the thread that reads it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live")
        reading = self._thread.submit(self._read)
        try:
            while True:
                try:
                    number, seconds, frame = self._queue.get(timeout=_POLL)
                except queue.Empty:
                    if reading.done() and self._queue.empty():
                        break
                    continue
                for whole, note in self._films.feed(frame, (number, seconds, self._turns.of(frame))):
                    yield Frame(note[0], note[1], self._image(whole, note[2]))
            for whole, note in self._films.flush():
                yield Frame(note[0], note[1], self._image(whole, note[2]))
            reading.result()
        finally:
            live._running.discard(id(self))

    def close(self) -> None:
        """Ends the recording and the connection."""
        self._ended.set()
        if self._thread is None:
            self._connection.close()
        else:
            self._thread.shutdown()

    def record(self) -> dict[str, Any]:
        """What the manifest says of the recording."""
        started = self.started
        return {
            "start": None if started is None else started.isoformat(timespec="milliseconds"),
            "start_from": None if started is None else "this machine's clock",
            "live": {
                "connections": self.connections,
                "seconds_lost": round(self.lost, 3),
                "gaps": [[round(a, 3), round(b, 3)] for a, b in self.gaps[:_LISTED]],
                "ended": self.end,
            },
        }

    def skipped(self) -> list[dict[str, Any]]:
        """What was left out besides broken frames, for the manifest."""
        n = self.connections - 1
        whose = "this machine did not keep up with the camera"
        return shorten(
            [
                *([skip("connection", f"cut and made again, {self.lost:.1f} s lost", n)] if n else []),
                *([skip("frames", whose, self.behind)] if self.behind else []),
                *(skip("frames", f"{why}, kept and drawn into it", n) for why, n in self.resized.items()),
            ]
        )

    # The thread

    def _read(self) -> None:
        """Reads until the recording is over, through as many connections as it takes."""
        live, number = self._live, 0
        times = self._times
        try:
            while True:
                connection, n, cut = self._connection, number, ""
                try:
                    for stamp, frame in connection:
                        arrived = live.clock()
                        if self.started is None:
                            self.started = live.now()
                            if live.seconds is not None and not connection.finite:
                                self._deadline = arrived + live.seconds
                        last = times.last
                        seconds = times.at(stamp, arrived, follow=connection.finite, anew=number == n)
                        if number == n and number:
                            self._back(last, seconds)
                        if self._over(seconds):
                            return
                        if number % self._stride == 0 and not self._put((number, seconds, frame), connection):
                            return
                        number += 1
                except _Cut as error:
                    cut = str(error)
                finally:
                    self.reasons.update(connection.reasons)
                    connection.close()
                if self._over(None):
                    return
                if connection.finite:
                    self.end = f"cut off: {cut}" if cut else "the stream ended"
                    if cut:
                        self._tell(
                            f"the stream was cut off: {cut}; it cannot be taken up again in its middle"
                        )
                    return
                if not self._again(cut or "the stream ended"):
                    return
        finally:
            self._connection.close()

    def _put(self, item: tuple[int, float, Any], connection: _Connection) -> bool:
        """Hands a frame on, or counts it; whether the recording goes on.

        Many cameras and all playlists send in bursts: as long as the frame is not late, it is waited for
        room. A film waits for us however long that takes; a picture without a stamp would only become wrong.
        """
        while not self._over(None):
            late = not connection.stamped or self._times.late(self._live.clock()) > _LATE
            drop = late and not connection.finite
            try:
                self._queue.put(item, block=not drop, timeout=_POLL)
            except queue.Full:
                if not drop:
                    continue
                self.behind += 1
            return True
        return False

    def _over(self, seconds: float | None) -> bool:
        if self._ended.is_set() or self._live.stop.is_set():
            return True
        limit = self._live.seconds
        over = seconds is not None and limit is not None and seconds >= limit
        if over or (self._deadline is not None and self._live.clock() >= self._deadline):
            self.end = "its time was over"
            return True
        return False

    def _again(self, why: str) -> bool:
        """Connects again; False where the recording is over or the camera is gone."""
        live, wait = self._live, self._live.first_wait
        for _ in range(live.attempts):
            self._tell(f"lost ({why}): trying again in {wait:g} s")
            if self._pause(wait):
                return False
            try:
                self._connection = _Connection(self._opened_with(), live, self._shown, again=True)
            except CameraError as error:
                why = error.why
                wait = min(2 * wait, live.longest_wait)
                continue
            return True
        self.end = f"the camera is gone ({why}), tried {live.attempts} times"
        self._tell(f"gone ({why}): the recording ends here")
        return False

    def _pause(self, seconds: float) -> bool:
        """Waits; whether the recording is over by then."""
        until = time.monotonic() + seconds
        while not self._over(None) and (left := until - time.monotonic()) > 0:
            self._live.stop.wait(min(left, _POLL))
        return self._over(None)

    def _back(self, last: float, seconds: float) -> None:
        self.connections += 1
        self.gaps.append((last, seconds))
        self.lost += seconds - last
        self._tell(f"back, {seconds - last:.1f} s are missing")

    def _tell(self, what: str) -> None:
        if self._live.tell is not None:
            self._live.tell(f"camera {self._camera}: {what}")

    # Pictures

    def _shown_size(self, frame: Any, turn: Turn) -> tuple[int, int]:
        return turn.size(*square_size(frame.width, frame.height, self._aspect))

    def _image(self, frame: Any, turn: Turn) -> Array:
        size = (self.info.width, self.info.height)
        shown = full = self._shown_size(frame, turn)
        if shown != size:
            shown = fitted_size(*shown, size)
            why = f"the picture's size changed to {full[0]} x {full[1]} from {size[0]} x {size[1]}"
            self.resized[why] = self.resized.get(why, 0) + 1
        width, height = turn.size(*shown)
        # One thread: the result must not depend on the number of cores.
        rgb = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        image = turn.apply(rgb.to_ndarray())
        return image if shown == size else letterbox(image, size)


class _Cut(Exception):
    """The connection broke."""


class _Connection:
    """One connection: opened, its first picture decoded; iterate for (stamp or None, frame)."""

    def __init__(self, address: str, live: Live, shown: str, *, again: bool = False) -> None:
        self.reasons = Counter[str]()
        self._live, self._shown = live, shown
        kind = addresses.scheme(address)
        timeout = (live.open_timeout, live.read_timeout)
        try:
            if kind in addresses.DEVICES:
                where = address.removeprefix(f"{kind}:")
                self._container = av.open(where, format=kind, timeout=timeout)
            else:
                options = _options(kind, again)
                self._container = av.open(address, options=options, timeout=timeout)
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise CameraError(shown, self._why(error, live.open_timeout)) from None
        try:
            self._prepare()
        except BaseException:
            self._container.close()
            raise

    def _prepare(self) -> None:
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in self._container.streams.video if not s.disposition & cover]
        name = self._container.format.name
        if not streams:
            raise CameraError(self._shown, "it holds no video stream")
        if name.endswith("_pipe") or name == "image2":
            raise CameraError(self._shown, "it is a single picture: give the address of its video")
        # Playlists and cameras offer the same picture in several sizes.
        self._stream = max(streams, key=lambda s: (s.width or 0) * (s.height or 0))
        # Threads that each hold a picture would hand it out late.
        self._stream.thread_type = "SLICE"
        self.stamped = not int(self._container.format.flags) & video_file.NO_TIMESTAMPS
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate and self.stamped else None
        self.aspect = self._stream.sample_aspect_ratio
        self.codec = self._stream.codec_context.name
        # What has a length is a film behind an address: it waits, and ends.
        length = self._container.duration
        size = self._container.size if "hls" not in name else 0
        self.finite = bool((length and length > 0) or (size and size > 0))
        self._frames = self._decode()
        try:
            first = next(self._frames, None)
        except _Cut as cut:
            raise CameraError(self._shown, str(cut)) from None
        if first is None:
            raise CameraError(self._shown, "no picture came")
        self.first: Any = first

    def __iter__(self) -> Iterator[tuple[float | None, Any]]:
        first, self.first = self.first, None
        yield self._stamp(first), first
        del first
        for frame in self._frames:
            yield self._stamp(frame), frame

    def close(self) -> None:
        self._frames.close()
        self._container.close()

    def _stamp(self, frame: Any) -> float | None:
        if not self.stamped or frame.pts is None:
            return None
        return float(frame.pts * (frame.time_base or self._stream.time_base or 0))

    def _decode(self) -> Any:
        errors, seen, live = 0, self._live.clock(), self._live
        packets = self._container.demux()
        while errors < video_file.MAX_ERRORS_IN_A_ROW:
            try:
                packet: Any = next(packets, None)
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, OSError) as error:
                raise _Cut(self._why(error, live.read_timeout)) from None
            if packet is None:
                return
            # Sound alone, or packets that give no picture, are no answer.
            if live.clock() - seen > live.read_timeout:
                raise _Cut(f"no picture for {live.read_timeout:g} s")
            if packet.stream.index != self._stream.index:
                continue
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self.reasons[UNDECODABLE] += 1
                errors += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.reasons[UNDECODABLE] += 1
                else:
                    errors = 0
                    yield frame
                    seen = live.clock()
        raise _Cut("it sends nothing that can be decoded")

    def _why(self, error: Exception, seconds: float) -> str:
        """The reason, never with the address."""
        if isinstance(error, av.error.ExitError):
            return f"no answer for {seconds:g} s"
        if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
            return (
                "it refuses without the right user and password: write the user into the address "
                f"(…://user@host/…) and the password into {addresses.PASSWORD}"
            )
        if isinstance(error, av.error.ProtocolNotFoundError):
            return (
                "this build of FFmpeg does not know the protocol, or the stream points to a place of another"
            )
        return getattr(error, "strerror", None) or "it cannot be read"


class _Times:
    """Seconds since the first frame, never backwards."""

    def __init__(self, fps: float) -> None:
        self.last = 0.0
        self._step = 1 / fps
        self._began: float | None = None
        self._arrived = 0.0
        self._stamp: float | None = None

    def at(self, stamp: float | None, arrived: float, *, follow: bool, anew: bool) -> float:
        """The time of the next frame.

        Args:
            stamp: the stream's own, if it has any.
            arrived: this machine's clock.
            follow: trust the stamp however far it jumps ahead; a film behind an address arrives at any pace.
            anew: the first frame of a connection.
        """
        seconds = self._place(stamp, arrived, follow, anew)
        self._stamp, self._arrived, self.last = stamp, arrived, seconds
        return seconds

    def late(self, now: float) -> float:
        """Seconds by which the last frame is older than this machine's clock says."""
        return now - (self._began or now) - self.last

    def _place(self, stamp: float | None, arrived: float, follow: bool, anew: bool) -> float:
        if self._began is None:
            self._began = arrived
            return 0.0
        if anew or stamp is None or self._stamp is None:
            return max(arrived - self._began, self.last + self._step)
        passed, waited = stamp - self._stamp, arrived - self._arrived
        if passed <= 0 or (passed > waited + _JUMP and not follow):  # the stream's clock was set anew
            passed = max(waited, self._step)
        return self.last + passed


def _options(kind: str, again: bool) -> dict[str, str]:
    formats = (av.formats_available - video_file.POINTERS) | _OPENED_BY.get(kind, set())
    options = {"protocol_whitelist": _PROTOCOLS[kind], "format_whitelist": ",".join(sorted(formats))}
    if kind in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": "tcp", "allowed_media_types": "video"}
    if kind in ("http", "https") and again:
        options["live_start_index"] = "-1"  # of a playlist: not once more what was seen before the cut
    return options
