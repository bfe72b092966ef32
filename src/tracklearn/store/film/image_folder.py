"""A folder of images as the frames of a film."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2

from tracklearn.store.film.frame_names import number_frames
from tracklearn.store.film.frames import UNDECODABLE, Frame, FrameSource, VideoInfo
from tracklearn.store.film.sequence import SEQINFO, seqinfo_of
from tracklearn.store.picture import pictures
from tracklearn.store.picture.listing import IMAGE_SUFFIXES, count_files, list_folder
from tracklearn.types import Array, Refusal


class ImageFolder(FrameSource):
    def __init__(self, path: Path, stride: int, fps: float) -> None:
        super().__init__()
        listing = list_folder(path)
        if not listing.images:
            raise Refusal(
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
            raise Refusal(f"not a video that can be decoded: none of the {n} images in {path}")
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
                self.reasons[UNDECODABLE + (f" ({why})" if why else "")] += 1
                continue
            if (image.shape[1], image.shape[0]) != size:
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            yield Frame(number, (number - int(frame[0])) / self.info.fps, image)
