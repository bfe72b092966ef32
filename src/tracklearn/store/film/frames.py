"""What every source of pictures hands out: frames with numbers and times, and an account of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol

from tracklearn.store.film.frame_names import Numbered
from tracklearn.types import Array

DEFAULT_FPS = 25.0
UNDECODABLE = "they cannot be decoded"


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


class FrameSource:
    """What all kinds of `Frames` share: the account of what was lost, and being closed."""

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
