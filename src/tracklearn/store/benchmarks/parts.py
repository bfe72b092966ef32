"""What a benchmark is, whatever its layout on disk: a training part, a test part, queries and gallery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store.film.frames import DEFAULT_FPS
from tracklearn.store.picture.images import ImageFiles
from tracklearn.store.sets import referenced
from tracklearn.store.sets.tracklets import TrackletSet
from tracklearn.types import Array, Crops, Refusal, Tracklets, Truth

# Files are not opened to learn their size; this is that of Market-1501, PRID 2011 and iLIDS-VID.
NOMINAL_BOX = (0, 0, 64, 128)
PROTOCOLS = ("official", "gallery-excludes-queries")

GROUPED_NOTE = "training tracklets are formed by (person, camera), which uses labels"


@dataclass(frozen=True, eq=False)
class Part:
    """Items of a benchmark: tracklets of a video set, single images (tracklets of one) of an image set.

    Args:
        tracklets: the items, and the image rows of each (`crop`). Nothing in it says who is in it, except
            that image sets for training are grouped by person (`Benchmark.grouped_by_labels`).
        truth: the person of each image row, apart; −1 for junk, 0 for distractors.
        cameras: name of each camid.
        find: the images; called when they are first wanted, so that a part can be had without any.
        named: where a table names the image of a row ("people.csv line 7"); None where names alone are read.
    """

    tracklets: Tracklets
    truth: Truth
    cameras: tuple[str, ...]
    find: Callable[[], ImageFiles | TrackletSet]
    named: Callable[[int], str] | None = None

    @cached_property
    def images(self) -> ImageFiles | TrackletSet:
        """The pictures by row.

        Raises:
            FileNotFoundError, ValueError: they are not there, or not those of the tables.
        """
        return self.find()

    @property
    def pid(self) -> Array:
        """(t,) int64: the person of each item, that of its first image; items of test parts hold one only."""
        return self.truth.pid[self.tracklets.crop[self.tracklets.start[:-1]]]

    @property
    def camid(self) -> Array:
        """(t,) int64: the camera of each item."""
        return self.tracklets.camid

    def where(self, row: int) -> str:
        """The image of a row, for messages: its file, and where a table names it."""
        images = self.images
        file = str(images.file(row)) if isinstance(images, ImageFiles) else f"crop {row}"
        return file if self.named is None else f"{file} ({self.named(row)})"

    def crops(self, height: int, width: int) -> Crops:
        """The pictures at one size, by row.

        Raises:
            FileNotFoundError: the folder is not there.
        """
        return self.images.crops(height, width)

    def image(self, row: int) -> Array:
        """One picture at its own size, RGB uint8 (h, w, 3).

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is broken.
        """
        return self.images.image(row)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A data set with its official protocol, ready for training and for `core.rank.evaluate`.

    Features of the queries and of the gallery are those of the test part's items: one extraction gives both.
    Items of negative pid (junk) need no features: evaluation leaves them out.

    Args:
        name: as `benchmarks.read` takes it. title: as papers write it.
        root: the folder it was read from.
        train: what training may have (without its truth); no items where it is not there, as in `no_part`:
            judging needs none.
        test: all items of the test, queries and gallery.
        query: (q,) int64, items of `test`.
        gallery: (g,) int64, items of `test`; holds the queries where the official protocol does.
        protocols: those that `evaluate` can be asked for, the default first.
        grouped_by_labels: training tracklets were formed by (person, camera); a manifest says so.
        published: counts as the authors give them, under the names of `counts`.
        split: which of `n_splits` this is, from 0.
        subset: how its persons were drawn; None where it has all.
        notes: what a reader of scores must know.
        skipped: what was left out of the parts as the protocol wants it, as of `folders.skip`.
        missing: what tables or splits name and the folder lacks, a training part among it, a line each.
        asked: what it was read by; None where it was made otherwise.
    """

    name: str
    title: str
    root: Path
    train: Part
    test: Part
    query: Array
    gallery: Array
    protocols: tuple[str, ...] = PROTOCOLS[:1]
    grouped_by_labels: bool = False
    published: dict[str, int] = field(default_factory=dict)
    split: int = 0
    n_splits: int = 1
    subset: Subset | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[dict[str, Any], ...] = ()
    missing: tuple[str, ...] = ()
    asked: Asked | None = None

    @property
    def query_row(self) -> Array:
        """(q,) int64: the gallery row that is the query itself, −1 where the gallery does not hold it."""
        row = np.full(len(self.test.tracklets), -1)
        row[self.gallery] = np.arange(len(self.gallery))
        return row[self.query]

    def protocol(self, name: str | None = None) -> str:
        """`name` if this benchmark has such a protocol, the default for None.

        Raises:
            ValueError: it has not.
        """
        if name is not None and name not in self.protocols:
            known = " or ".join(self.protocols)
            other = " (its gallery holds no queries)" if name in PROTOCOLS else ""
            raise Refusal(f'protocol "{name}" does not exist for {self.title}{other}: use {known}')
        return name or self.protocols[0]

    @cached_property
    def counts(self) -> dict[str, int]:
        """What is there, under the names of `published`: a gallery is counted without junk and queries."""
        train, test = self.train, self.test
        who = train.truth.pid[train.tracklets.crop]
        where = train.camid[train.tracklets.tracklet]
        known = who >= 0
        hidden = test.pid < 0
        hidden[self.query] = True
        found = {
            "train_ids": len(np.unique(who[known])),
            "train_pairs": len(np.unique(np.stack([who[known], where[known]]), axis=1).T),
            "train_tracklets": len(train.tracklets),
            "train_images": train.tracklets.n_crops,
            "cameras": len(np.unique(np.concatenate([train.camid, test.camid]))),
            "query": len(self.query),
            "query_ids": len(np.unique(test.pid[self.query])),
            "gallery": int(np.count_nonzero(~hidden[self.gallery])),
            "test_tracklets": len(test.tracklets),
            "test_images": test.tracklets.n_crops,
            "junk": int(np.count_nonzero(test.pid < 0)),
            "distractors": int(np.count_nonzero(test.pid == 0)),
        }
        return {name: int(count) for name, count in found.items()}

    def listing(self) -> list[Any]:
        """All that names and tables say, for a digest."""
        parts = (self.train, self.test)
        images = [p.images.paths.to_pylist() for p in parts if isinstance(p.images, ImageFiles)]
        who = [[p.truth.pid.tolist(), p.tracklets.crop.tolist(), p.camid.tolist(), p.cameras] for p in parts]
        return [images, who, self.query.tolist(), self.gallery.tolist()]

    def require_train(self) -> None:
        """Refuse to go on without a training part.

        Raises:
            ValueError: it is not there.
        """
        if not len(self.train.tracklets):
            raise Refusal(f"{self.title} in {self.root} has no training part: it can be judged on alone")

    def write_train(
        self,
        out: str | Path,
        *,
        singles: bool = False,
        check: referenced.Check = "names",
        progress: Callable[[str, int, int | None], None] | None = None,
    ) -> Path:
        """Write the training part as a referenced set, and its truth beside it.

        With `singles` every image is a tracklet of its own, so that labels form none.

        Raises:
            ValueError: there is no training part.
            FileExistsError, FileNotFoundError, ValueError, OSError: as `referenced.write`.
        """
        self.require_train()
        settings: dict[str, Any] = {"benchmark": self.name, "split": self.split, "n_splits": self.n_splits}
        settings |= {} if self.subset is None else {"subset": vars(self.subset)}
        settings |= {"singles": True} if singles else {}
        images, tracklets = self.train.images, self.train.tracklets
        if singles:
            tracklets = tracklets.split(np.arange(tracklets.n_crops) - tracklets.start[tracklets.tracklet])
        if isinstance(images, TrackletSet):
            return referenced.regroup(images, tracklets, out, settings=settings)
        note = "tracklets were formed by person and camera; training does not see them"
        by_labels = self.grouped_by_labels and not singles
        source = {"camera": self.title, "kind": self.name, "labels_used": by_labels}
        source |= {"note": note} if by_labels else {}
        return referenced.write(
            out,
            tracklets=tracklets,
            paths=images.paths,
            root=images.root,
            cameras=self.train.cameras,
            pid=self.train.truth.pid,
            settings=settings,
            source=source,
            check=check,
            progress=progress,
        )


