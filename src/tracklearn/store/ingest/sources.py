"""What can be ingested, and how it is written.

    cam1.mp4                      a video; its camera is called cam1
    door=films/a.mp4              the same with a name; several files of one name are one camera
    door@2=films/a.mp4            with a camera number too
    door=result.txt+films/a.mp4   MOTChallenge result file and its video (or folder of frames)
    door=video:frames             a folder of frames as a video
    door=SEQ:gt                   a MOTChallenge sequence folder: its truth as tracks on its frames
    door=SEQ:det                  its detections, to be tracked
    door=SEQ:result.txt           a tracker's results on its frames
    door=crops                    a folder of crops (see `tracklearn.store.ingest.folders`)
    door=films/*.mp4              several recordings of one camera, in natural order; ** and ~ are understood
    door=films                    the same: all videos directly in the folder
    door=rtsp://user@host/s       a camera, live (see `tracklearn.store.film.addresses`)
    door=s3://bucket/a.mp4        a video in storage (see `tracklearn.store.objects`), RESULTS+VIDEO too
    door=s3://bucket/films/*.mp4  several of them, or s3://bucket/films/

A path that exists as it stands is taken as a path, whatever signs it holds.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tracklearn.store import objects
from tracklearn.store.film import addresses, recordings
from tracklearn.store.film.recordings import Recordings
from tracklearn.store.film.sequence import (
    forms,
    images_of,
    is_sequence,
    part_of,
    sequences_in,
    split_sequence,
)
from tracklearn.store.ingest.folders import is_market
from tracklearn.store.objects import Stored
from tracklearn.store.picture.listing import IMAGE_SUFFIXES, MAX_CAMID, read_number
from tracklearn.store.skipped import readable
from tracklearn.types import Refusal

_NAMED = re.compile(r"([^=/\\:+]+?)(?:@(\d+))?=(.+)", re.DOTALL)
_WHOLE = 64 << 20  # files up to this size are hashed whole, larger ones at 64 places
_PIECE = 1 << 20


@dataclass(frozen=True)
class Source:
    """One thing to ingest.

    Args:
        path: video file, folder of frames (with `results` or `frames`), or folder of crops.
        camera: name of the camera; "" takes the file's or folder's name.
        results: MOTChallenge result file of a tracker on `path`.
        camid: number of the camera, from 0; None takes a free one.
        frames: a folder `path` holds whole frames of a video, not crops.
        detections: MOTChallenge detections on `path`, which the detector then does not look for.
        address: of a live camera, its password included where it was written; `path` is then what of it may
            be shown.
        found: of the first of several recordings given as one, what was found.
        stored: of a video in storage its object, and behind it that of its tracker's results; `path` and
            `results` are then what of them may be shown, until they are fetched (`Job.here`).
    """

    path: Path
    camera: str = ""
    results: Path | None = None
    camid: int | None = None
    frames: bool = False
    detections: Path | None = None
    address: str = field(default="", repr=False)
    found: Recordings | None = None
    stored: tuple[Stored, ...] = ()

    @property
    def kind(self) -> str:
        """ "results", "video" or "crops"."""
        if self.results is not None:
            return "results"
        return "video" if self._one or not self.path.is_dir() else "crops"

    @property
    def _one(self) -> bool:
        """It is a film, whatever lies on this machine."""
        return self.frames or bool(self.address or self.stored)

    def __str__(self) -> str:
        if self.stored:
            return "+".join(map(str, reversed(self.stored)))
        if self.address:
            return addresses.showable(self.address)
        return f"{self.results}+{self.path}" if self.results else str(self.path)


def parse_source(text: str | Path | Source) -> Source:
    """The source that `text` describes; see the module's head for the forms.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: the text has no path or stands for several recordings, a camera number is too high, or the
            forms do not fit together.
    """
    found = _parse(text)
    if len(found) > 1:
        raise Refusal(f"{addresses.hide(str(text))} stands for {len(found)} recordings: expected one source")
    return found[0]


def _parse(text: str | Path | Source) -> list[Source]:
    """The one source that `text` describes, or all recordings of a folder or pattern."""
    source, found = (text, None) if isinstance(text, Source) else _read(str(text))
    if source.camid is not None and not 0 <= source.camid <= MAX_CAMID:
        raise Refusal(f"the camera number of {source} is too high: expected 0..{MAX_CAMID}")
    source = replace(source, camera=readable(source.camera))
    if source.address:
        addresses.check(source.address)
        return [source]
    if found is None and not source.stored:
        for file in (source.results, source.path):
            if file is not None and not os.path.exists(file):
                raise FileNotFoundError(f"no such file: {addresses.hide(str(file))}")
        if source.kind == "video" and source.path.suffix.lower() in (".txt", ".csv", ".gz"):
            raise Refusal(
                f"not a video: {source.path} (tracker results need their video: {source.path}+VIDEO; "
                f"detections go to --detector file:{source.path})"
            )
        if source.kind == "crops":
            found = recordings.in_folder(source.path)
    if found is None:
        return [source]
    films = [replace(source, path=file) for file in found.files]
    if source.stored:
        films = [_stored(source.stored[0] / str(file), like=source) for file in found.files]
    return [replace(films[0], found=found), *films[1:]]


def _read(text: str) -> tuple[Source, Recordings | None]:
    """What `text` says, before it is looked at whether that is there; what fits it where it is a pattern."""
    camera, camid, rest = "", None, text
    if not os.path.exists(rest) and not addresses.is_address(rest) and (named := _NAMED.fullmatch(rest)):
        camera, rest = named[1], named[3]
        camid = None if named[2] is None else read_number(named[2])
    if not os.path.isfile(rest) and not os.path.isdir(rest):
        if (objects.is_url(rest) or "+s3://" in rest or "+gs://" in rest or "+file:/" in rest) and rest:
            return _in_storage(rest, camera, camid)
        if addresses.is_address(rest):
            return Source(Path(addresses.showable(rest)), camera, camid=camid, address=rest), None
        if addresses.holds_address(rest):
            # not repeated: it may hold a password
            raise Refusal(
                "an address stands alone behind the camera's name, NAME=rtsp://…: tracker results and video: "
                "go with files, so record the camera first"
            )
    if (sequence := split_sequence(rest)) is not None:
        folder, part = sequence
        file, images = part_of(folder, part), images_of(folder)
        if part == "det":
            return Source(images, camera, None, camid, True, file), None
        return Source(images, camera, file, camid), None
    results, path = _split(rest)
    frames = path.startswith("video:") and not os.path.exists(path)
    if frames:
        path = path.removeprefix("video:")
    if not path or results == "":
        raise Refusal(f"source {text!r} names no file: write PATH, NAME=PATH or NAME=RESULTS+VIDEO")
    if results is None and not frames and not os.path.exists(path) and recordings.is_pattern(path):
        found = recordings.match(path)
        return Source(found.files[0], camera, camid=camid), found
    place = _at_home(path)
    if place.is_dir() and is_sequence(place):
        if results is None and not frames:
            raise Refusal(f"{place} is a MOTChallenge sequence: say what of it is meant: {forms(place)}")
        place = images_of(place)
    elif place.is_dir() and results is None and not frames and (inside := sequences_in(place)):
        raise Refusal(
            f"{place} holds MOTChallenge sequences: name them one by one, such as {forms(inside[0])}"
        )
    return Source(place, camera, None if results is None else _at_home(results), camid, frames), None


def _in_storage(text: str, camera: str, camid: int | None) -> tuple[Source, Recordings | None]:
    """A source in storage. Of a pattern or a folder `stored` is the place that its files lie below."""
    shown = objects.showable(text)
    results, video = "", text
    if found := re.search(r"\+(?=(?:s3|gs|file):/)", text, re.IGNORECASE):
        results, video = text[: found.start()], text[found.end() :]
    if video.startswith("video:") or not objects.is_url(video) or (results and not objects.is_url(results)):
        raise Refusal(
            f"in storage lie videos, and results with their video when both do, s3://…txt+s3://…mp4: {shown}"
        )
    empty = Source(Path(), camera, camid=camid)
    place = Stored.of(video)
    if not recordings.is_pattern(place.key) and place.key.lower().endswith((".txt", ".csv", ".gz")):
        raise Refusal(f"not a video: {place} (tracker results need their video: {place}+s3://…mp4)")
    folder = video.partition("?")[0].endswith("/") or not place.key
    if not folder and not recordings.is_pattern(place.key):
        return _stored(place, *([Stored.of(results)] if results else []), like=empty), None
    if results:
        raise Refusal(f"tracker results belong to one video, not to several: {shown}")
    parts = place.key.split("/") if place.key else []
    fixed = next((i for i, part in enumerate(parts) if recordings.is_pattern(part)), len(parts))
    top = replace(place, key="/".join(parts[:fixed]))
    films = recordings.match_names(
        "/".join(parts[fixed:]), list(top.listed()), text=shown, folder=top.name or top.bucket
    )
    return replace(empty, path=Path(str(top)), stored=(top,)), films


def _stored(film: Stored, results: Stored | None = None, *, like: Source) -> Source:
    """A film in storage, and a tracker's results on it."""
    shown = None if results is None else Path(str(results))
    both = (film,) if results is None else (film, results)
    return replace(like, path=Path(str(film)), results=shown, stored=both)


