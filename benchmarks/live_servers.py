"""Cameras on 127.0.0.1, for tests and measurements: an RTSP server and a web server that can misbehave.

The RTSP server sends H.264 over the connection itself (RFC 7826 interleaved, RFC 6184 packets) from pictures
that PyAV encodes. Both follow a script, one entry a connection, so that nothing depends on a clock.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

_LARGEST = 1400  # bytes of one RTP packet


def encode(pictures: Sequence[NDArray[Any]], *, every: int = 10) -> list[bytes]:
    """(h, w, 3) RGB pictures as H.264, one access unit each; every so many can be decoded alone."""
    height, width = pictures[0].shape[:2]
    coder = av.CodecContext.create("libx264", "w")
    coder.width, coder.height, coder.pix_fmt = width, height, "yuv420p"
    coder.framerate, coder.time_base = Fraction(25), Fraction(1, 25)
    coder.options = {"tune": "zerolatency", "preset": "ultrafast", "crf": "18", "g": str(every)}
    coder.thread_count = 1
    units = []
    for i, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = i
        units += [bytes(packet) for packet in coder.encode(frame)]
    return units + [bytes(packet) for packet in coder.encode(None)]


@dataclass
class Connection:
    """What one connection gets.

    Args:
        units: access units, sent in order.
        then: "cut" closes it, "stall" sends nothing more but keeps it open.
        before: called when the client asks for the stream.
        fps: of the stamps; also of the sending where `paced`.
        paced: send at that rate instead of at once.
    """

    units: Sequence[bytes]
    then: str = "cut"
    before: Callable[[], None] = lambda: None
    fps: float = 25.0
    paced: bool = False


class _Server:
    """A server in a thread of its own on a free port; a context manager."""

    server: socketserver.BaseServer

    def __enter__(self) -> Any:
        self.over = threading.Event()
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])  # type: ignore[index]


class _Threads(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class RtspServer(_Server):
    """A camera that serves each connection that gets to PLAY by the next entry of `script`.

    When the script is over, connections are closed at once. `user` and `password` are asked for where given.
    """

    def __init__(self, script: Sequence[Connection], *, user: str = "", password: str = "") -> None:
        self.script: Iterator[Connection] = iter(script)
        self.login = f"{user}:{password}" if user else ""
        self.refused = self.played = 0
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # the client has gone
                    outer._talk(self.rfile, self.connection)

        self.server = _Threads(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def _talk(self, lines: Any, connection: socket.socket) -> None:
        entry: Connection | None = None
        while line := lines.readline():
            verb, headers = line.split(b" ")[0].decode(), {}
            while (header := lines.readline().strip()) != b"":
                name, _, value = header.decode().partition(":")
                headers[name.lower()] = value.strip()
            extra, body, status = "", "", "200 OK"
            if verb == "OPTIONS":
                extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif self.login and not self._known(headers.get("authorization", "")):
                status, extra = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
                self.refused += 1
            elif verb == "DESCRIBE":
                entry = next(self.script, None)
                if entry is None:
                    return
                entry.before()
                extra = "Content-Type: application/sdp\r\n"
                body = _SDP
            elif verb == "SETUP":
                extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1;timeout=60\r\n"
            elif verb == "PLAY":
                extra = "Session: 1\r\nRange: npt=0-\r\n"
            reply = f"RTSP/1.0 {status}\r\nCSeq: {headers.get('cseq', 0)}\r\n{extra}"
            connection.sendall(f"{reply}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            if verb == "PLAY" and entry is not None:
                self.played += 1
                self._play(entry, connection)
                return

    def _known(self, given: str) -> bool:
        kind, _, code = given.partition(" ")
        return kind == "Basic" and base64.b64decode(code).decode() == self.login

    def _play(self, entry: Connection, connection: socket.socket) -> None:
        number, began = 0, time.monotonic()
        for i, unit in enumerate(entry.units):
            if entry.paced and self.over.wait(max(0.0, began + i / entry.fps - time.monotonic())):
                return
            payloads = list(_payloads(unit))
            for j, payload in enumerate(payloads):
                marker = 0x80 if j == len(payloads) - 1 else 0
                stamp = round(i / entry.fps * 90000)
                head = struct.pack(">BBHII", 0x80, marker | 96, number & 0xFFFF, stamp, 7)
                number += 1
                packet = head + payload
                connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
        if entry.then == "stall":
            self.over.wait()


_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
)


def _payloads(unit: bytes) -> Iterator[bytes]:
    """RTP payloads of one access unit: its NAL units, long ones in fragments (FU-A)."""
    for nal in unit.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1"):
        if not nal:
            continue
        if len(nal) <= _LARGEST:
            yield nal
            continue
        kind, rest = nal[0], nal[1:]
        for at in range(0, len(rest), _LARGEST):
            piece = rest[at : at + _LARGEST]
            first, last = at == 0, at + _LARGEST >= len(rest)
            yield bytes([kind & 0xE0 | 28, first << 7 | last << 6 | kind & 0x1F]) + piece


@dataclass
class Page:
    """One answer of the web server.

    Args:
        parts: bytes sent one after the other.
        kind: content type.
        then: "end", "cut" (less than the promised length) or "stall".
        length: the length promised; None promises none.
        before: called when the page is asked for.
        location: where the client is sent instead.
    """

    parts: Sequence[bytes]
    kind: str = "application/octet-stream"
    then: str = "end"
    length: int | None = None
    before: Callable[[], None] = field(default=lambda: None)
    location: str = ""


class WebServer(_Server):
    """Pages by path, each asking taking the next of its answers, the last for good; 404 for other paths."""

    def __init__(self, pages: dict[str, Sequence[Page]], *, login: str = "") -> None:
        self.asked: list[str] = []
        self.left = {path: list(answers) for path, answers in pages.items()}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                code = self.headers.get("Authorization", "").partition(" ")[2]
                if login and base64.b64decode(code).decode() != login:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                answers = outer.left.get(self.path.partition("?")[0])
                if not answers:
                    self.send_error(404)
                    return
                page = answers.pop(0) if len(answers) > 1 else answers[0]
                page.before()
                self.send_response(302 if page.location else 200)
                if page.location:
                    self.send_header("Location", page.location)
                self.send_header("Content-Type", page.kind)
                if page.length is not None:
                    self.send_header("Content-Length", str(page.length))
                self.end_headers()
                try:
                    for part in page.parts:
                        self.wfile.write(part)
                    if page.then == "stall":
                        self.wfile.flush()
                        outer.over.wait()
                except OSError:
                    pass  # the client has gone
                self.close_connection = True

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def mjpeg(jpegs: Sequence[bytes], **page: Any) -> Page:
    """A page as cameras send their pictures: multipart, one JPEG after the other."""
    parts = [
        b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
        for jpeg in jpegs
    ]
    return Page(parts, kind="multipart/x-mixed-replace; boundary=frame", **page)