def items(tracklet: Array, camid: Array, *, frame: Array, crop: Array | None = None) -> Tracklets:
    """Tracklets of image files: boxes nominal, times by 25 frames a second, scores 1.

    Args:
        tracklet: (n,) non-decreasing. camid: (t,). frame: (n,). crop: (n,) image rows, in order by default.
    """
    n = len(tracklet)
    return Tracklets(
        tracklet=tracklet,
        frame=frame,
        time=np.asarray(frame) / DEFAULT_FPS,
        box=np.broadcast_to(np.array(NOMINAL_BOX, np.float32), (n, 4)),
        score=np.ones(n, np.float32),
        crop=np.arange(n) if crop is None else crop,
        camid=camid,
        source=np.arange(len(camid)),
    )


def no_part(cameras: tuple[str, ...]) -> Part:
    """A part without items."""
    none = np.zeros(0, np.int64)
    return Part(items(none, none, frame=none), Truth(none), cameras, lambda: ImageFiles(Path(), []))


def by_person_and_camera(pid: Array, camid: Array, frame: Array) -> Tracklets:
    """Images as tracklets, one per (person, camera), in the order of frames, ties in the order given."""
    order = np.lexsort((frame, camid, pid))
    key = np.stack([pid[order], camid[order]])
    start = np.r_[True, (np.diff(key) != 0).any(0)] if len(order) else np.zeros(0, bool)
    return items(np.cumsum(start) - 1, key[1, start], frame=frame[order], crop=order)