def _at_home(path: str) -> Path:
    """`path`, with ~ for the user's home unless something is called that."""
    return Path(path if os.path.lexists(path) else os.path.expanduser(path))


def _split(text: str) -> tuple[str | None, str]:
    """RESULTS and VIDEO of "RESULTS+VIDEO", at the first plus sign where both exist; (None, text) without."""
    if "+" not in text or os.path.exists(text) or os.path.exists(text.removeprefix("video:")):
        return None, text
    cuts = [i for i, sign in enumerate(text) if sign == "+"]
    for i in cuts:
        if os.path.isfile(text[:i]) and os.path.exists(text[i + 1 :].removeprefix("video:")):
            return text[:i], text[i + 1 :]
    return text[: cuts[0]], text[cuts[0] + 1 :]


def parse_sources(texts: Sequence[str | Path | Source]) -> list[Source]:
    """All sources with the names of their cameras: names given may be shared, others are made distinct.

    Only a folder with Market-1501 names may keep "": its cameras are then c1, c2, …, otherwise NAME-c1, ….

    Raises:
        FileNotFoundError: as `parse_source`.
        ValueError: as `parse_source`; none given; one given twice; camera numbers that contradict each other.
    """
    if isinstance(texts, str | Path | Source):
        texts = [texts]
    groups = [_parse(text) for text in texts]
    taken = {group[0].camera for group in groups}
    sources: list[Source] = []
    for group in groups:
        if (found := group[0].found) is not None and not group[0].camera:  # one camera, whatever its files
            name = _distinct(readable(found.name), taken)
            group = [replace(source, camera=name) for source in group]
        sources += group
    if not sources:
        raise Refusal("no sources given: name at least one video, result file or folder of crops")
    seen: set[tuple[Any, ...]] = set()
    for source in sources:
        place = source.address or (str(source) if source.stored else os.path.realpath(source.path))
        key = (place, source.results and source.results.resolve())
        if key in seen:
            raise Refusal(f"{source} is given twice: name every source once")
        seen.add(key)
    for i, source in enumerate(sources):
        market = source.kind == "crops" and is_market(source.path)
        if market and source.camid is not None:
            raise Refusal(f"{source} holds cameras of its own: give it a name, but no camera number")
        if not source.camera and not market:  # Market-1501 names bring their cameras along
            sources[i] = replace(source, camera=_distinct(_default_name(source), taken))
    fixed_cameras(sources)
    return sources


