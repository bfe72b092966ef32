"""What a disk holds after each call of a journal, and what it would still hold had the power failed there.

The model is small: a file has the data that programs see and the data that were synced; a folder has the
names that programs see and the names that were synced. `Disk.tree` is what a killed process leaves.
`Disk.after_power_loss` is what a loss of power leaves at worst, in two ways that file systems differ in:
names that were not synced are gone (the old ones are back), or all names are there and the unsynced data
are not.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

OPEN, WRITE, FSYNC, RENAME, LINK, UNLINK, RMDIR, MKDIR, TRUNCATE = range(1, 10)
NAMES = ("", "open", "write", "fsync", "rename", "link", "unlink", "rmdir", "mkdir", "truncate")
_HEAD = struct.Struct("=IiqiIIIQ")

Tree = dict[str, bytes | None]  # relative path -> content, None for a folder


@dataclass(frozen=True)
class Call:
    """One call below the watched folder, in the order of the disk; paths are relative to the folder."""

    kind: int
    flags: int
    at: int
    error: int
    path: str
    target: str
    data: bytes

    def __str__(self) -> str:
        size = f" {len(self.data)} B" if self.kind == WRITE else ""
        return f"{NAMES[self.kind]} {self.path}{f' -> {self.target}' if self.target else ''}{size}"


def read_journal(path: Path, folder: Path) -> list[Call]:
    """The calls that the shim wrote down; one that was not finished is left out."""
    data, at, found = path.read_bytes(), 0, []

    def relative(name: bytes) -> str:
        return os.path.relpath(os.fsdecode(name), folder) if name else ""

    while at + _HEAD.size <= len(data):
        kind, flags, offset, error, n_path, n_target, _, n_data = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        path_, target = data[at : at + n_path], data[at + n_path : at + n_path + n_target]
        at += n_path + n_target
        found.append(
            Call(kind, flags, offset, error, relative(path_), relative(target), data[at : at + n_data])
        )
        at += n_data
    return found


@dataclass(eq=False)
class _File:
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass(eq=False)
class _Folder:
    names: dict[str, _File | _Folder] = field(default_factory=dict)
    synced: dict[str, _File | _Folder] = field(default_factory=dict)


class Disk:
    """The watched folder, call by call; what it holds at first is taken as synced."""

    def __init__(self, tree: Tree) -> None:
        self.root = _Folder()
        for path in sorted(tree):
            folder, name = self._place(path)
            content = tree[path]
            made = _Folder() if content is None else _File(bytearray(content), content)
            folder.names[name] = folder.synced[name] = made

    def _place(self, path: str) -> tuple[_Folder, str]:
        *parents, name = Path(path).parts or (".",)
        folder = self.root
        for parent in parents:
            inner = folder.names[parent]
            if not isinstance(inner, _Folder):
                raise ValueError(f"{path} lies in a file")
            folder = inner
        return folder, name

    def _at(self, path: str) -> _File | _Folder:
        if path == ".":
            return self.root
        if path.endswith(" (deleted)"):  # still open, its name gone: what is written goes nowhere
            return _File()
        folder, name = self._place(path)
        return folder.names[name]

    def _file(self, path: str) -> _File:
        found = self._at(path)
        if not isinstance(found, _File):
            raise ValueError(f"{path} is a folder")
        return found

    def apply(self, call: Call) -> None:
        """Carry out one call that went well; one that failed changes nothing."""
        if call.error:
            return
        if call.kind == FSYNC:
            found = self._at(call.path)
            if isinstance(found, _File):
                found.synced = bytes(found.data)
            else:
                found.synced = dict(found.names)
        elif call.kind == WRITE:
            data = self._file(call.path).data
            data.extend(bytes(max(0, call.at - len(data))))
            data[call.at : call.at + len(call.data)] = call.data
        elif call.kind == TRUNCATE:
            data = self._file(call.path).data
            data.extend(bytes(max(0, call.at - len(data))))
            del data[call.at :]
        else:
            self._apply_names(call)

    def _apply_names(self, call: Call) -> None:
        folder, name = self._place(call.path)
        if call.kind == OPEN:
            if call.flags & os.O_CREAT and name not in folder.names:
                folder.names[name] = _File()
            if call.flags & os.O_TRUNC:
                self._file(call.path).data.clear()
        elif call.kind == MKDIR:
            folder.names[name] = _Folder()
        elif call.kind in (UNLINK, RMDIR):
            del folder.names[name]
        else:
            other, new = self._place(call.target)
            exchange = call.kind == RENAME and call.flags == 2
            replaced = other.names.get(new)
            other.names[new] = folder.names[name]
            if exchange and replaced is not None:
                folder.names[name] = replaced
            elif call.kind == RENAME:
                del folder.names[name]

    def tree(self) -> Tree:
        """What a process that is killed now leaves."""
        return dict(_walk(self.root, names_synced=False, data_synced=False))

    def half_written(self, call: Call) -> Tree:
        """What it leaves when the kernel had taken half of `call`, a write that is not applied yet."""
        file = self._file(call.path)
        before = bytes(file.data)
        half = Call(WRITE, 0, call.at, 0, call.path, "", call.data[: len(call.data) // 2])
        self.apply(half)
        found = self.tree()
        file.data[:] = before
        return found

    def after_power_loss(self, *, names_synced: bool) -> Tree:
        """What a loss of power leaves: synced data, under the synced names alone or under all of them."""
        return dict(_walk(self.root, names_synced=names_synced, data_synced=True))


def _walk(
    folder: _Folder, *, names_synced: bool, data_synced: bool, below: str = ""
) -> Iterator[tuple[str, bytes | None]]:
    for name, inner in sorted((folder.synced if names_synced else folder.names).items()):
        path = f"{below}{name}"
        if isinstance(inner, _File):
            yield path, inner.synced if data_synced else bytes(inner.data)
        else:
            yield path, None
            yield from _walk(inner, names_synced=names_synced, data_synced=data_synced, below=f"{path}/")


def read_tree(folder: Path) -> Tree:
    """Everything below a folder."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def write_tree(folder: Path, tree: Tree) -> None:
    """Put `tree` into a new folder."""
    folder.mkdir(parents=True)
    for path, content in sorted(tree.items()):
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
