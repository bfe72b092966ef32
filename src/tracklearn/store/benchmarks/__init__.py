"""Benchmarks read where they lie, with their official protocols; ground truth apart from what training sees.

`read` gives a `Benchmark`, `check` compares it with the published counts and looks whether its images are
there. Nothing is downloaded and no image is copied.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store.benchmarks import generated, labelled, stills, videos
from tracklearn.store.benchmarks.parts import GROUPED_NOTE, Asked, Benchmark, Part, Subset
from tracklearn.store.benchmarks.subset import draw
from tracklearn.store.picture.images import ImageFiles
from tracklearn.types import Progress, Refusal

__all__ = [
    "DATASETS",
    "GROUPED_NOTE",
    "Asked",
    "Benchmark",
    "Dataset",
    "Part",
    "Report",
    "Subset",
    "check",
    "draw",
    "find",
    "read",
]

SLACK = 0.01  # a data set that lacks more than this share of anything published is not the data set


@dataclass(frozen=True)
class Dataset:
    """What can be read, and what its owner has to put where.

    Args:
        name: on the command line. title: as papers write it.
        kind: "video" or "images".
        layout: what the folder given as root must hold, one line each.
        source: the paper, and where the data come from.
        published: counts under the names of `Benchmark.counts`.
        reader: called with the root, and for sets with splits with `split` and `splits`.
        n_splits: number of official splits.
        notice: to be shown to whoever uses it.
        own: what lies in the folder is the user's own. Persons are known within one folder only, what is
            listed must be there, and it may be another thing tomorrow.
    """

    name: str
    title: str
    kind: str
    layout: tuple[str, ...]
    source: str
    published: dict[str, int]
    reader: Callable[..., Benchmark]
    n_splits: int = 1
    notice: str = ""
    own: bool = False

    @property
    def slack(self) -> float:
        """The share of images or counts that may be missing before it is another data set."""
        return 0.0 if self.own else SLACK


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "mars",
            "MARS",
            "video",
            (
                "info/tracks_train_info.mat, info/tracks_test_info.mat, info/query_IDX.mat",
                "info/train_name.txt, info/test_name.txt   (order of the images)",
                "bbox_train/PPPP/PPPPCcTttttFfff.jpg",
                "bbox_test/PPPP/PPPPCcTttttFfff.jpg",
            ),
            "Zheng et al., ECCV 2016; tables: github.com/liangzheng06/MARS-evaluation",
            videos.MARS,
            videos.read_mars,
        ),
        Dataset(
            "prid2011",
            "PRID 2011",
            "video",
            (
                "multi_shot/cam_a/person_NNNN/*.png",
                "multi_shot/cam_b/person_NNNN/*.png",
                "splits.json   (ten 89/89 splits; drawn at random where it is not there)",
            ),
            "Hirzer et al., SCIA 2011; lrs.icg.tugraz.at",
            videos.PRID,
            videos.read_prid,
            videos.N_SPLITS,
        ),
        Dataset(
            "ilidsvid",
            "iLIDS-VID",
            "video",
            (
                "i-LIDS-VID/sequences/cam1/personNNN/*.png",
                "i-LIDS-VID/sequences/cam2/personNNN/*.png",
                "train-test people splits/train_test_splits_ilidsvid.mat   (drawn at random where not there)",
            ),
            "Wang et al., ECCV 2014",
            videos.ILIDS,
            videos.read_ilids,
            videos.N_SPLITS,
        ),
        Dataset(
            "market1501",
            "Market-1501",
            "images",
            (
                "bounding_box_train/PPPP_cCsS_FFFFFF_BB.jpg",
                "query/PPPP_cCsS_FFFFFF_BB.jpg",
                "bounding_box_test/PPPP_cCsS_FFFFFF_BB.jpg",
            ),
            "Zheng et al., ICCV 2015; for research, not to be handed on",
            stills.MARKET,
            stills.read_market,
        ),
        Dataset(
            "msmt17",
            "MSMT17",
            "images",
            (
                "list_train.txt, list_val.txt, list_query.txt, list_gallery.txt",
                "train/PPPP/*.jpg, test/PPPP/*.jpg   (version 1), or",
                "mask_train_v2/PPPP/*.jpg, mask_test_v2/PPPP/*.jpg   (version 2)",
            ),
            "Wei et al., CVPR 2018; from its authors, on request",
            stills.MSMT17,
            stills.read_msmt17,
        ),
        Dataset(
            "dukemtmc",
            "DukeMTMC-reID",
            "images",
            (
                "bounding_box_train/PPPP_cC_fFFFFFFF.jpg",
                "query/PPPP_cC_fFFFFFFF.jpg",
                "bounding_box_test/PPPP_cC_fFFFFFFF.jpg",
            ),
            "Ristani et al., 2016; Zheng et al., ICCV 2017; withdrawn",
            stills.DUKE,
            stills.read_duke,
            notice=stills.DUKE_NOTICE,
        ),
        Dataset(
            "world",
            "the generated world",
            "video",
            ("the folder that `tracklearn demo --out` has written: set/, judge/ and their truth files",),
            "tracklearn demo",
            {},
            generated.read_world,
        ),
        Dataset(
            labelled.NAME,
            "a labelled folder",
            "images",
            (
                "query/PPPP_cC….jpg and gallery/PPPP_cC….jpg (or bounding_box_test, or test); train (or "
                "bounding_box_train) if there is one; names may also begin with PPPP_C_",
                "or one table, *.csv, with path, person, camera and role (query, gallery, train, ignored); "
                "without role every image is searched for among all others",
            ),
            "your own images",
            {},
            labelled.read_labelled,
            own=True,
        ),
    )
}


def find(name: str) -> Dataset:
    """The data set of that name; capitals, "-", "_" and blanks do not matter.

    Raises:
        ValueError: there is none; the nearest known name is in the message.

    >>> find("Market-1501").name
    'market1501'
    """
    plain = "".join(c for c in name.lower() if c.isalnum())
    if plain in DATASETS:
        return DATASETS[plain]
    near = difflib.get_close_matches(plain, DATASETS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(DATASETS)}"
    raise Refusal(f"no data set is called {name!r}: {hint}")


def read(
    name: str,
    root: str | Path,
    *,
    split: int | None = None,
    splits: str | Path | None = None,
    subset: Subset | None = None,
) -> Benchmark:
    """A benchmark from the folder `root`; names and tables are read, no image is opened.

    The parts of MARS come from its tables alone, within a second.

    Args:
        name: as `find` takes it.
        root: the folder that holds what `DATASETS[name].layout` says, or the table of a labelled folder.
        split: which of the splits, from 0 (the default), of a set that has splits.
        splits: the file of splits, where it is not at its usual place.
        subset: some of its persons instead of all; see `draw`.

    Raises:
        FileNotFoundError: no such folder, or a folder or table of the data set is missing.
        ValueError: an unknown name; a split for a set without splits, or one that does not exist; more
            persons than there are; a damaged table or list.
    """
    dataset = find(name)
    root = Path(root)
    if dataset.n_splits == 1:
        if split not in (None, 0):
            raise Refusal(f"split {split} does not exist: {dataset.title} has one fixed split")
        if splits is not None:
            raise Refusal(f"{dataset.title} has one fixed split: it takes no file of splits")
        whole = dataset.reader(root)
    else:
        whole = dataset.reader(root, split=split or 0, splits=None if splits is None else Path(splits))
    found = whole if subset is None else draw(whole, subset)
    file = None if splits is None else Path(splits).absolute()
    return replace(found, asked=Asked(read, name, root.absolute(), split, file, subset))


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Args:
        counts: name -> found and published number (None where nothing is published).
        images: part -> images expected, missing, broken (None where none was opened).
        problems: what is missing or off, a line each.
        usable: whether nothing published is off by more than one in a hundred and no more images than that
            are missing or broken; of one's own folder none.
    """

    counts: dict[str, dict[str, int | None]]
    images: dict[str, dict[str, int | None]]
    problems: list[str]
    usable: bool

    @property
    def complete(self) -> bool:
        """Whether nothing is missing at all."""
        return not self.problems


