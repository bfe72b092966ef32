"""Tracklet sets whose images stay where they are: no picture is copied.

`write` makes a set of image files below a folder; `regroup` makes another set of a set's crops, with other
tracklets. `tracklets.open_set` opens both like any other set. Where the images are is kept relative to the
set, so that both can be moved together; an absolute path is kept only where there is no relative one (another
drive). The digest of such a set covers tables and names, or the sums of the shards, not the files' pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

import tracklearn
from tracklearn.store.config import digest
from tracklearn.store.files import beside, make_folder, put_folder, remove_folder
from tracklearn.store.lock import locked
from tracklearn.store.picture.images import ImageFiles
from tracklearn.store.sealed import MANIFEST, write_sealed
from tracklearn.store.sets.setwriter import (
    CROPS,
    KIND,
    TRACKLETS,
    TRUTH,
    truth_path,
    without_blocks,
)
from tracklearn.store.sets.stored import origin_of
from tracklearn.store.sets.tables import ROW_GROUP, TableWriter
from tracklearn.store.sets.tracklets import REFERENCED, TrackletSet, read_truth
from tracklearn.store.skipped import readable, shorten, skip
from tracklearn.types import Array, Refusal, Tracklets

Check = Literal["none", "names", "images"]
CHECKS: tuple[Check, ...] = ("none", "names", "images")


def write(
    out: str | Path,
    *,
    tracklets: Tracklets,
    paths: Sequence[str] | pa.Array,
    root: str | Path,
    cameras: Sequence[str],
    pid: Array | None = None,
    settings: Mapping[str, Any],
    source: Mapping[str, Any] | None = None,
    skipped: Sequence[Mapping[str, Any]] = (),
    check: Check = "names",
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Path:
    """Write a tracklet set that refers to image files in place.

    Images that the check finds missing or broken are left out, counted and listed in the manifest, and so are
    tracklets without any image left. A file that goes missing later costs one grey crop, counted, until there
    are too many (`images.ImageFiles`).

    Args:
        out: the set to write.
        tracklets: n rows whose `crop` are rows of `paths`, each at most once. `source` is not kept: a set's
            tracklets are originals.
        paths: image of each row, relative to `root`, with "/" between folders.
        root: the folder of the images.
        cameras: name of each camid.
        pid: (len(paths),) int, person of each image, −1 for none; goes to the truth file, nowhere else.
        settings: what the set was made with, for the manifest.
        source: entries of the manifest's one source: its name as `camera`, notes.
        skipped: what was left out before, as of `folders.skip`.
        check: "names" lists the folders and leaves out what is missing; "images" decodes every image as well
            and leaves out what is broken (a third of a millisecond or more each and core); "none" looks at
            nothing: the images may come later.
        progress: told about the decoding.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError: the images are wanted and their folder, or all of them, are not there.
        ValueError: lengths or camids disagree, a row is used twice, or no image can be decoded.
        OSError: the disk is full or failing; nothing is left of the set.
    """
    out, root = Path(out), Path(root)
    require_free(out)
    files = ImageFiles(root, paths)
    if check not in CHECKS:
        raise Refusal(f'check is "{check}", expected one of {", ".join(CHECKS)}')
    _check_rows(tracklets, len(files), len(cameras))
    if pid is not None and np.shape(pid) != (len(files),):
        raise Refusal(f"pid has shape {np.shape(pid)}, expected ({len(files)},): one per image")

    good, left_out = _usable(files, tracklets.crop, check, progress)
    counts = {"files": len(files), "images": tracklets.n_crops, "missing_images": 0, "broken_images": 0}
    counts |= {f"{what}_images": len(faults) for what, faults in left_out.items()}
    lost, tracklets_given = len(tracklets), tracklets.n_crops
    if not good.all():
        tracklets = tracklets.split(np.where(good, 0, -1))
    lost -= len(tracklets)
    listed = [dict(entry) for entry in skipped]
    if len(files) > tracklets_given:
        listed.append(skip("images", "in no tracklet", len(files) - tracklets_given))
    for faults in left_out.values():
        listed += [skip(files.paths[row].as_py(), why) for row, why in faults.items()]
    if lost:
        listed.insert(0, skip("tracklets", "none of their images is usable", lost))
    record = {
        "camera": "images",
        "path": readable(_relative(root, out)),
        "kind": "images",
        "status": "ok",
        "reason": None,
        **(source or {}),
        "check": check,
        "counts": counts,
        "skipped": shorten(listed),
        "n_tracklets": len(tracklets),
        "n_crops": tracklets.n_crops,
    }
    return _publish(
        out,
        tracklets,
        file=np.zeros(len(tracklets), np.int32),
        place={"path": files.paths.take(pa.array(tracklets.crop))},
        cameras=cameras,
        pid=None if pid is None else np.asarray(pid, np.int64)[tracklets.crop],
        images={"kind": "files", "root": _relative(root, out)},
        manifest={"settings": dict(settings), "sources": [record], "shards": []},
    )


def regroup(base: TrackletSet, tracklets: Tracklets, out: str | Path, *, settings: Mapping[str, Any]) -> Path:
    """Write another assignment of a set's crops to tracklets; the pictures stay with the base.

    The new set refers to the base's shards, and to the base by its digest; of a base that refers to images
    itself, to the same images. Its ground truth, where the base has one, is the base's, row by row.

    Args:
        base: the set whose crops these are.
        tracklets: their `crop` are rows of `base`, each at most once; rows left out are not in the new set.
            Frames, times, boxes and scores are taken as they stand here. `source` is not kept.
        out: the set to write.
        settings: what the set was made with, for the manifest.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` exists.
        ValueError: a row that the base does not have, is used twice, or changes its camera; the base's truth
            belongs to another set.
        OSError: the disk is full or failing; nothing is left of the set.
    """
    out = Path(out)
    if (origin := origin_of(base.path)) is not None:  # the copy goes when the storage changes
        raise Refusal(f"{out} would share the pictures of {origin}: copy that set to a folder of yours first")
    require_free(out)
    _check_rows(tracklets, base.n_crops, len(base.cameras))
    old = base.tracklets.tracklet[tracklets.crop]  # crops of a set on disk lie in the order of its rows
    moved = np.flatnonzero(base.tracklets.camid[old] != tracklets.camid[tracklets.tracklet])
    if len(moved):
        row = int(moved[0])
        raise Refusal(
            f"crop {tracklets.crop[row]} is of camera {base.tracklets.camid[old[row]]} in {base.path} and of "
            f"camera {tracklets.camid[tracklets.tracklet[row]]} in the new tracklets: a crop keeps its camera"
        )
    used, first = np.unique(tracklets.tracklet, return_index=True)
    file = np.zeros(len(tracklets), np.int32)
    file[used] = base.file[old[first]]
    n_crops = np.bincount(base.file[old], minlength=len(base.manifest["sources"]))
    n_tracklets = np.bincount(file[used], minlength=len(n_crops))
    sources = [
        {**record, "n_tracklets": int(t), "n_crops": int(n)}
        for record, t, n in zip(base.manifest["sources"], n_tracklets, n_crops, strict=True)
    ]
    images = base.manifest.get("images", {"kind": "shards", "digest": base.digest})
    pid = read_truth(base.path).pid[tracklets.crop] if truth_path(base.path).is_file() else None
    row = pa.array(tracklets.crop)
    return _publish(
        out,
        tracklets,
        file=file,
        place={name: column.take(row) for name, column in base.place.items()},
        cameras=base.cameras,
        pid=pid,
        images=images | {"root": _relative(base.root, out)},
        manifest={
            "settings": dict(settings),
            "base": {"path": _relative(base.path, out), "digest": base.digest},
            "sources": sources,
            "shards": base.manifest["shards"],
        },
    )


def require_free(out: Path) -> None:
    """Refuse to write where a set is already, and clear away what a killed process left beside it.

    Raises:
        FileExistsError: there is something at `out`.
    """
    with locked(out):
        remove_folder(_work(out))
        if out.exists():
            raise FileExistsError(f"{out} exists: choose another --out, or remove it")


def _work(out: Path) -> Path:
    """Where a set is put together."""
    return beside(out, before=".", after=".tmp")


def _check_rows(tracklets: Tracklets, n: int, n_cameras: int) -> None:
    crop = tracklets.crop
    if len(crop) and (crop.min() < 0 or crop.max() >= n):
        raise Refusal(f"crop runs from {crop.min()} to {crop.max()}, expected rows 0..{n - 1}")
    times = np.bincount(crop, minlength=n)
    if (times > 1).any():
        raise Refusal(f"row {int(np.argmax(times > 1))} is used {times.max()} times: once at most")
    camid = tracklets.camid
    if len(camid) and (camid.min() < 0 or camid.max() >= n_cameras):
        raise Refusal(
            f"camid runs from {camid.min()} to {camid.max()}, but there are {n_cameras} names of cameras"
        )


def _usable(
    files: ImageFiles,
    rows: Array,
    check: Check,
    progress: Callable[[str, int, int | None], None] | None,
) -> tuple[Array, dict[str, dict[int, str]]]:
    """(n,) bool, which of these rows pass the check; and the "missing" and "broken" rows, with the reason."""
    good = np.ones(len(rows), bool)
    left_out: dict[str, dict[int, str]] = {}
    if check == "none" or not len(rows):
        return good, left_out
    files.require()
    good &= files.present()[rows]
    left_out["missing"] = dict.fromkeys(rows[~good].tolist(), "the image is not there")
    if not good.any():
        raise FileNotFoundError(
            f"none of the {len(rows)} images is there, the first is {files.file(int(rows[0]))}"
        )
    if check == "images":
        there = rows[good]
        left_out["broken"] = files.broken(there, progress)
        good &= ~np.isin(rows, list(left_out["broken"]))
        if not good.any():
            raise Refusal(f"none of the {len(there)} images can be decoded: {files.root}")
    return good, left_out


def _relative(folder: Path, out: Path) -> str:
    """`folder` as seen from inside `out`; absolute where another drive leaves no other way."""
    folder_, out_ = os.path.realpath(folder), os.path.realpath(out)
    try:
        return Path(os.path.relpath(folder_, out_)).as_posix()
    except ValueError:
        return Path(folder_).as_posix()


def _publish(
    out: Path,
    tracklets: Tracklets,
    *,
    file: Array,
    place: Mapping[str, pa.Array],
    cameras: Sequence[str],
    pid: Array | None,
    images: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> Path:
    """Write the set beside its place and rename it in, the truth first: all or nothing."""
    with locked(out):
        require_free(out)
        work = _work(out)
        make_folder(work)
        try:
            new = work / "set"
            new.mkdir()
            sums = _write_tables(new, tracklets, file, place, cameras)
            content = {"schema": REFERENCED, "cameras": list(cameras), "files": sums}
            content |= {"images": images["kind"], "shards": without_blocks(manifest["shards"])}
            record = {
                "kind": KIND,
                "schema": REFERENCED,
                "tracklearn": tracklearn.__version__,
                "digest": digest(content),
                "cameras": list(cameras),
                "n_tracklets": len(tracklets),
                "n_crops": tracklets.n_crops,
                "images": dict(images),
                **manifest,
                "files": sums,
            }
            write_sealed(new / MANIFEST, record)
            if pid is not None:
                truth = TableWriter(work / "truth.parquet", TRUTH)
                try:
                    truth.add({"pid": pid})
                    truth.close({"set": str(record["digest"])})
                finally:
                    truth.abandon()
                (work / "truth.parquet").replace(truth_path(out))
            put_folder(new, out)
        finally:
            remove_folder(work)
        return out


def _write_tables(
    folder: Path, tracklets: Tracklets, file: Array, place: Mapping[str, pa.Array], cameras: Sequence[str]
) -> dict[str, str]:
    """crops.parquet and tracklets.parquet; their sha256."""
    fields = [field for field in CROPS if field.name not in ("shard", "row")]
    fields += [pa.field(name, column.type) for name, column in place.items()]
    crops = TableWriter(folder / "crops.parquet", pa.schema(fields))
    table = TableWriter(folder / "tracklets.parquet", TRACKLETS)
    corner = dict(zip(("x1", "y1", "x2", "y2"), tracklets.box.T, strict=True))
    column = {"tracklet": tracklets.tracklet, "frame": tracklets.frame, "time": tracklets.time}
    column |= {**corner, "score": tracklets.score, **place}
    number = np.arange(len(tracklets))
    try:
        for low in range(0, tracklets.n_crops, ROW_GROUP):
            crops.add({name: values[low : low + ROW_GROUP] for name, values in column.items()})
        table.add(
            {"tracklet": number, "source": number, "camid": tracklets.camid, "file": file}
            | {"camera": [cameras[camid] for camid in tracklets.camid]}
            | {"continues": np.full(len(tracklets), -1)}
        )
        return {"crops.parquet": crops.close(), "tracklets.parquet": table.close()}
    finally:
        crops.abandon()
        table.abandon()
