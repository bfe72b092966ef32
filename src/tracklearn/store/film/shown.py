"""The picture as a player shows it: upright, with square pixels, deinterlaced, of one size."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.filter import Graph

from tracklearn.types import Array

# Pixels are never further from square than this in films; a header that says so is broken.
_WIDEST_PIXEL = 5


class Turn(NamedTuple):
    """How a stored picture is set upright: first rows and columns are swapped, then it is mirrored."""

    swap: bool = False
    left_right: bool = False
    up_down: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height afterwards; the other way round, those before."""
        return (height, width) if self.swap else (width, height)

    def apply(self, image: Array) -> Array:
        """(h, w, 3) set upright; the same array where nothing is to do."""
        if self.swap:
            image = image.transpose(1, 0, 2)
        if self.left_right:
            image = image[:, ::-1]
        if self.up_down:
            image = image[::-1]
        return np.ascontiguousarray(image)


def turn_of(frame: Any) -> Turn:
    """How to set this decoded frame upright by its display matrix; nearest quarter turn, mirrored or not.

    ISO 14496-12, 6.2.2: (a b u c d v x y w) takes (p, q) to (a p + c q + x, b p + d q + y).
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None or data.buffer_size < 36:
        return Turn()
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32, 5).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, a < 0, d < 0)
    return Turn(True, c < 0, b < 0)


class Turns:
    """`turn_of` for the frames of one stream, looked up only where their rotation changes.

    PyAV ties a frame and its side data together in a circle that only the garbage collector undoes: asked of
    every frame, hundreds of decoded pictures wait for it.
    """

    def __init__(self) -> None:
        self._seen: tuple[float, Turn] | None = None

    def of(self, frame: Any) -> Turn:
        """How to set this frame upright."""
        if self._seen is None or self._seen[0] != frame.rotation:
            self._seen = frame.rotation, turn_of(frame)
        return self._seen[1]


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """The size with square pixels: the side that is too short grows, so that no pixel is lost.

    Args:
        width, height: as stored.
        aspect: width of a pixel over its height; None or nonsense for square ones.

    >>> square_size(720, 576, Fraction(64, 45)), square_size(720, 480, Fraction(8, 9))
    ((1024, 576), (720, 540))
    """
    if not aspect or not 1 / _WIDEST_PIXEL <= aspect <= _WIDEST_PIXEL:
        return width, height
    if aspect > 1:
        return max(1, round(width * aspect)), height
    return width, max(1, round(height / aspect))


def fitted_size(width: int, height: int, into: tuple[int, int]) -> tuple[int, int]:
    """The largest size of this shape inside `into`, (width, height)."""
    scale = min(Fraction(into[0], width), Fraction(into[1], height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def letterbox(image: Array, size: tuple[int, int]) -> Array:
    """The picture in the middle of a black one of `size`, (width, height)."""
    height, width = image.shape[:2]
    out = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    out[top : top + height, left : left + width] = image
    return out


class Deinterlacer:
    """Hands frames on, interlaced ones made whole: one out for one in, a frame late from the first of these.

    Attributes:
        n: frames that were interlaced.
    """

    def __init__(self) -> None:
        self.n = 0
        self._graph: Graph | None = None
        self._kind: tuple[int, int, str] | None = None
        self._waiting = deque[Any]()

    def feed(self, frame: Any, note: Any) -> list[tuple[Any, Any]]:
        """What can be handed on now, as (frame, note) with the note that came with the frame."""
        kind = (frame.width, frame.height, frame.format.name)
        out = self.flush() if self._graph is not None and kind != self._kind else []
        self.n += frame.interlaced_frame
        if self._graph is None:
            if not frame.interlaced_frame:
                return [*out, (frame, note)]
            self._graph, self._kind = _graph(frame), kind
        self._waiting.append(note)
        self._graph.vpush(frame)
        return out + self._pulled()

    def flush(self) -> list[tuple[Any, Any]]:
        """The rest."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        out = self._pulled()
        self._graph = None
        return out

    def _pulled(self) -> list[tuple[Any, Any]]:
        out = []
        while self._waiting and self._graph is not None:
            try:
                frame = self._graph.vpull()
            except (BlockingIOError, EOFError):
                break
            out.append((frame, self._waiting.popleft()))
        return out


def _graph(frame: Any) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=av.VideoFormat(frame.format.name),
        time_base=Fraction(1, 1000),
    )
    graph.link_nodes(
        source,
        graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced", threads="1"),
        graph.add("buffersink"),
    ).configure()
    return graph