def fixed_cameras(sources: Sequence[Source]) -> dict[str, int]:
    """Camera numbers that were asked for, by name.

    Raises:
        ValueError: one name with two numbers, or one number with two names.
    """
    fixed: dict[str, int] = {}
    for source in sources:
        if source.camid is None:
            continue
        if fixed.setdefault(source.camera, source.camid) != source.camid:
            raise Refusal(f"camera {source.camera!r} has numbers {fixed[source.camera]} and {source.camid}")
    for number in set(fixed.values()):
        names = [name for name, camid in fixed.items() if camid == number]
        if len(names) > 1:
            raise Refusal(f"cameras {' and '.join(map(repr, names))} have the same number {number}")
    return fixed


def _default_name(source: Source) -> str:
    if source.address:
        return readable(addresses.host(source.address))
    path = Path(os.path.abspath(source.path))  # a link's own name is the camera's
    if not path.is_dir():
        return readable(path.stem)
    # MOTChallenge keeps the frames of a sequence in SEQUENCE/img1.
    named = path.name == "img1" or is_sequence(path.parent)
    return readable(path.parent.name if named else path.name)


def _distinct(name: str, taken: set[str]) -> str:
    """`name`, or name-2, name-3, … if it is taken; marks it as taken."""
    candidate, i = name, 1
    while candidate in taken:
        i += 1
        candidate = f"{name}-{i}"
    taken.add(candidate)
    return candidate


