"""Changes of sets in storage: who writes there, and how `forget` has a set follow its copy.

    s3://bucket/sets/.site.lock      who writes the set
    s3://bucket/sets/.site.change    which change is being made of it

A change is decided on one machine, and may be made much later, when others have changed the set: then what
lies ready here holds people who have been forgotten there since, and must not be put there.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tracklearn.store import lock
from tracklearn.store.files import beside, remove_folder
from tracklearn.store.lock import InUseError, locked
from tracklearn.store.objects import Stored
from tracklearn.store.sealed import MANIFEST
from tracklearn.store.sets.setwriter import truth_path
from tracklearn.types import Refusal

TRUTH_NAME = ".truth.parquet"  # behind the name of the set
_own: set[str] = set()  # locks that this process holds


class OvertakenError(Refusal):
    """A set in storage is not what a change that was decided was made of; it can never be made."""


@contextmanager
def held(at: Stored) -> Iterator[None]:
    """Keep every other process from writing a set in storage, as far as that goes.

    A storage has no locks: an object that names the process stands for one. Two that begin in the same
    moment may both find none, and both go on.

    Raises:
        InUseError: another process writes there.
        ValueError: the storage cannot be reached, or refuses.
    """
    file = at.beside(before=".", after=".lock")
    owner = secrets.token_hex(8)
    own = json.dumps({**json.loads(lock.own_mark()), "owner": owner}).encode()
    with ExitStack() as stack:
        _own.add(owner)
        stack.callback(_own.discard, owner)
        for attempt in (0, 1):
            with suppress(FileNotFoundError):
                if (holder := file.read()) != own and (attempt or not _is_over(holder)):
                    raise lock.in_use(at, holder, file)
            if not attempt:
                file.write(own)
        try:
            yield
        finally:
            with suppress(Refusal, OSError):  # nor can it be told then
                if file.read() == own:
                    file.remove()


def require_changeable(at: Stored, old: str) -> None:
    """Refuse now what a change would be refused for.

    Args:
        at: the set.
        old: sha256 of the manifest of the set that it is made of.

    Raises:
        ValueError: the storage cannot be reached, or does not allow it; the set is another one by now.
        InUseError: another process writes there.
    """
    with held(at):
        probe = at.beside(before=".", after=".probe")
        probe.write(b"")
        probe.remove()
        if (now := read_if_any(at / MANIFEST)) is None or _sum(now) != old:
            raise Refusal(f"{at} has changed since it was read: nothing was done; begin again")


def change(url: str, folder: Path, what: Mapping[str, Any]) -> None:
    """Change a set in storage to what its copy here has become; may be broken off, and done twice.

    The storage must hold what the change was made of, or what this very change has left half made: the
    manifest gone, or the beginning of the new one, and the marker beside the set naming this change. The
    marker is written while the manifest is still the old one, so that whoever changes the set first has it.

    Args:
        url: of the set. folder: the copy.
        what: `put`, names of files that are others, `remove`, names that go, `truth`, whether it is another
            one too, `old` and `new`, the sha256 of the manifests, and `server`, as of `Stored.server`.

    Raises:
        OvertakenError: the set has changed meanwhile, or the copy; it is removed, and the set stays.
        ValueError: the storage cannot be reached, or refuses; it is another server; another process writes.
    """
    at = Stored.of(url)
    if at.server != what["server"]:
        raise Refusal(
            f"tracklearn forget has something left to do in {at}, which is at another server than the one "
            f"asked now: give {at} as it was given then, with what stood behind its question mark, or set "
            "AWS_ENDPOINT_URL as then"
        )
    try:
        with held(at):
            _change(at, folder, what)
    except InUseError as error:  # for `settle` that were a `forget` under way
        raise Refusal(str(error)) from None


def _change(at: Stored, folder: Path, what: Mapping[str, Any]) -> None:
    marker, own = marker_of(at), f"{what['old']} {what['new']}".encode()
    there = read_if_any(at / MANIFEST)
    if there is not None and _sum(there) == what["new"]:
        if read_if_any(marker) == own:
            marker.remove()
        return
    new = (folder / MANIFEST).read_bytes() if (folder / MANIFEST).is_file() else b""
    whole = _sum(new) == what["new"]
    untouched = there is not None and _sum(there) == what["old"]
    begun = not untouched and read_if_any(marker) == own
    half = begun and (there is None or (whole and new.startswith(there)))
    if not whole or not (untouched or half):
        with suppress(InUseError):  # it is removed when it is opened, too: the storage has another manifest
            remove_copy(folder)
        why = f"the copy of {at} here, without what was to go, has gone itself"
        if not (untouched or half):
            why = f"{at} has changed meanwhile, and what has gone from it since would come back"
        after = "ingest the set again" if half else "forget again, by a run of it as it is"
        raise OvertakenError(f"what was to be forgotten in {at} was not: {why}; {after}")
    if untouched:
        marker.write(own)
    (at / MANIFEST).remove()
    for name in what["remove"]:
        (at / name).remove()
    for name in what["put"]:
        (at / name).put(folder / name)
    if what["truth"]:
        at.beside(after=TRUTH_NAME).put(truth_path(folder))
    (at / MANIFEST).write(new)
    marker.remove()


def marker_of(at: Stored) -> Stored:
    """What says which change is being made of a set."""
    return at.beside(before=".", after=".change")


def read_if_any(at: Stored) -> bytes | None:
    """The content of an object; None without one."""
    try:
        return at.read()
    except FileNotFoundError:
        return None


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_over(holder: bytes) -> bool:
    """Whether who holds a lock of storage is no more, or is this process, which could not remove it."""
    if lock.is_over(holder):
        return True
    told, own = json.loads(holder), json.loads(lock.own_mark())
    return all(told.get(key) == own[key] for key in ("pid", "host", "born")) and told.get("owner") not in _own


def remove_copy(copy: Path) -> None:
    """Remove the copy of a set in storage, its truth, and what a fetching that was broken off has left."""
    if copy.parent.is_dir():
        with locked(copy):
            for folder in (copy, beside(copy, before=".", after=".tmp")):
                remove_folder(folder)
                truth_path(folder).unlink(missing_ok=True)
