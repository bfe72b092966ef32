"""What can be ingested, and how it is written.

    cam1.mp4                      a video; its camera is called cam1
    door=films/a.mp4              the same with a name; several files of one name are one camera
    door@2=films/a.mp4            with a camera number too
    door=result.txt+films/a.mp4   MOTChallenge result file and its video (or folder of frames)
    door=video:frames             a folder of frames as a video
    door=crops                    a folder of crops (see `tracklearn.store.folders`)

A path that exists as it stands is taken as a path, whatever signs it holds. Only files are read: an address
such as rtsp://… is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracklearn.store.folders import is_market, readable
from tracklearn.store.listing import IMAGE_SUFFIXES, MAX_CAMID, read_number

_NAMED = re.compile(r"([^=/\\:+]+?)(?:@(\d+))?=(.+)", re.DOTALL)
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9.-]+)://")
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
    """

    path: Path
    camera: str = ""
    results: Path | None = None
    camid: int | None = None
    frames: bool = False

    @property
    def kind(self) -> str:
        """ "results", "video" or "crops"."""
        if self.results is not None:
            return "results"
        return "video" if self.frames or not self.path.is_dir() else "crops"

    def __str__(self) -> str:
        return f"{self.results}+{self.path}" if self.results else str(self.path)


def parse_source(text: str | Path | Source) -> Source:
    """The source that `text` describes; see the module's head for the forms.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: the text has no path, a camera number is too high, or the forms do not fit together.
    """
    if isinstance(text, Source):
        source = text
    else:
        camera, camid, rest = "", None, str(text)
        if (address := _ADDRESS.search(rest)) and not os.path.exists(rest):
            # not repeated: it may hold a password
            raise ValueError(
                f"a source is an address ({address[1]}://…), but only files are read: record it first"
            )
        named = None if os.path.exists(rest) else _NAMED.fullmatch(rest)
        if named:
            camera, rest = named[1], named[3]
            camid = None if named[2] is None else read_number(named[2])
        results, path = _split(rest)
        frames = path.startswith("video:") and not os.path.exists(path)
        if frames:
            path = path.removeprefix("video:")
        if not path or results == "":
            raise ValueError(
                f"source {str(text)!r} names no file: write PATH, NAME=PATH or NAME=RESULTS+VIDEO"
            )
        source = Source(Path(path), camera, None if results is None else Path(results), camid, frames)
    for file in (source.results, source.path):
        if file is not None and not file.exists():
            raise FileNotFoundError(f"no such file: {file}")
    if source.camid is not None and not 0 <= source.camid <= MAX_CAMID:
        raise ValueError(f"the camera number of {source} is too high: expected 0..{MAX_CAMID}")
    if source.kind == "video" and source.path.suffix.lower() in (".txt", ".csv"):
        raise ValueError(
            f"not a video: {source.path} (tracker results need their video: {source.path}+VIDEO; "
            f"detections go to --detector file:{source.path})"
        )
    return replace(source, camera=readable(source.camera))


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
    sources = [parse_source(text) for text in texts]
    if not sources:
        raise ValueError("no sources given: name at least one video, result file or folder of crops")
    seen: set[tuple[Any, ...]] = set()
    for source in sources:
        key = (source.path.resolve(), source.results and source.results.resolve())
        if key in seen:
            raise ValueError(f"{source} is given twice: name every source once")
        seen.add(key)
    taken = {source.camera for source in sources}
    for i, source in enumerate(sources):
        market = source.kind == "crops" and is_market(source.path)
        if market and source.camid is not None:
            raise ValueError(f"{source} holds cameras of its own: give it a name, but no camera number")
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
            raise ValueError(
                f"camera {source.camera!r} has numbers {fixed[source.camera]} and {source.camid}"
            )
    for number in set(fixed.values()):
        names = [name for name, camid in fixed.items() if camid == number]
        if len(names) > 1:
            raise ValueError(f"cameras {' and '.join(map(repr, names))} have the same number {number}")
    return fixed


def _default_name(source: Source) -> str:
    path = Path(os.path.abspath(source.path))  # a link's own name is the camera's
    if not path.is_dir():
        return readable(path.stem)
    # MOTChallenge keeps the frames of a sequence in SEQUENCE/img1.
    return readable(path.parent.name if path.name == "img1" else path.name)


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


def seen_from(path: Path, folder: Path) -> str:
    """`path` as seen from inside `folder`, so that both may move together; a link keeps its own name.

    Absolute where another drive leaves no other way.
    """
    place = os.path.join(os.path.realpath(path.parent), path.name)
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
