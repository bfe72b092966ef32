"""Files that carry proof of what is in them.

A *sealed* JSON file holds the sha256 of its own content. A *sealed folder* has such a `manifest.json` with
the sha256 of every other file. What is read back is compared with that, so that damage is named, not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tracklearn.store.files import DamagedError, hash_file, json_bytes, make_folder, sync_folder, write_atomic

SEAL = "seal"
MANIFEST = "manifest.json"


class Manifest(dict[str, Any]):
    """What a manifest says; to ask for what it lacks is to find it damaged.

    Args:
        values: its entries.
        path: the file, for messages.
        remedy: what to do about a damaged one.
    """

    def __init__(self, values: Mapping[str, Any], path: Path, remedy: str) -> None:
        super().__init__(values)
        self.path, self.remedy = path, remedy

    def __missing__(self, key: str) -> Any:
        raise DamagedError(f"{self.path} is damaged (it lacks {key!r}): {self.remedy}")

    def require(self, **kinds: type | tuple[type, ...]) -> None:
        """Find it damaged unless it has these entries of these types; a seal vouches for the rest.

        Raises:
            DamagedError: one is missing or of another type.
        """
        for key, kind in kinds.items():
            if not isinstance(self[key], kind):
                what = f"{key!r} is {type(self[key]).__name__}"
                raise DamagedError(f"{self.path} is damaged ({what}): {self.remedy}")


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON with the sha256 of its content as its last entry, atomically."""
    write_atomic(path, _sealed_bytes(value))


def _sealed_bytes(value: Mapping[str, Any]) -> bytes:
    plain = json.loads(json_bytes(value))  # as it will be read
    plain.pop(SEAL, None)
    return json_bytes({**plain, SEAL: _seal(plain)})


def _seal(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_sealed(path: Path, *, remedy: str) -> Manifest:
    """The object of a file that `write_sealed` wrote, without its seal; of an older program, unsealed.

    Args:
        path: the file.
        remedy: what to do about a damaged one, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is not JSON, no object, or not what was written.
    """
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged (not JSON: {error}): {remedy}") from error
    if not isinstance(value, dict):
        raise DamagedError(f"{path} is damaged (it holds no JSON object): {remedy}")
    seal = value.pop(SEAL, None)
    if seal is None:
        # Even the seal's own name may be what was hit; then its value still is what it says.
        hit = any(
            _seal({k: v for k, v in value.items() if k != key}) == text
            for key, text in value.items()
            if isinstance(text, str) and len(text) == 64
        )
    else:
        hit = seal != _seal(value)
    if hit:
        raise DamagedError(f"{path} is damaged (it is not what was written): {remedy}")
    return Manifest(value, path, remedy)


class SealedFolder:
    """A folder whose `manifest.json` holds the sha256 of each of its files, true at every moment.

    Files that are about to take their place stand in the manifest with the old sum (`files`) and the new one
    (`coming`); whichever is found is right, so no crash makes a whole file look damaged.

    Args:
        path: the folder; it exists.
        manifest: what its manifest says, `files` and `coming` among it where it has been written before.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        files, coming = dict(manifest.get("files", {})), manifest.pop("coming", {})
        for name, sha256 in coming.items():  # of a writer that was stopped
            file = path / name
            if file.is_file() and (name not in files or hash_file(file) == sha256):
                files[name] = sha256
        manifest["files"] = files

    def put(self, files: Mapping[str, bytes], *, drop: Iterable[str] = ()) -> None:
        """Write files, each atomically, and remove those of `drop`; the manifest is true throughout.

        Raises:
            OSError: the disk is full or failing; every file is the old one or the new one.
        """
        drop = set(drop)
        known = {name: sha256 for name, sha256 in self.manifest["files"].items() if name not in drop}
        new = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        self.manifest["files"] = known
        coming = {name: sha256 for name, sha256 in new.items() if known.get(name) != sha256}
        if coming or drop or not files:
            self.save(coming)
        for name, data in files.items():
            make_folder((self.path / name).parent)
            write_atomic(self.path / name, data)
            known[name] = new[name]
        for name in drop:
            (self.path / name).unlink(missing_ok=True)
        for folder in {(self.path / name).parent for name in drop}:
            if folder.is_dir():
                sync_folder(folder)  # pictures of people must not come back after a loss of power

    def save(self, coming: Mapping[str, str] | None = None) -> None:
        """Write the manifest; `coming`: sums of files that are about to be put in their place."""
        rest = {name: value for name, value in self.manifest.items() if name != "files"}
        sums = {
            "files": dict(sorted(self.manifest["files"].items())),
            **({"coming": coming} if coming else {}),
        }
        write_sealed(self.path / MANIFEST, {**rest, **sums})


def damage(path: Path, name: str, manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with the file `name` of a sealed folder by its manifest; None where nothing is.

    A manifest of an older program has no sums: then only the file's being there counts.
    """
    file = path / name
    sums = [manifest[key][name] for key in ("files", "coming") if name in manifest.get(key, {})]
    if not file.is_file():
        return "it is missing" if name in manifest.get("files", {}) else None
    if "files" not in manifest:
        return None
    if not sums:
        return "the manifest does not know it"
    return None if hash_file(file) in sums else "its content is not what was written"
