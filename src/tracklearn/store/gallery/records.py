"""What a gallery's manifest says of its sets, and the files that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store.files import DamagedError, sync_folder
from tracklearn.store.gallery.entries import (
    Content,
    GallerySet,
    described,
    joined_cameras,
    numbers,
)
from tracklearn.store.gallery.segment import Segment, names_of, write_segment
from tracklearn.store.sealed import MANIFEST, write_sealed
from tracklearn.types import Array, Refusal

SCHEMA = "tracklearn.gallery/3"
_SECOND = "tracklearn.gallery/2"  # of one set, which the manifest itself describes
_FIRST = "tracklearn.gallery/1"  # files of fixed names, no sums of blocks
SCHEMAS = (SCHEMA, _SECOND, _FIRST)
REMEDY = "index the run again (tracklearn index RUN SET --resume)"


def rewritten(
    folder: Path, segment: Segment, keep: Array, *, crop: Array | None = None, now: GallerySet | None = None
) -> dict[str, Any]:
    """Write some rows of a segment to a folder; their record."""
    columns = {name: value[keep] for name, value in numbers(segment.columns, len(segment)).items()}
    if crop is not None:
        columns["crop"] = crop
    camera = [segment.camera[i] for i in keep.tolist()]
    place = now or GallerySet(segment.digest, segment.set_path, segment.cameras)
    return (
        write_segment(folder, segment.rows_at(keep), columns, camera, place) if len(keep) else {"entries": 0}
    )


def written(folder: Path, content: Content) -> dict[str, Any]:
    """Write the files of a set's content; their record."""
    names = np.asarray(content.cameras, dtype=object)
    place = GallerySet(content.digest, content.path, tuple(content.cameras))
    camera = names[content.tracklets.camid].tolist()
    return write_segment(folder, content.rows, described(content.tracklets), camera, place)


def manifest_of(records: Sequence[Mapping[str, Any]], origin: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "gallery",
        "schema": SCHEMA,
        "entries": sum(record["entries"] for record in records),
        "width": records[0]["width"] if records else 1,
        "cameras": list(joined_cameras([record["cameras"] for record in records])),
        "sets": list(records),
        "origin": dict(origin),
    }


def publish(path: Path, records: Sequence[Mapping[str, Any]], origin: Mapping[str, Any]) -> None:
    """Let the manifest name these files, and remove all others."""
    if not records:
        raise Refusal(f"{path} would hold nothing: remove the folder instead")
    write_sealed(path / MANIFEST, manifest_of(records, origin))
    kept = {MANIFEST, *(name for record in records for name in names_of(record))}
    for other in path.iterdir():
        if other.name not in kept:
            other.unlink()
    sync_folder(path)


def records_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of the sets; of an older program's one set."""
    try:
        if manifest["schema"] == SCHEMA:
            found = [dict(each) for each in manifest["sets"]]
            for each in found:
                names_of(each)
                whole = isinstance(each["entries"], int) and isinstance(each["cameras"], list)
                if not whole or not {"digest", "path"} <= each.keys():
                    raise KeyError("sets")
            if not found:
                raise KeyError("sets")
            return found
        of = manifest["origin"].get("set", {})
        record: dict[str, Any] = {
            "digest": str(of.get("digest", "")),
            "path": str(of.get("path", "")),
            "cameras": manifest["cameras"],
            "entries": manifest["entries"],
            "width": manifest["width"],
        }
        if manifest["schema"] == _FIRST:
            record["features"], record["table"] = (
                {"name": name, "sha256": manifest["sha256"][name]}
                for name in ("features.npy", "entries.parquet")
            )
        else:
            record["features"] = {**manifest["features"], "crc32": manifest.get("crc32")}
            record["table"] = manifest["table"]
        names_of(record)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedError(f"the gallery's manifest is damaged (it names no files): {REMEDY}") from error
    return [record]