def locate(root: str | Path, title: str, needed: Sequence[str], nested: Sequence[str] = ()) -> Path:
    """The folder, `root` or one of `nested` in it, that holds all of `needed`.

    Raises:
        FileNotFoundError: there is none; the message names what is missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    best, most = root, -1
    for folder in [root, *(root / name for name in nested)]:
        found = sum((folder / name).exists() for name in needed)
        if found == len(needed):
            return folder
        if found > most:
            best, most = folder, found
    missing = ", ".join(name for name in needed if not (best / name).exists())
    if most == 0:
        raise FileNotFoundError(f"{root} is not {title}: it has no {missing}; see `tracklearn datasets`")
    raise FileNotFoundError(f"only a part of {title} is in {best}: there is no {missing}")


@dataclass(frozen=True)
class Asked:
    """What was read, so that another process can read the same: a small value.

    Args:
        reads: `benchmarks.read`.
        name, split, subset: as it was given them; root, splits: likewise, from the root of all folders.
    """

    reads: Callable[..., Benchmark]
    name: str
    root: Path
    split: int | None
    splits: Path | None
    subset: Subset | None

    def again(self) -> Benchmark:
        """The benchmark as it is now, or where this process looks.

        Raises:
            FileNotFoundError, ValueError: as `benchmarks.read`.
        """
        return self.reads(self.name, self.root, split=self.split, splits=self.splits, subset=self.subset)


@dataclass(frozen=True)
class Subset:
    """How many persons, and the seed that draws them; nothing else decides who they are.

    Args:
        persons: of the training part.
        test_persons: of those that queries show.
        seed: of both draws. With the same seed, fewer persons are some of the more.
    """

    persons: int
    test_persons: int
    seed: int = 0

    @property
    def label(self) -> str:
        """As a part of a file name."""
        return f"{self.persons}-{self.test_persons}-seed{self.seed}"
