"""Pictures that were sent to be searched for: kept in memory for a while, never on disk."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracklearn.app.web.opened import NotThere
from tracklearn.store.picture import pictures
from tracklearn.store.picture.crops import encode_jpeg, resize
from tracklearn.store.picture.headers import read_header
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from tracklearn.store.detect.detector import Detector
    from tracklearn.store.sets.tracklets import TrackletSet

FORMATS = ("JPEG", "PNG", "WebP")
MOST_PIXELS = 40_000_000  # [chosen]: more than telephones take
_KEPT = 16  # pictures
_SIDE = 2048  # pixels that the longer side of a kept one has at most
_LEAST = 8  # pixels of a side, of a picture or a box


@dataclass(frozen=True, eq=False)
class Upload:
    """A picture.

    Args:
        id: its name, which nobody can guess.
        image: (h, w, 3) uint8 RGB.
        people: (k, 4) boxes in pixels, the surest first.
        detector: what found them; "" where nothing looked.
        note: what a person should know of that.
    """

    id: str
    image: Array
    people: list[list[float]]
    detector: str
    note: str

    def to_dict(self) -> dict[str, Any]:
        """What is told of it."""
        height, width = self.image.shape[:2]
        told = {"id": self.id, "width": width, "height": height, "people": self.people}
        return told | {"detector": self.detector, "note": self.note}

    def cut(self, box: list[float] | None) -> Array:
        """What is inside a box, or the whole.

        Raises:
            ValueError: the box has no area in the picture.
        """
        if box is None:
            return self.image
        height, width = self.image.shape[:2]
        x1, y1, x2, y2 = (round(v) for v in box)
        x1, x2, y1, y2 = max(x1, 0), min(x2, width), max(y1, 0), min(y2, height)
        if x2 - x1 < _LEAST or y2 - y1 < _LEAST:
            raise Refusal(f"the box is less than {_LEAST} pixels wide or high in the picture: draw it larger")
        return self.image[y1:y2, x1:x2]


class Uploads:
    """The pictures that were sent last; older ones are let go."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = threading.Semaphore(2)  # what is decoded at once is bounded too
        self._detector: tuple[str, Detector] | None = None
        self._seen = 0

    def add(self, data: bytes, tracklet_set: TrackletSet | None) -> Upload:
        """Take a picture: JPEG, PNG or WebP by its content.

        Args:
            data: its encoded bytes.
            tracklet_set: whose detector looks for people in it; None for none.

        Raises:
            ValueError: another format, a damaged picture, or one of too many pixels.
        """
        image = self._decoded(data)
        spec = "" if tracklet_set is None else str(tracklet_set.manifest["settings"].get("detector") or "")
        people, detector, note = self._people(image, spec)
        upload = Upload(secrets.token_urlsafe(12), image, people, detector, note)
        with self._lock:
            self._kept[upload.id] = upload
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return upload

    def get(self, name: str) -> Upload:
        """The picture of that name.

        Raises:
            NotThere: it was let go, or never was.
        """
        with self._lock:
            if name not in self._kept:
                raise NotThere("that picture is kept no more: give it again")
            self._kept.move_to_end(name)
            return self._kept[name]

    def forget(self) -> None:
        """Let go of all."""
        with self._lock:
            self._kept.clear()

    def _decoded(self, data: bytes) -> Array:
        header = read_header(data)
        if header.kind not in FORMATS:
            raise Refusal(f"a {header.kind} picture is not taken here: send {', '.join(FORMATS)}")
        if header.pixels > MOST_PIXELS:
            raise Refusal(
                f"the picture has {header.pixels / 1e6:.0f} megapixels, "
                f"{MOST_PIXELS / 1e6:.0f} are taken at most"
            )
        if min(header.width, header.height) < _LEAST:
            raise Refusal(f"the picture is less than {_LEAST} pixels wide or high: nobody can be seen in it")
        with self._decoding:
            image = pictures.decode(data)
            height, width = image.shape[:2]
            scale = _SIDE / max(height, width)
            if scale < 1:
                image = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
        return image

    def _people(self, image: Array, spec: str) -> tuple[list[list[float]], str, str]:
        from tracklearn.store.detect.detector import open_detector

        if not spec:
            return [], "", ""
        note = ""
        if spec.partition(":")[0] in ("motion", "file"):
            note = f"the run's detector, {spec.partition(':')[0]}, sees people in films alone: hog looked"
            spec = "hog"
        try:
            with self._lock:  # a detector looks at one picture after the other
                if self._detector is None or self._detector[0] != spec:
                    self._detector = spec, open_detector(spec)
                self._seen += 1
                box, _ = self._detector[1](image, self._seen)
        except (Refusal, OSError) as error:
            return [], "", f"nobody looked for people in it: {error}"
        return [[round(float(v), 1) for v in one] for one in box[:20]], spec, note


def jpeg(image: Array) -> bytes:
    """A picture as it is sent back: encoded anew, so that nothing that came with it goes out again."""
    return encode_jpeg(image, quality=90)