def check(benchmark: Benchmark, *, images: str = "names", progress: Progress | None = None) -> Report:
    """Compare a benchmark with the published counts, and look for its images.

    Args:
        benchmark: what was read.
        images: "names" lists the folders (a second for the million images of MARS), "images" decodes every
            image (a third of a millisecond or more each and core), "none" looks for none.
        progress: told about the decoding.

    Raises:
        ValueError: an unknown `images`.
    """
    if images not in ("none", "names", "images"):
        raise Refusal(f'check is "{images}", expected one of none, names, images')
    counts, problems, usable = {}, [], True
    slack = DATASETS[benchmark.name].slack
    for name, found in benchmark.counts.items():
        published = benchmark.published.get(name)
        counts[name] = {"found": found, "published": published}
        if published is not None and found != published:
            problems.append(f"{name}: {found:,} of {published:,}")
            usable &= abs(found - published) <= slack * published
    problems += benchmark.missing
    looked: dict[str, dict[str, Any]] = {}
    for name, part in (("train", benchmark.train), ("test", benchmark.test)):
        if images == "none":
            continue
        try:
            files = part.images
        except (FileNotFoundError, ValueError) as error:
            problems.append(f"{name} images: {error}")
            usable = False
            continue
        if isinstance(files, ImageFiles):
            looked[name], lines = _look(files, part, name, images == "images", progress)
            problems += lines
            bad = looked[name]["missing"] + (looked[name]["broken"] or 0)
            usable &= bad <= slack * len(files)
    return Report(counts, looked, problems, usable)


def _look(
    files: ImageFiles, part: Part, name: str, decode: bool, progress: Progress | None
) -> tuple[dict[str, Any], list[str]]:
    there = files.present()
    missing, present = np.flatnonzero(~there), np.flatnonzero(there)
    found: dict[str, Any] = {"expected": len(files), "missing": len(missing), "broken": None}
    lines = []
    if len(missing):
        first = part.where(int(missing[0])) if files.root.is_dir() else files.root
        lines.append(f"{name} images: {len(missing):,} of {len(files):,} are missing, the first is {first}")
    if decode:
        broken = files.broken(present, progress)
        found["broken"] = len(broken)
        if broken:
            first = part.where(min(broken))
            lines.append(f"{name} images: {len(broken):,} cannot be decoded, the first is {first}")
    return found, lines