def fingerprint(path: Path) -> str:
    """Digest of the content behind `path`, quick for large files and folders.

    Files up to 64 MiB are hashed whole; larger ones by their size and 64 evenly spread MiB. Folders of images
    are hashed by the names and sizes of the images in them and in their sub-folders; what is no regular file,
    or may not be read, by its size.
    """
    sha256 = hashlib.sha256()
    if path.is_dir():
        for name, file in _images(path):
            sha256.update(os.fsencode(name) + f"\0{_status(file).st_size}\n".encode())
        return sha256.hexdigest()
    size = path.stat().st_size
    if not path.is_file() or not os.access(path, os.R_OK):
        return hashlib.sha256(str(size).encode()).hexdigest()
    with path.open("rb") as handle:
        if size <= _WHOLE:
            return hashlib.file_digest(handle, "sha256").hexdigest()
        sha256.update(str(size).encode())
        for i in range(64):
            handle.seek(i * (size - _PIECE) // 63)
            sha256.update(handle.read(_PIECE))
    return sha256.hexdigest()


def seen_from(path: Path, folder: Path | None) -> str:
    """`path` as seen from inside `folder`, so that both may move together; a link keeps its own name.

    Absolute where another drive leaves no other way, and without a folder.
    """
    place = os.path.join(os.path.realpath(path.parent), path.name)
    if folder is None:
        return Path(place).as_posix()
    try:
        return Path(os.path.relpath(place, os.path.realpath(folder))).as_posix()
    except ValueError:
        return Path(place).as_posix()


def changed(path: Path) -> int:
    """Time of the last change behind `path`, nanoseconds: of the file, or of the newest image in a folder."""
    if path.is_dir():
        return max((_status(file).st_mtime_ns for _, file in _images(path)), default=0)
    return path.stat().st_mtime_ns


def _status(file: Path) -> os.stat_result:
    """As `stat`; of a link that leads nowhere its own."""
    try:
        return file.stat()
    except OSError:
        return file.lstat()


def _images(folder: Path) -> list[tuple[str, Path]]:
    files = (file for depth in ("*", "*/*") for file in folder.glob(depth))
    return sorted((str(f.relative_to(folder)), f) for f in files if f.suffix.lower() in IMAGE_SUFFIXES)
