"""One connection to a camera: how it is opened, its frames as they come, and what their stamps are worth."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import av

from tracklearn.store.film import addresses, video_file
from tracklearn.store.film.frames import UNDECODABLE
from tracklearn.types import Refusal

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


class Cut(Exception):
    """The connection broke."""


class Connection:
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
        except Cut as cut:
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
                raise Cut(self._why(error, live.read_timeout)) from None
            if packet is None:
                return
            # Sound alone, or packets that give no picture, are no answer.
            if live.clock() - seen > live.read_timeout:
                raise Cut(f"no picture for {live.read_timeout:g} s")
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
        raise Cut("it sends nothing that can be decoded")

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


class Times:
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
