"""Cameras live: frames from the network or a device of this machine, as they come.

A thread reads and decodes; the caller takes frames out of a short queue. Where the caller is slower than the
camera, frames are left out and counted, so memory does not grow and the connection is kept.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from av.video.reformatter import VideoReformatter

from tracklearn.store.film import addresses
from tracklearn.store.film.connection import CameraError, Connection, Cut, Live, Times
from tracklearn.store.film.frames import DEFAULT_FPS, Frame, FrameSource, VideoInfo
from tracklearn.store.film.shown import Deinterlacer, Turn, Turns, fitted_size, letterbox, square_size
from tracklearn.store.skipped import shorten, skip
from tracklearn.types import Array

_LATE = 5.0  # seconds that we may be behind a camera before frames are left out
_LISTED = 100  # gaps that the manifest lists one by one
_POLL = 0.2  # seconds between looks at whether the recording is over


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
        self._connection = Connection(self._opened_with(), live, self._shown)
        self._aspect = self._connection.aspect
        first = self._connection.first
        width, height = self._shown_size(first, self._turns.of(first))
        rate = self._connection.fps or fps or DEFAULT_FPS
        self._times = Times(rate)
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
                except Cut as error:
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

    def _put(self, item: tuple[int, float, Any], connection: Connection) -> bool:
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
                self._connection = Connection(self._opened_with(), live, self._shown, again=True)
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
